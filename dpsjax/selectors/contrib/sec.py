"""SEC (arXiv 2505.14970): a bandit over categories of prompts."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dpsjax import checks
from dpsjax.belief import rows
from dpsjax.selectors.base import Evidence, Proposal, Selector, chain, over_shards
from dpsjax.selectors.entry import Entry
from dpsjax.selectors.pool import column
from dpsjax.types import Array, Float, Int, Key

# Defaults of the recipe and of its parts.
RATE = 0.5
BY = "source"


class CategoryState(NamedTuple):
    """State of :func:`draw_categories`."""

    category: Int[Array, "N"]
    value: Float[Array, "C"]
    total: Float[Array, "C"]  # of this step: sum of the sizes of advantages
    groups: Float[Array, "C"]  # of this step


def advantage_size(passes: Int[Array, "B"], trials: Int[Array, "B"], dtype) -> Float[Array, "B"]:
    """Mean size of a group's normalised advantages, with the sample's standard deviation.

    ``2 sqrt(p (1 - p)) sqrt((n - 1)/n)`` for a share p of n rollouts that passed; 0 for one alone.
    """
    product = (passes * (trials - passes)).astype(dtype)
    n = jnp.maximum(trials, 1).astype(dtype)
    return 2 * jnp.sqrt(product * (n - 1) / n) / n


def draw_categories(num_categories: int, rate=RATE, temperature=1.0, by: str = BY) -> Selector:
    """A bandit over categories of prompts (SEC, arXiv 2505.14970).

    Each of the B places of a batch goes to a category drawn with probability in proportion to
    ``exp(Q/temperature)``, with replacement; the category's best prompts, by the scores of other
    parts or else at random, take its places. After a training step ``Q <- rate r + (1 - rate) Q``,
    r the mean over the category's groups of :func:`advantage_size`; 0 for categories that were not
    drawn, whose value so decays. As in the released code.

    Args:
        num_categories: C.
        rate: of learning, in [0, 1]; may be traced.
        temperature: of the Boltzmann distribution; may be traced.
        by: name of the column of the data with each prompt's category, int[N] in 0..C-1.

    Returns:
        a part; it divides the batch, so it goes without :func:`stratify`.

    Raises:
        TypeError: a setting is no number.
        ValueError: one is out of its range.
    """
    checks.require_counts(num_categories=num_categories)
    checks.require_scalar(0.0, 1.0, rate=rate)
    checks.require_positive(temperature=temperature)
    checks.require_type(str, "the name of a column of the data", by=by)

    def init(num_prompts: int, data=None) -> CategoryState:
        none = jnp.zeros(num_categories, jnp.result_type(float))
        category = column(data, by, num_prompts, jnp.int32, "draw_categories", below=num_categories)
        return CategoryState(category, none, none, none)

    def propose(key: Key, proposal: Proposal, state: CategoryState):
        logit = state.value / jnp.asarray(temperature, state.value.dtype)
        arms = jax.random.categorical(key, logit, shape=(proposal.batch_size,))
        places = jnp.zeros(num_categories, jnp.int32).at[arms].add(1)
        return proposal.replace(strata=state.category, quotas=places), state

    def observe(evidence: Evidence, state: CategoryState):
        here = (evidence.row >= 0) & (evidence.row_trials > 0)
        of_row = state.category[rows.gather_index(evidence.row)]
        of_row = rows.scatter_index(jnp.where(here, of_row, -1), num_categories)
        none = jnp.zeros_like(state.value)
        size = advantage_size(evidence.row_passes, evidence.row_trials, none.dtype)
        sums = none.at[of_row].add(size, mode="drop"), none.at[of_row].add(1, mode="drop")
        total, groups = over_shards(sums, evidence.axis_name)
        return evidence, state._replace(total=state.total + total, groups=state.groups + groups)

    def advance(state: CategoryState) -> CategoryState:
        mean = state.total / jnp.maximum(state.groups, 1)
        pace = jnp.asarray(rate, mean.dtype)
        moved = pace * mean + (1 - pace) * state.value
        value = jnp.where(state.groups.sum() > 0, moved, state.value)
        none = jnp.zeros_like(value)
        return state._replace(value=value, total=none, groups=none)

    return Selector(init, propose, observe, advance)


def sec(num_categories: int = 2, rate=RATE, temperature=1.0, by: str = BY) -> Selector:
    """SEC (arXiv 2505.14970): a bandit over categories of prompts, of greatest mean advantage.

    The category of every prompt is data of the state:
    ``sec(3).init(n, data={"source": int array of [n]})``. Rules and numbers of the released code:
    see :func:`draw_categories`.

    Departures: within a category prompts are drawn at random, without repeats in a batch; places
    of a category that has too few prompts go to the others.

    Args:
        num_categories: C; a run knows its own.
        rate: of learning; 0.5 in the released scripts.
        temperature: of the Boltzmann draw; released scripts: 1.0 (Countdown), 0.4 (mathematics),
            0.2 (puzzles in two dimensions).
        by: column of the data with the categories, numbers from 0.

    Returns:
        the selector.
    """
    return chain(draw_categories(num_categories, rate, temperature, by))


ENTRIES = (
    Entry(
        sec,
        "2505.14970",
        needs=("source",),
        variants={"sec-levels": {"by": "level", "num_categories": 5}},
    ),
)
