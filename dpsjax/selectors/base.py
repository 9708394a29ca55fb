"""The selector protocol: pure functions that pass a proposal forward and evidence back.

As in optax, a selector is a NamedTuple of functions, :func:`chain` composes them, and the state is
a pytree. Before the rollouts a :class:`Proposal` runs through ``propose`` and gathers a score, a
tier and a mask for every prompt; what was drawn runs through ``drawn``; after the rollouts
:class:`Evidence` runs through ``observe``, as often as rewards arrive; ``advance`` is the passing
of one training step. What a part believes it shows by ``publish``, to the parts that follow and to
:func:`dpsjax.inspect`.

Parts are row-local. One that compares rows (a sum over the pool) carries its own collective over
``axis_name``, the mesh axis over which the prompts are sharded.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from dpsjax import checks
from dpsjax.types import Array, Bool, Float, Int, Key, PyTree

Kind = TypeVar("Kind")
GROUP = 8  # rollouts of a prompt where nothing else is said
Data = Mapping[str, Any] | None  # what is known of the prompts beforehand: arrays [N, ...] by name


def first_row(num_rows: int, axis_name: str | None) -> Int[Array, ""]:
    """The global id of this shard's first row; 0 where nothing is sharded."""
    if axis_name is None:
        return jnp.zeros((), jnp.int32)
    return (jax.lax.axis_index(axis_name) * num_rows).astype(jnp.int32)


def over_shards(value: PyTree, axis_name: str | None) -> PyTree:
    """The sum over the shards of the pool."""
    return value if axis_name is None else jax.lax.psum(value, axis_name)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Proposal:
    """What is proposed for each prompt of the pool (of this shard of it).

    The draw takes the highest tier first, in it the highest score, and equals at random.
    """

    score: Float[Array, "N"]
    eligible: Bool[Array, "N"]  # False is never drawn
    tier: Int[Array, "N"] | None = None  # 0 for all if None; above 0: first, below: only if short
    weight: Float[Array, "N"] | None = None  # loss weight if drawn; 1 for all if None
    strata: Int[Array, "N"] | None = None  # source of each prompt, if the batch has quotas
    quotas: Int[Array, "S"] | None = None  # places of each source in the batch
    beliefs: tuple = ()  # what parts before published, newest first
    tiers: tuple[int, int] = dataclasses.field(default=(0, 0), metadata={"static": True})
    batch_size: int = dataclasses.field(default=1, metadata={"static": True})
    axis_name: str | None = dataclasses.field(default=None, metadata={"static": True})

    @property
    def first_id(self) -> Int[Array, ""]:
        """The global id of the first row here."""
        return first_row(self.score.shape[0], self.axis_name)

    @property
    def ids(self) -> Int[Array, "N"]:
        """Global prompt ids."""
        return self.first_id + jnp.arange(self.score.shape[0], dtype=jnp.int32)

    def replace(self, **changes) -> "Proposal":
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def add(self, score: Float[Array, "N"]) -> "Proposal":
        """A copy with ``score`` added, in the wider of the two float types."""
        dtype = max(self.score.dtype, score.dtype, key=lambda dtype: dtype.itemsize)
        return self.replace(score=self.score.astype(dtype) + score.astype(dtype))

    def weigh(self, weight: Float[Array, "N"]) -> "Proposal":
        """A copy whose loss weights are multiplied by ``weight``."""
        return self.replace(weight=weight if self.weight is None else self.weight * weight)

    def first(self, marked: Bool[Array, "N"]) -> "Proposal":
        """A copy in which the marked rows are drawn before all others."""
        low, high = self.tiers
        tier = jnp.where(marked, high + 1, self._tier())
        return self.replace(tier=tier.astype(jnp.int32), tiers=(low, high + 1))

    def bar(self, barred: Bool[Array, "N"], strict: bool = True) -> "Proposal":
        """A copy without the barred rows; if not strict, they are drawn when no others are left."""
        if strict:
            return self.replace(eligible=self.eligible & ~barred)
        low, high = self.tiers
        tier = jnp.where(barred, low - 1, self._tier())
        return self.replace(tier=tier.astype(jnp.int32), tiers=(low - 1, high))

    def _tier(self) -> Int[Array, "N"]:
        return jnp.zeros(self.score.shape, jnp.int32) if self.tier is None else self.tier

    def publish(self, beliefs: tuple) -> "Proposal":
        """A copy that offers more beliefs to the parts that follow."""
        return self.replace(beliefs=(*beliefs, *self.beliefs))

    def belief(self, kind: type[Kind], wanted_by: str, offered_by: str) -> Kind:
        """The newest published belief of a kind.

        Raises:
            ValueError: no part before published one; it names the part to put before.
        """
        return newest(self.beliefs, kind, wanted_by, offered_by)


def newest(beliefs: tuple, kind: type[Kind], wanted_by: str, offered_by: str) -> Kind:
    """The first of ``beliefs`` that is of a kind; see :meth:`Proposal.belief`."""
    for belief in beliefs:
        if isinstance(belief, kind):
            return belief
    raise ValueError(f"{wanted_by} needs a belief: put {offered_by} before it in the chain")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Evidence:
    """What rollouts showed, a row for each group of them.

    Several rows may be of one prompt. A belief learns from the prompt's sum, which stands in the
    row where ``index`` names it; a veto judges each row by its own counts.
    """

    index: Int[Array, "B"]  # row in this shard; -1: padding, a repeat, or another shard's
    passes: Int[Array, "B"]  # the prompt's sum over its rows
    trials: Int[Array, "B"]
    row: Int[Array, "B"]  # as index, but also in repeats
    row_passes: Int[Array, "B"]  # of this row alone
    row_trials: Int[Array, "B"]
    valid: Bool[Array, "B"]  # real and not a repeat, on whichever shard it lives
    accept: Bool[Array, "B"]  # False vetoes the group's use in the loss
    weight: Float[Array, "B"]  # loss weight beside that of the draw
    age: Int[Array, "B"]  # updates of the policy since it made these rollouts
    extras: dict[str, Array] = dataclasses.field(default_factory=dict)  # [B, ...], by name
    axis_name: str | None = dataclasses.field(default=None, metadata={"static": True})

    def replace(self, **changes) -> "Evidence":
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def of_rows(self, values: Float[Array, "N"], otherwise: float = 0.0) -> Float[Array, "B"]:
        """The value of each row's prompt, wherever it lives; ``otherwise`` for padding."""
        size, rest = values.shape[0], jnp.asarray(otherwise, values.dtype)
        here = (self.row >= 0) & (self.row < size)
        found = jnp.where(here, values[jnp.clip(self.row, 0, size - 1)] - rest, 0)
        return over_shards(found, self.axis_name) + rest


class Batch(NamedTuple):
    """The drawn prompts."""

    index: Int[Array, "B"]  # global prompt ids, -1 is padding
    weight: Float[Array, "B"]  # loss weights, 0 on padding
    trials: Int[Array, "B"]  # rollouts wanted of each; 0: as many as the loop gives everybody
    valid: Bool[Array, "B"]  # index >= 0


class Feedback(NamedTuple):
    """What a selector says of rollouts that it was told of; 0 and False on padding."""

    accept: Bool[Array, "B"]  # whether the loss should use the group
    weight: Float[Array, "B"]  # loss weight; multiply it by the batch's


class Selector(NamedTuple):
    """A part, or a whole selector: pure functions, all of them optional."""

    init: Callable[[int, Data], PyTree] = lambda num_prompts, data=None: ()
    propose: Callable[[Key, Proposal, Any], tuple[Proposal, Any]] = lambda key, proposal, state: (
        proposal,
        state,
    )
    observe: Callable[[Evidence, Any], tuple[Evidence, Any]] = lambda evidence, state: (
        evidence,
        state,
    )
    advance: Callable[[Any], Any] = lambda state: state  # one training step has passed
    publish: Callable[[Any], tuple] = lambda state: ()  # what is believed, newest first
    # The batch that was drawn, with what every part published.
    drawn: Callable[[Batch, Proposal, Any], tuple[Batch, Any]] = lambda batch, proposal, state: (
        batch,
        state,
    )


class ChainState(NamedTuple):
    """State of a chain: which rows hold a prompt, and the states of the parts."""

    active: Bool[Array, "N"]  # False: an empty row (see :func:`add_prompts`)
    parts: tuple


def stateless(
    propose: Callable[[Key, Proposal], Proposal] | None = None,
    observe: Callable[[Evidence], Evidence] | None = None,
) -> Selector:
    """A part without memory, from a function of the proposal, of the evidence, or both.

    Args:
        propose: ``(key, proposal) -> proposal``.
        observe: ``evidence -> evidence``.

    Returns:
        the part.
    """
    part = Selector()
    if propose is not None:
        part = part._replace(propose=lambda key, proposal, _: (propose(key, proposal), ()))
    if observe is not None:
        part = part._replace(observe=lambda evidence, _: (observe(evidence), ()))
    return part


def _apart(state: PyTree) -> PyTree:
    """The state with an array of its own for every leaf, as donating it asks for."""
    leaves, structure = jax.tree.flatten(state)
    places = {id(leaf): place for place, leaf in enumerate(leaves)}
    own = (
        leaf if places[id(leaf)] == place else jnp.copy(leaf) for place, leaf in enumerate(leaves)
    )
    return jax.tree.unflatten(structure, own)


def chain(*parts: Selector) -> Selector:
    """Compose parts: proposals and evidence run through them from left to right.

    Args:
        *parts: selectors; a chain is one, so chains nest. None at all is uniform sampling.

    Returns:
        a selector whose state is a :class:`ChainState`.

    Raises:
        TypeError: a part is not a selector, for example a recipe that was not called.

    >>> import dpsjax
    >>> from dpsjax.selectors import add_state_prob, track_hmm
    >>> selector = dpsjax.chain(track_hmm(decay=0.7), add_state_prob())
    >>> state = selector.init(8)
    """
    for part in parts:
        if not isinstance(part, Selector):
            raise TypeError(f"chain composes selectors, got {part!r}: call the factory first")

    def init(num_prompts: int, data: Data = None) -> ChainState:
        checks.require_counts(num_prompts=num_prompts)
        states = tuple(part.init(num_prompts, data) for part in parts)
        return _apart(ChainState(jnp.ones(num_prompts, bool), states))

    def through(state: ChainState, value, call):
        states = []
        for position, (part, own) in enumerate(zip(parts, state.parts, strict=True)):
            value, own = call(position, part, value, own)
            states.append(own)
        return value, ChainState(state.active, tuple(states))

    def propose(key: Key, proposal: Proposal, state: ChainState):
        def call(position, part, value, own):
            value, after = part.propose(jax.random.fold_in(key, position), value, own)
            return value.publish(part.publish(own)), after

        before = proposal.beliefs
        proposal = proposal.replace(eligible=proposal.eligible & state.active)
        proposal, state = through(state, proposal, call)
        return proposal.replace(beliefs=before), state  # whoever holds the chain publishes it

    def observe(evidence: Evidence, state: ChainState):
        return through(state, evidence, lambda _, part, value, own: part.observe(value, own))

    def drawn(batch: Batch, proposal: Proposal, state: ChainState):
        return through(state, batch, lambda _, part, value, own: part.drawn(value, proposal, own))

    def advance(state: ChainState):
        states = zip(parts, state.parts, strict=True)
        return ChainState(state.active, tuple(part.advance(own) for part, own in states))

    def publish(state: ChainState):
        states = zip(reversed(parts), reversed(state.parts), strict=True)
        return tuple(belief for part, own in states for belief in part.publish(own))

    return Selector(init, propose, observe, advance, publish, drawn)
