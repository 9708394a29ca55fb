"""A curriculum in anybody's loop: ask for prompts, tell what they earned, save, load.

The object lives on the host, its belief on the CPU, beside whatever trains. `ask` hands out a
batch, `tell` takes rewards as they come: in parts, in any order, late or never. What was told is
learned at the next `ask`, group by group, so that it does not matter in how many parts it came.
"""

import threading
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dpsjax import checks
from dpsjax.host import rewards as given
from dpsjax.host import store
from dpsjax.host.describe import describe
from dpsjax.host.fingerprint import fingerprint as fingerprint_of
from dpsjax.host.learning import Learned, grouped, learn, learn_elsewhere
from dpsjax.host.ledger import Ledger
from dpsjax.host.statistics import Statistics, restored
from dpsjax.host.tickets import Ticket
from dpsjax.selectors import Batch, Feedback, Selector, has_belief, inspect, select
from dpsjax.selectors.base import GROUP
from dpsjax.types import PyTree


class Curriculum:
    """A selector and its belief, with a memory of what was handed out.

    A training step passes between one :meth:`ask` and the next. Prompts that are out are not
    barred from being asked again. All methods may be called from several threads. Several
    processes that make the same calls with the same values hold the same belief: tell each the
    rewards of all.

    Args:
        selector: a recipe or a chain.
        num_prompts: N; prompts are 0..N-1, the rows of your data set.
        batch_size: B prompts that each :meth:`ask` hands out.
        group: rollouts of each prompt, where you know it (a selector that wants another number of
            a prompt gets that). A group is then learned once it is whole; else at the first
            :meth:`ask` after any of it was told. Needed only where groups arrive in pieces with an
            :meth:`ask` in between.
        solved: a reward above it is a pass.
        seed: of the draws.
        data: arrays [N, ...] by name: what the selector wants to know of every prompt.
        fingerprint: of the data set (:func:`dpsjax.fingerprint`); a saved file of another one is
            refused.
        outstanding: batches that may be out at a time; one more gives up the oldest.
        device: of JAX, for the belief; the CPU if not given.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: B is larger than N, or the selector wants data that is not given.

    >>> import dpsjax
    >>> curriculum = dpsjax.Curriculum(dpsjax.selectors.dps(), num_prompts=100, batch_size=4)
    >>> index = curriculum.ask()
    >>> curriculum.tell(index, [[0, 1], [1, 1], [None, 0], [0, 0]])
    >>> curriculum.metrics()["effective_ratio"]
    0.25
    """

    def __init__(
        self,
        selector: Selector,
        num_prompts: int,
        batch_size: int,
        *,
        group: int | None = None,
        solved: float = 0.5,
        seed: int = 0,
        data: Mapping[str, Any] | None = None,
        fingerprint: str = "",
        outstanding: int = 64,
        device: Any = None,
    ) -> None:
        checks.require_type(Selector, "a recipe or a chain", selector=selector)
        checks.require_counts(num_prompts=num_prompts, batch_size=batch_size)
        checks.require_counts(outstanding=outstanding, **checks.given(group=group))
        checks.require_real(solved=solved)
        checks.require_counts(least=0, seed=seed)
        checks.require_type(str, "of dpsjax.fingerprint", fingerprint=fingerprint)
        checks.require_type(Mapping, "arrays by name", **checks.given(data=data))
        if batch_size > num_prompts:
            raise ValueError(f"batch_size={batch_size} must be at most num_prompts={num_prompts}")
        self.selector, self.num_prompts, self.batch_size = selector, num_prompts, batch_size
        self.group, self.solved, self.outstanding = group, float(solved), outstanding
        self._device = _cpu() if device is None else device
        self._lock = threading.RLock()
        self._settings = {
            "num_prompts": num_prompts,
            "batch_size": batch_size,
            "group": group,
            "solved": self.solved,
            "seed": seed,
            "fingerprint": fingerprint,
            **{f"data.{name}": fingerprint_of(value) for name, value in (data or {}).items()},
            **describe(selector),
        }
        with jax.default_device(self._device):
            self._key = jax.random.key(seed, impl="threefry2x32")
            self._base = jax.device_put(selector.init(num_prompts, data), self._device)
        self._settings |= {f"state{name}": _kind(leaf) for name, leaf in self._leaves()}
        self._statistics, self._ledger = Statistics.of(num_prompts), Ledger(group, outstanding)
        self._step = self._asked = 0
        self._begun = False  # whether a step has begun that has not passed
        self._settled: dict[bool, tuple[PyTree, Learned]] = {}

    def ask(self, *, same_step: bool = False) -> np.ndarray:
        """The next prompts to roll out.

        After a :meth:`load`, batches that were out when the file was saved come first, each once
        more and whole.

        Args:
            same_step: another batch for the same training step (a refill): what was told is
                learned, and no time passes.

        Returns:
            int32[B] distinct ids.

        Raises:
            ValueError: the selector has fewer than B prompts to offer. Nothing has changed then.
        """
        return self.ask_ticket(same_step=same_step)[1]

    def ask_ticket(self, *, same_step: bool = False) -> tuple[int, np.ndarray]:
        """As :meth:`ask`, with the batch's number, for loops in which batches overtake each other.

        Args:
            same_step: as in :meth:`ask`.

        Returns:
            ``(ticket, index)``; give the ticket back to :meth:`tell`.

        Raises:
            ValueError: as :meth:`ask` does.
        """
        with self._lock, jax.default_device(self._device):
            ticket = self._ledger.next_again()
            self._settled = {} if ticket else self._settled
            ticket = ticket or self._draw(same_step)
            return ticket.number, ticket.index.copy()

    def tell(self, *told: Any, asked: bool = True) -> None:
        """Take in rewards: ``tell(index, rewards)``, ``tell(ticket, rewards)`` or all three.

        ``index`` is int[R] prompts and ``rewards`` [R], or [R, G] for whole groups; NumPy arrays,
        lists or torch tensors, of bool, int or float, in any order and in as many parts as they
        come in. None and NaN say that a rollout was made and nothing is known of it. With a ticket
        alone, ``rewards`` [B, G], [B] or [B G] are in the order of its batch.

        Without a ticket a row goes to the oldest batch that waits for its prompt, and batches
        older than the ones told are not handed out again after a load. Rows of a batch that was
        given up are dropped, and counted in :meth:`metrics`.

        Args:
            *told: as above.
            asked: False: these rollouts were made elsewhere, of prompts that no :meth:`ask` handed
                out; they are learned at once.

        Raises:
            TypeError: ids are no integers, or rewards no numbers.
            ValueError: lengths differ, an id is out of range, or was not handed out or told
                already; nothing has changed then.
        """
        if len(told) not in (2, 3):
            raise TypeError("tell takes (index, rewards), (ticket, rewards) or all three")
        number = None
        if len(told) == 3 or np.ndim(given.on_host(told[0])) == 0:
            number, told = _number(told[0]), told[1:]
        with self._lock, jax.default_device(self._device):
            if number in self._ledger.lost:
                self._statistics.dropped += given.numbers(told[-1])[0].size
                return
            if number is not None and len(told) == 1:
                ids, rewards = given.rows_of_batch(self._ledger.of(number).index, told[0])
            else:
                ids, rewards = given.flat_rows(told[0], told[1], self.num_prompts)
            if asked:
                self._ledger.tell(number, ids, rewards, self.solved)
            else:
                groups = grouped(ids, rewards, self.solved)
                self._base = learn_elsewhere(self.selector, self._base, groups, self.batch_size)
                self._statistics.take_in(groups, self._step)
            self._settled = {}

    def drop(self, ticket: int) -> None:
        """Give a batch up: what is missing of it never comes, and it is not handed out again.

        Args:
            ticket: of :meth:`ask_ticket`.

        Raises:
            TypeError: it is no integer.
            ValueError: no such batch is out.
        """
        with self._lock:
            self._ledger.of(_number(ticket)).given_up = True

    def batch(self, ticket: int | None = None) -> Batch:
        """A batch that is out: its prompts, loss weights, and rollouts wanted of each.

        Args:
            ticket: its number; the newest if not given.

        Returns:
            a :class:`dpsjax.Batch` of NumPy arrays [B].

        Raises:
            ValueError: no such batch is out.
        """
        with self._lock:
            of = self._ledger.of(ticket)
            return Batch._make(map(np.copy, (of.index, of.weight, of.trials, of.index >= 0)))

    def feedback(self, ticket: int | None = None) -> Feedback:
        """What the selector says of the groups told so far: whether the loss should use them.

        Args:
            ticket: of a batch that is out, or was told since the last :meth:`ask`; the newest if
                not given.

        Returns:
            a :class:`dpsjax.Feedback` of NumPy arrays [B]: False and 0 where nothing was told.

        Raises:
            ValueError: no such batch is out.
        """
        with self._lock, jax.default_device(self._device):
            of = self._ledger.of(ticket)
            accept, factor = of.accept.copy(), of.factor.copy()
            for other, ready, said in self._settle(True)[1]:
                if other is of:
                    accept[ready] = np.asarray(said.accept)[ready]
                    factor[ready] = np.asarray(said.weight)[ready]
            return Feedback._make((accept, factor))

    @property
    def state(self) -> PyTree:
        """The selector's state in the step to come, with all that was told learned."""
        with self._lock, jax.default_device(self._device):
            return self._settle(True)[0]

    @property
    def step(self) -> int:
        """Training steps that have passed."""
        return self._step

    @property
    def pending(self) -> list[int]:
        """Tickets of the batches that would be handed out again after a load, oldest first."""
        with self._lock:
            return self._ledger.pending()

    def metrics(self) -> dict[str, float]:
        """What has been told, as plain numbers: of the last step, and ``total_`` since the start.

        Returns:
            ``step``, ``pass_rate`` and ``effective_ratio`` (share of groups that neither all pass
            nor all fail), ``all_wrong``, ``all_right``, ``no_verdict`` (share of rollouts),
            ``total_rollouts``, ``total_groups``, ``total_effective_ratio``, ``coverage`` (share of
            the prompts told of), ``pending`` and ``given_up`` batches, ``dropped_rollouts``; NaN
            for shares of nothing.
        """
        with self._lock:
            counts = {"pending": len(self.pending), "given_up": len(self._ledger.lost)}
            told = self._statistics.after(self._step, self._ledger.groups()).metrics(self._step)
            return told | {name: float(value) for name, value in counts.items()}

    def table(self, group: int = GROUP) -> dict[str, np.ndarray]:
        """What is known of every prompt, as columns [N].

        Args:
            group: G of the chance to be mixed.

        Returns:
            ``prompt``, ``asked`` (times handed out), ``groups``, ``rollouts`` and ``passes`` told,
            ``last_step`` (-1: never), and where the selector keeps a belief ``rate`` and ``mixed``
            (see :func:`dpsjax.inspect`).

        Raises:
            TypeError: ``group`` is no integer.
            ValueError: it is not positive.
        """
        checks.require_counts(group=group)
        with self._lock, jax.default_device(self._device):
            told = self._statistics.after(self._step, self._ledger.groups()).prompts
            columns = {"prompt": np.arange(self.num_prompts), **told}
            state = self._settle(True)[0]
            if has_belief(self.selector, state):
                outlook = inspect(self.selector, state, group)
                columns["rate"], columns["mixed"] = map(np.asarray, (outlook.rate, outlook.mixed))
            return columns

    def save(self, path: Path | str) -> None:
        """Write everything to one file, at once or not at all.

        Args:
            path: the file; a new one takes the place of an old one.

        Raises:
            OSError: it cannot be written.
        """
        checks.require_type((str, PathLike), "a path", path=path)
        with self._lock:
            header = {
                "settings": self._settings,
                "clock": [self._step, self._asked, self._begun],
                "statistics": self._statistics.rest(),
                "ledger": self._ledger.rest(),
            }
            tables = {"prompts": self._statistics.prompts, "tickets": self._ledger.arrays()}
            arrays = {f"state{name}": np.asarray(leaf) for name, leaf in self._leaves()}
            for table, columns in tables.items():
                arrays |= {f"{table}.{name}": values for name, values in columns.items()}
            store.save(Path(path), header, arrays)

    def load(self, path: Path | str) -> None:
        """Go on from a saved file, bit for bit: make the object as before, then load.

        Args:
            path: of :meth:`save`.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is damaged, or of another pool, batch, selector, seed or data set; the
                message lists what differs. Nothing has changed then.
        """
        checks.require_type((str, PathLike), "a path", path=path)
        header, arrays = store.load(Path(path))
        if differ := store.differences(header["settings"], self._settings):
            raise ValueError(f"{path} does not fit this curriculum:\n  " + "\n  ".join(differ))

        def table(name: str) -> dict[str, np.ndarray]:
            marked = ((key, value) for key, value in arrays.items() if key.startswith(f"{name}."))
            return {key.removeprefix(f"{name}."): value for key, value in marked}

        with self._lock:
            leaves = [jax.device_put(arrays[f"state{n}"], self._device) for n, _ in self._leaves()]
            self._base = jax.tree.unflatten(jax.tree.structure(self._base), leaves)
            self._step, self._asked, self._begun = header["clock"]
            self._statistics = restored(table("prompts"), header["statistics"])
            self._ledger.restore(table("tickets"), header["ledger"])
            self._settled = {}

    def _draw(self, same_step: bool) -> Ticket:
        state, learned = self._settle(not same_step)
        key = jax.random.fold_in(self._key, self._asked)
        batch, state = select(self.selector, key, state, self.batch_size)
        offered = int((np.asarray(batch.index) >= 0).sum())
        if offered < self.batch_size:
            raise ValueError(
                f"the selector offers {offered} prompts, and batch_size={self.batch_size} are "
                "asked for: ask for fewer, or choose one that does not bar so many"
            )
        for ticket, ready, said in learned:
            self._statistics.take_in(ticket.groups(ready), self._step)
            ticket.learn(ready, np.asarray(said.accept), np.asarray(said.weight))
        self._ledger.close()
        self._step += int(self._begun and not same_step)
        ticket = self._ledger.add(self._asked, self._step, batch)
        self._statistics.hand_out(ticket.index)
        self._base, self._begun, self._asked = state, True, self._asked + 1
        self._settled = {}
        return ticket

    def _settle(self, advance: bool) -> tuple[PyTree, Learned]:
        """The belief with all groups learned that can be; nothing is changed."""
        if advance not in self._settled:
            passes, ready = advance and self._begun, self._ledger.ready()
            learned = learn(self.selector, self._base, ready, self._step, self.batch_size, passes)
            self._settled[advance] = learned
        return self._settled[advance]

    def _leaves(self) -> list[tuple[str, Any]]:
        flat, _ = jax.tree_util.tree_flatten_with_path(self._base)
        return [(jax.tree_util.keystr(path), leaf) for path, leaf in flat]


def _number(ticket: Any) -> int:
    if isinstance(ticket, bool) or not isinstance(ticket, int | np.integer):
        raise TypeError(f"ticket={checks.shown(ticket)} must be one of ask_ticket")
    return int(ticket)


def _kind(leaf) -> str:
    return f"{leaf.dtype.name}{list(leaf.shape)}"


def _cpu() -> Any:
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError as error:
        raise RuntimeError(
            "JAX has no CPU here, where a curriculum keeps its belief: set JAX_PLATFORMS=cpu, or "
            "add ',cpu' to what it is, or give device="
        ) from error
