"""What goes wrong during a run: counted, explained once, and never the end of it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dpsjax.policy import PolicyConfig, save_weights
from dpsjax.policy.weights import on_host
from dpsjax.train.metrics import Record
from dpsjax.train.processes import from_first, is_first
from dpsjax.train.stages import Draw, Groups
from dpsjax.train.state import TrainState

# Each can be as large as a batch, the weights larger: enough to see whether they are alike.
MOST_REPRODUCERS = 3


class NonFiniteError(RuntimeError):
    """A loss or gradient was not finite, and the settings say to stop then."""


class Notices:
    """Explains each kind of fault when it first appears; the counts are in the records.

    Args:
        show: called with a sentence.
    """

    def __init__(self, show: Callable[[str], None]) -> None:
        self.show, self.seen = show, set()

    def look(self, record: Record, errors: Sequence[str], batch_size: int) -> None:
        """Say what is new in a record.

        Args:
            record: of a step.
            errors: of its scoring.
            batch_size: B, the prompts asked for.
        """
        prompts, total = len(record["groups"]["prompt"]), sum(record["groups"]["trials"])
        empty = record["groups"]["trials"].count(0)
        if errors:
            self._say(
                "score",
                record,
                f"the reward function failed ({errors[0][:200]}); the rollouts without a reward "
                "do not count (invalid_rollouts, reward_errors)",
            )
        if record["invalid_rollouts"] and not errors:
            self._say(
                "reward",
                record,
                f"{record['invalid_rollouts']} rewards are not finite; these rollouts do not count "
                "(invalid_rollouts)",
            )
        if empty:
            self._say(
                "group",
                record,
                f"{empty} of {prompts} groups have no valid rollout: nothing learned",
            )
        if prompts < batch_size:
            self._say(
                "pool",
                record,
                f"the selector had only {prompts} of {batch_size} prompts to give; the batch is "
                "short (short_batch)",
            )
        if record["skipped_nonfinite"]:
            self._say(
                "nonfinite",
                record,
                f"a loss or gradient is not finite; {record['skipped_nonfinite']} optimizer steps "
                "are left out, parameters and optimizer stay as they were (skipped_nonfinite)",
            )
        if record["groups_in_loss"] == 0 and total:
            self._say(
                "uninformative",
                record,
                "all groups are entirely right or entirely wrong: there is nothing to learn from "
                "in this step (groups_in_loss)",
            )

    def _say(self, kind: str, record: Record, text: str) -> None:
        if kind not in self.seen:
            self.seen.add(kind)
            self.show(
                f"step {record['step']}: {text}. It is counted from now on, not repeated here."
            )


def write_reproducer(
    folder: Path,
    policy: PolicyConfig,
    state: TrainState,
    step: int,
    draw: Draw,
    groups: Groups,
) -> Path | None:
    """Write down a step that was skipped: its key, batch and rewards, and the weights.

    All processes must call this together; the first writes.

    Args:
        folder: DIR/faults.
        policy: architecture.
        state: after the skip. With one optimizer step a batch its parameters are those from before.
        step: number of the step, from 1.
        draw: its prompts.
        groups: its scored rollouts.

    Returns:
        ``step-N.npz``, beside which lies ``step-N.safetensors``; None when there are enough of
        them already. Read it with ``numpy.load``: it holds no pickled objects.
    """
    path = folder / f"step-{step}.npz"

    def enough() -> bool:
        folder.mkdir(parents=True, exist_ok=True)
        return len(list(folder.glob("*.npz"))) >= MOST_REPRODUCERS and not path.exists()

    if from_first(enough):
        return None
    arrays: dict[str, Any] = {
        "step": np.int32(step),
        "key_data": np.asarray(jax.random.key_data(state.key)),
        "key_impl": np.array(str(jax.random.key_impl(state.key))),
        "index": on_host(draw.index),
        "weight": on_host(draw.weight),
        "prompt": on_host(draw.prompt),
        "prompt_mask": on_host(draw.prompt_mask),
        "tokens": on_host(groups.rollouts.tokens),
        "mask": on_host(groups.rollouts.mask),
        "log_probs": on_host(groups.rollouts.log_probs),
        "rewards": on_host(groups.rewards),
        "valid": on_host(groups.valid),
    }
    if is_first():
        with path.open("wb") as stream:
            np.savez(stream, **arrays)
    save_weights(path.with_suffix(".safetensors"), policy, state.params)
    return path
