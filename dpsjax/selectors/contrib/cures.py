"""CurES (arXiv 2510.01037): a softmax over the standard deviation of a rollout."""

from typing import NamedTuple

import jax.numpy as jnp

from dpsjax import checks
from dpsjax.belief import beta, rows
from dpsjax.belief.beta import BetaView
from dpsjax.rollouts.budget import allocate_proportional
from dpsjax.selectors.base import GROUP, Batch, Proposal, Selector, chain, over_shards
from dpsjax.selectors.chance import draw_softmax
from dpsjax.selectors.combine import allocate
from dpsjax.selectors.entry import Entry
from dpsjax.selectors.score import from_view
from dpsjax.selectors.track import track_beta
from dpsjax.types import Array, Bool, Float, Int, Key


def add_deviation(temperature=None) -> Selector:
    """``sqrt(p (1 - p))/temperature``, the logarithm of CurES's probability of a prompt.

    Args:
        temperature: tau of the paper, the same for every prompt; may be traced. If not given, that
            of the released code, ``100 a``, a the pseudo-count of success: 1 and the rollouts that
            passed.

    Returns:
        a part that needs :func:`track_beta` before it.

    Raises:
        TypeError: the temperature is no number.
        ValueError: it is not positive.
    """
    checks.require_positive(**checks.given(temperature=temperature))

    def score(view: BetaView, key, ids):
        deviation = jnp.sqrt(beta.variance_of_rollout(view.a, view.b))
        if temperature is None:
            return deviation / (100 * view.a)
        return deviation / jnp.asarray(temperature, deviation.dtype)

    return from_view(score, BetaView, "add_deviation", "track_beta")


class HeldState(NamedTuple):
    """State of :func:`hold`."""

    score: Float[Array, "N"]
    drawn: Bool[Array, "N"]  # since the scores were taken
    stale: Bool[Array, ""]  # the next proposal's scores are taken
    step: Int[Array, ""]  # finished steps


def hold(steps: int) -> Selector:
    """Take the scores of the parts before and keep them for some steps, without repeats.

    A prompt drawn in these steps is not drawn again in them; once fewer prompts than a batch are
    left, all come back.

    Args:
        steps: from one taking of the scores to the next.

    Returns:
        a part.
    """
    checks.require_counts(steps=steps)

    def init(num_prompts: int, data=None) -> HeldState:
        score = jnp.zeros(num_prompts, jnp.result_type(float))
        yes, none = jnp.ones((), bool), jnp.zeros((), jnp.int32)
        return HeldState(score, jnp.zeros(num_prompts, bool), yes, none)

    def propose(key: Key, proposal: Proposal, state: HeldState):
        score = jnp.where(state.stale, proposal.score.astype(state.score.dtype), state.score)
        left = (proposal.eligible & ~state.drawn).sum(dtype=jnp.int32)
        enough = over_shards(left, proposal.axis_name) >= proposal.batch_size
        drawn = state.drawn & enough & ~state.stale
        state = HeldState(score, drawn, jnp.zeros((), bool), state.step)
        return proposal.bar(drawn).replace(score=score), state

    def remember(batch: Batch, proposal: Proposal, state: HeldState):
        size = state.drawn.shape[0]
        local = batch.index - proposal.first_id
        here = batch.valid & (local >= 0) & (local < size)
        target = rows.scatter_index(jnp.where(here, local, -1), size)
        return batch, state._replace(drawn=state.drawn.at[target].set(True, mode="drop"))

    def advance(state: HeldState) -> HeldState:
        step = state.step + 1
        return state._replace(step=step, stale=state.stale | (step % steps == 0))

    return Selector(init, propose, advance=advance, drawn=remember)


def by_deviation(rate: Float[Array, "B"], budget: int, most: int) -> Int[Array, "B"]:
    """Split a budget of rollouts in proportion to ``sqrt(p (1 - p))``, from 1 to ``most`` each.

    The released code weighs the norms of gradients of right and of wrong answers; where these are
    equal, its weight is this.
    """
    weight = jnp.maximum(jnp.sqrt(rate * (1 - rate)), 1e-6)  # rates of 0 and 1 alone divide too
    return allocate_proportional(weight, budget, 1, most)


def cures(
    temperature=None, decay=1.0, hold_steps: int = 10, most: int | None = None, group: int = GROUP
) -> Selector:
    """CurES (arXiv 2510.01037): prompts drawn by ``exp(sqrt(p (1 - p))/temperature)``.

    As in the released code, the temperature is a prompt's own, ``(passes + 1)/0.01``, so that
    chances differ by a few thousandths; they stay for an epoch of 10 batches, in which no prompt
    comes twice. The paper has one temperature for all prompts, whose value is not known to us.

    Departures: all prompts start from the prior instead of 4 rollouts each; beliefs are not reset
    for each of 15 subsets of the data (make a new state for that). The allocation of rollouts
    takes the gradients of right and wrong answers for equally large: see :func:`by_deviation`.

    Args:
        temperature: tau of the paper, the same for every prompt; as in the release if not given.
        decay: 1 in the paper.
        hold_steps: steps in which the chances stay and no prompt comes twice; 10 in the release.
        most: divide a step's rollouts in proportion to ``sqrt(p (1 - p))``, at most so many for
            one prompt, as the paper does; if not given, every prompt gets as many.
        group: G rollouts, the mean where they are divided.

    Returns:
        the selector.
    """
    checks.require_counts(hold_steps=hold_steps, group=group)  # by the recipe's names of them
    divide = []
    if most is not None:
        checks.require_counts(least=group, most=most)
        divide = [allocate(lambda rate, budget: by_deviation(rate, budget, most), group, most)]
    return chain(
        track_beta(decay), add_deviation(temperature), hold(hold_steps), draw_softmax(1.0), *divide
    )


ENTRIES = (
    Entry(
        cures,
        "2510.01037",
        most="most",
        options={"temperature": float | None},
        variants={"cures-paper": {"temperature": 0.1}, "cures-allocated": {"most": 32}},
    ),
)
