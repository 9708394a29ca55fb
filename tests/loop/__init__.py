"""The stages of a training step."""
