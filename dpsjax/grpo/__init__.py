"""GRPO: advantages, the clipped loss, the update of one batch of rollouts, and its sharding."""
