"""Groups that were told, as a selector learns of them: always B rows, so compiled once."""

from collections.abc import Sequence

import numpy as np

from dpsjax.host.statistics import Groups
from dpsjax.host.tickets import Ticket
from dpsjax.selectors import Feedback, Selector, observe
from dpsjax.types import PyTree

Learned = list[tuple[Ticket, np.ndarray, Feedback]]


def learn(
    selector: Selector,
    state: PyTree,
    ready: Sequence[tuple[Ticket, np.ndarray]],
    step: int,
    batch_size: int,
    advance: bool,
) -> tuple[PyTree, Learned]:
    """The state after the groups of some batches, and what the selector says of each.

    Args:
        selector: of the state.
        state: before.
        ready: batches, and which of their places.
        step: the training step now.
        batch_size: B.
        advance: whether a step then passes.

    Returns:
        ``(state, learned)``.
    """
    learned = []
    for place, (ticket, mask) in enumerate(ready):
        columns = ((ticket.index, -1), (ticket.passes, 0), (ticket.verdicts, 0))
        rows = [np.where(mask, values, otherwise) for values, otherwise in columns]
        last = advance and place == len(ready) - 1
        said, state = _observe(selector, state, rows, step - ticket.step, last)
        learned.append((ticket, mask, said))
    if advance and not ready:
        none = np.zeros(batch_size, np.int32)
        _, state = _observe(selector, state, [none - 1, none, none], 0, True)
    return state, learned


def learn_elsewhere(selector: Selector, state: PyTree, groups: Groups, batch_size: int) -> PyTree:
    """The state after groups of distinct prompts that no batch holds."""
    prompts, passes, verdicts, _ = groups
    for start in range(0, prompts.size, batch_size):
        columns = ((prompts, -1), (passes, 0), (verdicts, 0))
        rows = [_padded(values[start : start + batch_size], batch_size, v) for values, v in columns]
        _, state = _observe(selector, state, rows, 0, False)
    return state


def grouped(ids: np.ndarray, rewards: np.ndarray, solved: float) -> Groups:
    """Rows of single rollouts, by prompt."""
    prompts, place = np.unique(ids, return_inverse=True)
    verdict = ~np.isnan(rewards)

    def count(marked: np.ndarray) -> np.ndarray:
        return np.bincount(place[marked], minlength=prompts.size)

    told = count(np.ones(ids.size, bool))
    return prompts, count(verdict & (rewards > solved)), count(verdict), told


def _padded(values: np.ndarray, size: int, fill: int) -> np.ndarray:
    return np.pad(values.astype(np.int32), (0, size - values.size), constant_values=fill)


def _observe(selector, state, rows, age: int, advance: bool):
    ages = np.full(rows[0].size, age, np.int32)
    return observe(selector, state, *rows, age=ages, advance=advance)
