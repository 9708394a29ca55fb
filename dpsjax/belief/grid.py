"""A hidden Markov chain of the solve rate itself, seen through binomial counts.

The state of DPS's chain (:mod:`dpsjax.belief.hmm`) is the *outcome* of a group: none, some or all
passed. Whether a prompt of rate 0.1 happens to pass once in eight is then a move of the prompt, and
while it is not seen the belief fades as fast as outcomes vary. Here the state is the rate, one of K
cells evenly spaced in arc length ``arcsin sqrt(rate)``; the passes of a group are binomial given
it; and a step moves it by at most one cell, or makes it start anew.

One step, for every prompt:

1. prediction: ``down`` of the mass goes a cell down and ``up`` a cell up, at the ends it stays;
   ``jump`` of it goes wherever prompts start. Prompts never seen are at the start;
2. posterior where a group was seen: ``~ prediction rate^passes (1 - rate)^(trials - passes)``.

The probabilities of the moves are pooled over the prompts, as DPS's are learned for each: their
Dirichlet counts are ``moves <- decay moves + (1 - decay) prior + xi``, xi the expected moves of the
step of the prompts just seen. The start is a moving average of the posteriors at first visits.
Not published elsewhere; the equations are DPS's with another emission and shared moves.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dpsjax import checks
from dpsjax.belief import noise, rows
from dpsjax.belief.filter import View, clear_of
from dpsjax.types import Array, Bool, Float, Int, Key

# Defaults: cells; prior counts of moving a cell down, staying, moving up and jumping; forgetting.
CELLS, MOVES, DECAY, MEMORY = 16, (1.0, 46.0, 2.5, 0.5), 0.9, 0.9


class Params(NamedTuple):
    """Hyperparameters: a pytree of arrays, so that a sweep is a ``vmap``."""

    moves: Float[Array, "4"]  # prior counts of moving down, staying, moving up, jumping
    decay: Float[Array, ""]  # of the counts; 1 never forgets
    memory: Float[Array, ""]  # of the start


class Sums(NamedTuple):
    """What the groups of a step teach of prompts in general; sums over rows and shards."""

    moves: Float[Array, "4"]  # expected moves of the prompts seen before
    starts: Float[Array, "K"]  # posteriors of those seen for the first time
    first: Float[Array, ""]  # how many these are


class Belief(NamedTuple):
    """What is believed of N prompts, and of moves and starts in general."""

    posterior: Float[Array, "K N"]  # P(cell): of this step where `now`, else of the last one
    seen: Bool[Array, "N"]  # whether ever
    now: Bool[Array, "N"]  # whether in this step already
    start: Float[Array, "K"]  # P(cell) of prompts never seen
    moves: Float[Array, "4"]  # counts of moving down, staying, moving up, jumping
    sums: Sums  # of this step so far


def rates(cells: int) -> np.ndarray:
    """Solve rates of the cells, float64[K] rising in (0, 1)."""
    checks.require_counts(cells=cells)
    return np.sin((np.arange(cells) + 0.5) / cells * np.pi / 2) ** 2


def params(moves=MOVES, decay=DECAY, memory=MEMORY) -> Params:
    """Build the hyperparameters; each may be traced.

    Args:
        moves: prior counts of moving down, staying, moving up and jumping, positive.
        decay: of the counts, in [0, 1].
        memory: weight of the past in the start, in [0, 1].

    Returns:
        the parameters, in the default float type.

    Raises:
        ValueError: if one is out of range.
    """
    checks.require_finite(moves=moves, decay=decay, memory=memory)
    dtype = jnp.result_type(float)
    values = Params(*(jnp.asarray(value, dtype) for value in (moves, decay, memory)))
    if values.moves.shape != (4,):
        raise ValueError(f"moves must be four counts, got shape {values.moves.shape}")
    checks.require(values.moves > 0, "moves must be positive, got {moves}", moves=values.moves)
    for name in ("decay", "memory"):
        value = getattr(values, name)
        checks.require(
            (value >= 0) & (value <= 1), f"{name} must lie in [0, 1], got {{value}}", value=value
        )
    return values


def init(params: Params, num_prompts: int, cells: int = CELLS) -> Belief:
    """Every prompt anywhere: evenly over the arc lengths, which is Jeffreys' prior of the rate.

    Raises:
        ValueError: for fewer than 3 cells.
    """
    checks.require_type(Params, "of dpsjax.belief.binomial.params", params=params)
    checks.require_counts(num_prompts=num_prompts)
    checks.require_counts(least=3, cells=cells)
    dtype = params.moves.dtype
    return Belief(
        posterior=jnp.full((cells, num_prompts), 1 / cells, dtype),
        seen=jnp.zeros(num_prompts, bool),
        now=jnp.zeros(num_prompts, bool),
        start=jnp.full(cells, 1 / cells, dtype),
        moves=jnp.copy(params.moves),  # a donated belief must not take the parameters with it
        sums=_no_sums(cells, dtype),
    )


def _no_sums(cells: int, dtype) -> Sums:
    return Sums(jnp.zeros(4, dtype), jnp.zeros(cells, dtype), jnp.zeros((), dtype))


def _down(mass: Array) -> Array:
    return jnp.concatenate([mass[:1] + mass[1:2], mass[2:], jnp.zeros_like(mass[:1])])


def _up(mass: Array) -> Array:
    return jnp.concatenate([jnp.zeros_like(mass[:1]), mass[:-2], mass[-2:-1] + mass[-1:]])


def _ways(belief: Belief, mass: Float[Array, "K M"]) -> list[Float[Array, "K M"]]:
    """Mass that arrives by each kind of move."""
    down, stay, up, jump = belief.moves / belief.moves.sum()
    anew = jump * jnp.broadcast_to(belief.start[:, None], mass.shape)
    return [down * _down(mass), stay * mass, up * _up(mass), anew]


def prior(belief: Belief) -> Float[Array, "K N"]:
    """P(cell) in the step to come, given everything seen."""
    down, stay, up, anew = _ways(belief, belief.posterior)
    ahead = jnp.where(belief.seen[None], down + stay + up + anew, belief.start[:, None])
    return jnp.where(belief.now[None], belief.posterior, ahead)


def _normalized(mass: Float[Array, "K B"]) -> Float[Array, "K B"]:
    total = mass.sum(axis=0, keepdims=True)
    return mass / jnp.maximum(total, jnp.asarray(jnp.finfo(mass.dtype).tiny, mass.dtype))


def observe(
    belief: Belief,
    index: Int[Array, "B"],
    passes: Int[Array, "B"],
    trials: Int[Array, "B"],
    axis_name: str | None = None,
) -> Belief:
    """What was seen in this step.

    Args:
        belief: N prompts; donate it under ``jit``.
        index: distinct rows; -1 is padding.
        passes: successes, 0..trials.
        trials: rollouts; 0 means not seen.
        axis_name: of the mesh axis that shards the prompts, over which the sums go.

    Returns:
        the belief. A prompt seen twice in a step moves once.
    """
    dtype, index = belief.posterior.dtype, clear_of(index, trials)
    source, target = rows.gather_index(index), rows.scatter_index(index, belief.seen.shape[0])
    rate = rates(belief.posterior.shape[0])
    log_pass, log_fail = (jnp.asarray(np.log(x), dtype)[:, None] for x in (rate, 1 - rate))
    passed, failed = passes.astype(dtype)[None], (trials - passes).astype(dtype)[None]
    log_chance = passed * log_pass + failed * log_fail
    chance = jnp.exp(log_chance - log_chance.max(axis=0, keepdims=True))
    here, known, again = index >= 0, belief.seen[source], belief.now[source]
    before = belief.posterior[:, source]
    ways = jnp.stack(_ways(belief, before))
    ahead = jnp.where(known[None], ways.sum(axis=0), belief.start[:, None])
    posterior = _normalized(jnp.where(again[None], before, ahead) * chance)
    moved = _normalized((ways * chance[None]).sum(axis=1))
    fresh = here & ~known
    sums = Sums(
        moves=jnp.where((here & known & ~again)[None], moved, 0).sum(axis=1),
        starts=jnp.where(fresh[None], posterior, 0).sum(axis=1),
        first=fresh.sum(dtype=jnp.int32).astype(dtype),
    )
    if axis_name is not None:
        sums = jax.lax.psum(sums, axis_name)
    return belief._replace(
        posterior=belief.posterior.at[:, target].set(posterior, mode="drop"),
        seen=belief.seen.at[target].set(True, mode="drop"),
        now=belief.now.at[target].set(True, mode="drop"),
        sums=jax.tree.map(jnp.add, belief.sums, sums),
    )


def advance(params: Params, belief: Belief) -> Belief:
    """The passing of a step: prompts not seen move, and what moves and starts are is learned.

    Args:
        params: the hyperparameters.
        belief: N prompts; donate it under ``jit``.

    Returns:
        the belief before the next step.
    """
    sums, cells = belief.sums, belief.start.shape[0]
    mean = sums.starts / jnp.maximum(sums.first, 1)
    start = params.memory * belief.start + (1 - params.memory) * mean
    return Belief(
        posterior=prior(belief),
        seen=belief.seen,
        now=jnp.zeros_like(belief.now),
        start=jnp.where(sums.first > 0, start, belief.start),
        moves=params.decay * belief.moves + (1 - params.decay) * params.moves + sums.moves,
        sums=_no_sums(cells, belief.start.dtype),
    )


@dataclasses.dataclass(frozen=True)
class GridView(View):
    """What a belief over cells of the rate says."""

    belief: Belief

    @property
    def cells(self) -> int:
        """K."""
        return self.belief.posterior.shape[0]

    def rate(self) -> Float[Array, "N"]:
        """The expected rate."""
        return expectation(self.belief, rates(self.cells))

    def outcome(self, group: int) -> Float[Array, "3 N"]:
        """A mixture of binomials."""
        rate = rates(self.cells)
        values = ((1 - rate) ** group, mixed_chance(self.cells, group), rate**group)
        return jnp.stack([expectation(self.belief, value) for value in values])

    def mixed(self, group: int) -> Float[Array, "N"]:
        """As in the outcome."""
        return expectation(self.belief, mixed_chance(self.cells, group))

    def sample(self, key: Key, ids: Int[Array, "N"]) -> Float[Array, "N"]:
        """The rate of a cell."""
        prob = prior(self.belief)
        drawn = noise.row_uniform(key, ids, prob.dtype)
        below = jnp.cumsum(prob, axis=0)
        cell = (drawn[None] >= below[:-1]).sum(axis=0, dtype=jnp.int32)
        return jnp.asarray(rates(self.cells), prob.dtype)[cell]


def mixed_chance(cells: int, group: int) -> np.ndarray:
    """Chance that a group neither all passes nor all fails, in each cell; float64[K]."""
    rate = rates(cells)
    return 1 - rate**group - (1 - rate) ** group


def expectation(belief: Belief, values: np.ndarray) -> Float[Array, "N"]:
    """Mean of a value per cell at the next step.

    The moves are applied to the K values and not to N beliefs: ``values . (moves @ posterior)`` is
    ``(values @ moves) . posterior``. Summed lane by lane, so that equal beliefs give equal bits.

    Args:
        belief: N prompts.
        values: float[K].

    Returns:
        floats [N].
    """
    value = jnp.asarray(values, belief.posterior.dtype)
    down, stay, up, jump = belief.moves / belief.moves.sum()
    anew = belief.start @ value
    lower, upper = jnp.append(value[:1], value[:-1]), jnp.append(value[1:], value[-1:])
    reached = down * lower + stay * value + up * upper
    total = jnp.zeros_like(belief.posterior[0]) + jump * anew
    held = jnp.zeros_like(total)
    for k in range(value.shape[0]):
        total = total + reached[k] * belief.posterior[k]
        held = held + value[k] * belief.posterior[k]
    return jnp.where(belief.now, held, jnp.where(belief.seen, total, anew))
