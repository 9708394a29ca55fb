"""The selector protocol: pure functions that pass a proposal forward and evidence back.

As in optax, a selector is a NamedTuple of functions, :func:`chain` composes them, and the state is
a pytree. Two values flow. Before the rollouts a :class:`Proposal` runs through ``propose`` and
gathers a score, a mask and a loss weight for every prompt; after them :class:`Evidence` runs
through ``observe`` and every part learns from it. Every part is row-local: only the final draw
compares rows.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from dpsjax import checks
from dpsjax.types import Array, Bool, Float, Int, Key, PyTree

BeliefType = TypeVar("BeliefType")


def first_row(num_rows: int, axis_name: str | None) -> Int[Array, ""]:
    """The global id of this shard's first row; 0 where nothing is sharded."""
    if axis_name is None:
        return jnp.zeros((), jnp.int32)
    return (jax.lax.axis_index(axis_name) * num_rows).astype(jnp.int32)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Proposal:
    """What is proposed for each prompt of the pool (of this shard of it)."""

    ids: Int[Array, "N"]  # global prompt ids: first_id, first_id + 1, ...
    score: Float[Array, "N"]  # higher is drawn first; equals are drawn at random
    eligible: Bool[Array, "N"]  # False is never drawn
    weight: Float[Array, "N"]  # loss weight if drawn
    beliefs: tuple = ()  # what trackers published, newest first
    axis_name: str | None = dataclasses.field(default=None, metadata={"static": True})
    batch_size: int | None = dataclasses.field(default=None, metadata={"static": True})

    @property
    def first_id(self) -> Int[Array, ""]:
        """``ids[0]``, for those who would make the ids where they read them."""
        return first_row(self.score.shape[0], self.axis_name)

    def replace(self, **changes) -> "Proposal":
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def publish(self, belief) -> "Proposal":
        """A copy that offers ``belief`` to the parts that follow."""
        return self.replace(beliefs=(belief, *self.beliefs))

    def belief(self, kind: type[BeliefType], wanted_by: str, offered_by: str) -> BeliefType:
        """The newest published belief of a kind.

        Raises:
            ValueError: if no part before published one; it names the part to put before.
        """
        for belief in self.beliefs:
            if isinstance(belief, kind):
                return belief
        raise ValueError(f"{wanted_by} needs a belief: put {offered_by} before it in the chain")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Evidence:
    """What the rollouts of one step showed; one row per prompt of the batch."""

    index: Int[Array, "B"]  # row in this shard; -1: padding, a repeat, or another shard's
    passes: Int[Array, "B"]
    trials: Int[Array, "B"]
    valid: Bool[Array, "B"]  # real and not a repeat, on whichever shard it lives
    accept: Bool[Array, "B"]  # False vetoes the group's use in the loss
    rewards: Float[Array, "B G"] | None = None  # of each rollout, if the loop tells
    entropies: Float[Array, "B G"] | None = None  # mean token entropy; NaN: no such rollout
    axis_name: str | None = dataclasses.field(default=None, metadata={"static": True})

    def replace(self, **changes) -> "Evidence":
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)


class LateWeight(NamedTuple):
    """A belief: loss weights to be read after the rollouts were observed, not at the draw."""

    weight: Float[Array, "N"]


class Batch(NamedTuple):
    """The drawn prompts."""

    index: Int[Array, "B"]  # global prompt ids, -1 is padding
    weight: Float[Array, "B"]  # loss weights, 0 on padding
    valid: Bool[Array, "B"]  # index >= 0


class Selector(NamedTuple):
    """A part, or a whole selector: three pure functions.

    ``init(num_prompts) -> state``;
    ``propose(key, proposal, state) -> (proposal, state)``;
    ``observe(evidence, state) -> (evidence, state)``.
    """

    init: Callable[[int], PyTree]
    propose: Callable[[Key, Proposal, Any], tuple[Proposal, Any]]
    observe: Callable[[Evidence, Any], tuple[Evidence, Any]]


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
    return Selector(
        init=lambda num_prompts: (),
        propose=lambda key, proposal, state: (
            proposal if propose is None else propose(key, proposal),
            state,
        ),
        observe=lambda evidence, state: (
            evidence if observe is None else observe(evidence),
            state,
        ),
    )


def chain(*parts: Selector) -> Selector:
    """Compose parts: proposals and evidence run through them from left to right.

    Args:
        *parts: selectors; a chain is one, so chains nest. None at all is uniform sampling.

    Returns:
        a selector whose state is a :class:`ChainState`.

    Raises:
        TypeError: if a part is not a selector, for example a recipe that was not called.

    >>> import dpsjax
    >>> from dpsjax.selectors import add_state_prob, track_hmm
    >>> selector = dpsjax.chain(track_hmm(decay=0.7), add_state_prob())
    >>> state = selector.init(8)
    """
    for part in parts:
        if not isinstance(part, Selector):
            raise TypeError(f"chain composes selectors, got {part!r}: call the factory first")

    def init(num_prompts: int) -> ChainState:
        checks.require_counts(num_prompts=num_prompts)
        return ChainState(
            jnp.ones(num_prompts, bool), tuple(part.init(num_prompts) for part in parts)
        )

    def propose(key: Key, proposal: Proposal, state: ChainState):
        proposal = proposal.replace(eligible=proposal.eligible & state.active)
        states = []
        for position, (part, part_state) in enumerate(zip(parts, state.parts, strict=True)):
            part_key = jax.random.fold_in(key, position)
            proposal, part_state = part.propose(part_key, proposal, part_state)
            states.append(part_state)
        return proposal, ChainState(state.active, tuple(states))

    def observe(evidence: Evidence, state: ChainState):
        states = []
        for part, part_state in zip(parts, state.parts, strict=True):
            evidence, part_state = part.observe(evidence, part_state)
            states.append(part_state)
        return evidence, ChainState(state.active, tuple(states))

    return Selector(init, propose, observe)
