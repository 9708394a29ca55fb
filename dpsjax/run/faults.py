"""What goes wrong during a run: counted, explained once, and never the end of it."""

from collections.abc import Callable, Sequence

from dpsjax.loop.metrics import Record

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

    def look(self, record: Record, errors: Sequence[str]) -> None:
        """Say what is new in a record.

        Args:
            record: of a step.
            errors: of its scoring.
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
        if short := record["short_batch"]:
            self._say(
                "pool",
                record,
                f"the selector had {short} prompts too few to give; the batch is short "
                "(short_batch)",
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
