"""Batches that were handed out, and what has been told of each."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from dpsjax.host.statistics import Groups
from dpsjax.selectors.base import Batch

_OF_GROUPS = ("told", "verdicts", "passes", "learned", "barred", "accept", "factor")
FIELDS = ("index", "weight", "trials", *_OF_GROUPS)  # the arrays, in order


@dataclasses.dataclass
class Ticket:
    """One batch of B prompts; each place of it is a group of rollouts.

    Attributes:
        number: counts batches from 0.
        step: training step in which it was handed out, from 0.
        index: int32[B] distinct prompts.
        weight: float32[B] loss weights of the draw.
        trials: int32[B] rollouts that the selector wants of each; 0: as many as everybody gets.
        told: int32[B] rollouts told and not learned yet, those without a verdict too.
        verdicts: int32[B] of them those with one.
        passes: int32[B] of them those that passed.
        learned: bool[B] whether the belief has learned of the group.
        barred: bool[B] whether rows are dropped, as learned before the batch was handed out again.
        accept: bool[B] what the selector said of a learned group.
        factor: float32[B] the loss weight it then gave.
        given_up: whether it is not handed out again after a load.
    """

    number: int
    step: int
    index: np.ndarray
    weight: np.ndarray
    trials: np.ndarray
    told: np.ndarray
    verdicts: np.ndarray
    passes: np.ndarray
    learned: np.ndarray
    barred: np.ndarray
    accept: np.ndarray
    factor: np.ndarray
    given_up: bool = False

    @classmethod
    def of(cls, number: int, step: int, batch: Batch) -> "Ticket":
        """A batch of a selector as it is handed out."""
        index = np.asarray(batch.index, np.int32)
        count, no = np.zeros(index.shape, np.int32), np.zeros(index.shape, bool)
        drawn = index, np.asarray(batch.weight, np.float32), np.asarray(batch.trials, np.int32)
        groups = (count.copy(), count.copy(), count.copy(), no.copy(), no.copy(), no.copy())
        return cls(number, step, *drawn, *groups, np.zeros(index.shape, np.float32))

    def wanted(self, group: int | None) -> np.ndarray | None:
        """int[B] rollouts of each whole group; None where nobody said how many."""
        return None if group is None else np.where(self.trials > 0, self.trials, group)

    def places(self, ids: np.ndarray) -> np.ndarray:
        """The place of each id in this batch, -1 where it is not in it."""
        order = np.argsort(self.index, kind="stable")
        at = np.minimum(np.searchsorted(self.index, ids, sorter=order), order.size - 1)
        found = order[at]
        return np.where(self.index[found] == ids, found, -1)

    def room(self, group: int | None) -> np.ndarray:
        """int64[B] rows that each place still takes."""
        wanted = self.wanted(group)
        if wanted is None:
            return np.where(self.learned & ~self.barred, 0, np.iinfo(np.int64).max)
        return np.where(self.learned & ~self.barred, 0, wanted - self.told)

    def ready(self, group: int | None) -> np.ndarray:
        """bool[B]: groups that the belief can learn of now: whole, or told at all."""
        wanted = self.wanted(group)
        whole = self.told > 0 if wanted is None else self.told >= wanted
        return whole & ~self.learned

    def done(self, group: int | None) -> bool:
        """Whether every group is learned or can be."""
        return bool(np.all(self.learned | self.ready(group)))

    def tell(self, places: np.ndarray, rewards: np.ndarray, solved: float) -> None:
        """Take in rows of single rollouts; NaN is no verdict."""
        taken = ~self.barred[places]
        places, rewards = places[taken], rewards[taken]
        size, verdict = self.index.size, ~np.isnan(rewards)
        passed = verdict & (rewards > solved)
        for field, marked in (
            (self.told, slice(None)),
            (self.verdicts, verdict),
            (self.passes, passed),
        ):
            field += np.bincount(places[marked], minlength=size).astype(np.int32)

    def groups(self, chosen: np.ndarray) -> Groups:
        """Prompts, passes, verdicts and rollouts of some places."""
        return self.index[chosen], self.passes[chosen], self.verdicts[chosen], self.told[chosen]

    def learn(self, chosen: np.ndarray, accept: np.ndarray, factor: np.ndarray) -> None:
        """The belief has learned of some places, and the selector said this of them."""
        self.accept[chosen], self.factor[chosen] = accept[chosen], factor[chosen]
        self.learned |= chosen
        for counts in (self.told, self.verdicts, self.passes):
            counts[chosen] = 0

    def again(self) -> None:
        """Hand it out once more: what was told and not learned is told again."""
        self.barred = self.learned.copy()
        for field in (self.told, self.verdicts, self.passes):
            field[:] = 0


def share_out(
    tickets: Sequence[Ticket], ids: np.ndarray, group: int | None
) -> tuple[list[tuple[Ticket, np.ndarray, np.ndarray]], np.ndarray]:
    """Which batch each row belongs to: the oldest that waits for its prompt.

    Where nobody said how many rollouts a group has, the oldest batch that waits for all the
    prompts comes first.

    Args:
        tickets: open ones, oldest first.
        ids: int64[R].
        group: rollouts of each prompt, if known.

    Returns:
        ``(shares, left)``: for each batch its rows and their places; rows that none waits for.
    """
    shares: list[tuple[Ticket, np.ndarray, np.ndarray]] = []
    left = np.arange(ids.size)
    for ticket in _in_order(tickets, ids, group):
        places = ticket.places(ids[left])
        room = np.where(places >= 0, ticket.room(group)[places], 0)
        mine = _rank(ids[left]) < room
        if mine.any():
            shares.append((ticket, left[mine], places[mine]))
        left = left[~mine]
    return shares, left


def _in_order(tickets: Sequence[Ticket], ids: np.ndarray, group: int | None) -> Iterable[Ticket]:
    if group is not None:
        return tickets
    for ticket in tickets:
        places = ticket.places(ids)
        if np.all(places >= 0) and np.all(ticket.room(None)[places] > 0):
            return [ticket]
    return tickets


def _rank(ids: np.ndarray) -> np.ndarray:
    """How many rows before each have the same id."""
    order = np.argsort(ids, kind="stable")
    ranked = ids[order]
    starts = np.r_[True, ranked[1:] != ranked[:-1]] if ids.size else np.zeros(0, bool)
    first = np.maximum.accumulate(np.where(starts, np.arange(ids.size), 0))
    rank = np.empty(ids.size, np.int64)
    rank[order] = np.arange(ids.size) - first
    return rank
