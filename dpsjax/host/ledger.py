"""Which batches are out, and which of them are handed out again after a load."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dpsjax.host.statistics import Groups
from dpsjax.host.tickets import FIELDS, Ticket, share_out
from dpsjax.selectors.base import Batch


class Ledger:
    """The batches that are out, oldest first.

    Args:
        group: rollouts of each prompt, if known.
        outstanding: batches that may be out; one more gives up the oldest.
    """

    def __init__(self, group: int | None, outstanding: int) -> None:
        self.group, self.outstanding = group, outstanding
        self.tickets: dict[int, Ticket] = {}
        self.again: list[int] = []  # to be handed out once more, after a load
        self.lost: list[int] = []  # given up as too many were out

    def of(self, number: int | None) -> Ticket:
        """The batch of a number, or the newest.

        Raises:
            ValueError: it is not out.
        """
        if number is None and self.tickets:
            return self.tickets[max(self.tickets)]
        if number not in self.tickets:
            wrong = "no batch is out" if number is None else f"ticket {number} is not out"
            raise ValueError(f"{wrong}: it was never handed out, or all of it is learned")
        return self.tickets[number]

    def pending(self) -> list[int]:
        """Batches that wait for rewards which may still come."""
        waiting = (n for n, t in self.tickets.items() if not (t.given_up or t.done(self.group)))
        return list(waiting)

    def add(self, number: int, step: int, batch: Batch) -> Ticket:
        """Hand a batch out."""
        self.tickets[number] = ticket = Ticket.of(number, step, batch)
        if len(self.tickets) > self.outstanding:
            oldest = next(iter(self.tickets))
            self.lost.append(oldest)
            del self.tickets[oldest]
        return ticket

    def next_again(self) -> Ticket | None:
        """The next batch to be handed out once more; None where there is none."""
        while self.again:
            number = self.again.pop(0)
            if number in self.pending():
                self.tickets[number].again()
                return self.tickets[number]
        return None

    def ready(self) -> list[tuple[Ticket, np.ndarray]]:
        """Batches with groups that can be learned, and which."""
        marked = ((ticket, ticket.ready(self.group)) for ticket in self.tickets.values())
        return [(ticket, ready) for ticket, ready in marked if ready.any()]

    def groups(self) -> list[Groups]:
        """The groups that can be learned."""
        return [ticket.groups(ready) for ticket, ready in self.ready()]

    def tell(self, number: int | None, ids: np.ndarray, rewards: np.ndarray, solved: float) -> None:
        """Share rows out to one batch, or in order to all.

        Raises:
            ValueError: no batch waits for a prompt; nothing has changed then.
        """
        tickets = list(self.tickets.values()) if number is None else [self.of(number)]
        shares, left = share_out(tickets, ids, self.group)
        if left.size:
            raise ValueError(
                "index names prompts that were not handed out, or whose groups were told already: "
                f"{np.unique(ids[left]).tolist()}; rollouts made elsewhere: tell(asked=False)"
            )
        for ticket, rows, places in shares:
            ticket.tell(places, rewards[rows], solved)
        if number is None and shares:
            oldest = min(ticket.number for ticket, *_ in shares)
            for ticket in tickets:
                ticket.given_up |= ticket.number < oldest

    def close(self) -> None:
        """Let go of the batches that are learned."""
        self.tickets = {n: t for n, t in self.tickets.items() if not t.learned.all()}

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of all batches, stacked; none where none is out."""
        tickets = self.tickets.values()
        if not tickets:
            return {}
        return {name: np.stack([getattr(t, name) for t in tickets]) for name in FIELDS}

    def rest(self) -> dict[str, Any]:
        """All but the arrays, as JSON takes it."""
        numbers = [[t.number, t.step, t.given_up] for t in self.tickets.values()]
        return {"lost": self.lost, "tickets": numbers}

    def restore(self, arrays: Mapping[str, np.ndarray], rest: Mapping[str, Any]) -> None:
        """Take the place of what was saved; what was out is handed out again."""
        self.lost = list(rest["lost"])
        self.tickets = {}
        for row, (number, step, given_up) in enumerate(rest["tickets"]):
            fields = {name: arrays[name][row].copy() for name in FIELDS}
            self.tickets[number] = Ticket(number, step, given_up=given_up, **fields)
        self.again = self.pending()
