"""A training loader that asks a curriculum, for trainers that iterate over one."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from dpsjax.adapters import packed, unpack
from dpsjax.curriculum import Curriculum


class Loader:
    """Batches of rows, chosen when the trainer takes one; nothing is read ahead.

    An epoch is as many batches as the rows fill, as the trainer's own loader had; a resumed one
    goes on where it was.

    Args:
        dataset: rows by number.
        collate: makes a batch of a list of rows.
        curriculum: whose batches are asked for.

    Attributes:
        ticket: the number of the newest batch.
        index: int32[B] its prompts.
        loaded: whether a state was loaded.
        refill: whether the next batch is for the same training step.
    """

    def __init__(self, dataset: Any, collate: Callable[[list], Any], curriculum: Curriculum):
        self.dataset, self.collate, self.curriculum = dataset, collate, curriculum
        self.ticket, self.index = -1, np.zeros(0, np.int32)
        self.loaded = self.refill = False
        self._place = 0

    def __len__(self) -> int:
        return self.curriculum.num_prompts // self.curriculum.batch_size

    def __iter__(self) -> Iterator[Any]:
        self._place %= len(self)
        while self._place < len(self):
            self._place += 1
            self.ticket, self.index = self.curriculum.ask_ticket(same_step=self.refill)
            self.refill = False
            yield self.collate([self.dataset[int(i)] for i in self.index])

    def tell(self, index: Any, rewards: Any) -> None:
        """Tell of the newest batch; what the trainer left out of it is not waited for."""
        self.curriculum.tell(self.ticket, index, rewards)
        if self.ticket in self.curriculum.pending:
            self.curriculum.drop(self.ticket)

    def state_dict(self) -> dict[str, Any]:
        """As trainers keep it, in their file ``data.pt``."""
        return {"curriculum": packed(self.curriculum), "place": self._place}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state.

        Raises:
            ValueError: it is of another loader, or of another curriculum.
        """
        if "curriculum" not in state_dict:
            raise ValueError("the checkpoint was made without a curriculum: it has no belief")
        unpack(self.curriculum, state_dict["curriculum"])
        self._place, self.loaded = int(state_dict["place"]), True
