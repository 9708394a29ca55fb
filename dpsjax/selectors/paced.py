"""Selectors that adapt something they share over the pool: a target, categories, a drift."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dpsjax import checks
from dpsjax.belief import gaussian, rows
from dpsjax.selectors.combinators import RowData, row_data
from dpsjax.selectors.protocol import Evidence, Proposal, Selector, stateless
from dpsjax.selectors.rates import add
from dpsjax.selectors.trackers import GaussianBelief, pass_rate, rollout_variance
from dpsjax.types import Array, Bool, Float, Int, Key


def _over_shards(value: Array, axis_name: str | None) -> Array:
    return value if axis_name is None else jax.lax.psum(value, axis_name)


class CategoryState(NamedTuple):
    """State of :func:`add_category_value`."""

    category: Int[Array, "N"]
    value: Float[Array, "C"]


def add_category_value(
    category: RowData, num_categories: int, rate=0.5, temperature=1.0
) -> Selector:
    """A bandit over categories of prompts (SEC, arXiv 2505.14970).

    ``Q(c) <- rate r + (1 - rate) Q(c)``, r the mean over the category's groups of the mean size
    of the group-normalised advantage, ``2 sqrt(p (1 - p))``. The score is ``Q(c)/temperature``
    less the logarithm of the category's number of eligible prompts: drawn with
    :func:`draw_softmax`, categories come up in proportion to ``exp(Q/temperature)``.

    The published rate and temperature are not known to us.

    Args:
        category: int[N], 0..C-1, or a function of N that makes it.
        num_categories: C.
        rate: of learning, in [0, 1]; may be traced.
        temperature: of the Boltzmann distribution; may be traced.

    Returns:
        a part.
    """
    checks.require_finite(rate=rate, temperature=temperature)
    checks.require_counts(num_categories=num_categories)

    def init(num_prompts: int) -> CategoryState:
        values = jnp.zeros(num_categories, jnp.result_type(float))
        return CategoryState(row_data("category", category, num_prompts, jnp.int32), values)

    def propose(key: Key, proposal: Proposal, state: CategoryState):
        del key
        members = [proposal.eligible & (state.category == c) for c in range(num_categories)]
        count = jnp.stack([member.sum(dtype=jnp.int32) for member in members])
        count = _over_shards(count, proposal.axis_name)
        logit = state.value / jnp.asarray(temperature, state.value.dtype)
        logit = logit - jnp.log(jnp.maximum(count, 1).astype(logit.dtype))
        return add(proposal, logit[state.category]), state

    def observe(evidence: Evidence, state: CategoryState):
        here = (evidence.index >= 0) & (evidence.trials > 0)
        of_row = state.category[rows.gather_index(evidence.index)]
        of_row = rows.scatter_index(jnp.where(here, of_row, -1), num_categories)
        reward = 2 * jnp.sqrt(rollout_variance(evidence)).astype(state.value.dtype)
        zero = jnp.zeros_like(state.value)
        total = zero.at[of_row].add(reward, mode="drop")
        groups = zero.at[of_row].add(1, mode="drop")
        total, groups = _over_shards(jnp.stack([total, groups]), evidence.axis_name)
        mean = total / jnp.maximum(groups, 1)
        pace = jnp.asarray(rate, mean.dtype)
        value = jnp.where(groups > 0, pace * mean + (1 - pace) * state.value, state.value)
        return evidence, state._replace(value=value)

    return Selector(init, propose, observe)


def add_order(difficulty: RowData, hardest_first: bool = False) -> Selector:
    """Place in a fixed order of difficulty, from 1/2 (first) down to 0 (last).

    Args:
        difficulty: [N] or a function of N that makes it.
        hardest_first: the other way round.

    Returns:
        a part.
    """

    def init(num_prompts: int) -> Array:
        dtype = jnp.result_type(float)
        # Computed now if it can be: the compiler takes seconds to reduce a constant of millions.
        with jax.ensure_compile_time_eval():
            known = row_data("difficulty", difficulty, num_prompts, dtype)
            known = known if hardest_first else -known
            lowest, highest = known.min(), known.max()
            width = jnp.where(highest > lowest, highest - lowest, 1)
            return 0.5 * (known - lowest) / width

    def propose(key: Key, proposal: Proposal, place: Array):
        del key
        return add(proposal, place), place

    return Selector(init, propose, lambda evidence, place: (evidence, place))


class TargetState(NamedTuple):
    """State of :func:`add_difficulty_target`."""

    difficulty: Float[Array, "N"]
    target: Float[Array, ""]


def add_difficulty_target(
    difficulty: RowData,
    start=0.0,
    wanted_rate=0.5,
    sensitivity=2.0,
    step=50.0,
    lowest=0.0,
    highest=100.0,
) -> Selector:
    """Minus the distance from one target difficulty that follows the pass rate (AdaRFT).

    ``T <- clip(T + step tanh(sensitivity (mean pass rate - wanted_rate)), lowest, highest)``
    (arXiv 2504.05520), constants of the released code.

    Args:
        difficulty: [N], such as 100 (1 - share of passes of a reference model), or a function
            of N that makes it.
        start: T at first.
        wanted_rate: beta.
        sensitivity: alpha.
        step: eta.
        lowest: bound on T.
        highest: bound on T.

    Returns:
        a part.
    """
    checks.require_finite(
        start=start,
        wanted_rate=wanted_rate,
        sensitivity=sensitivity,
        step=step,
        lowest=lowest,
        highest=highest,
    )

    def init(num_prompts: int) -> TargetState:
        dtype = jnp.result_type(float)
        known = row_data("difficulty", difficulty, num_prompts, dtype)
        return TargetState(known, jnp.asarray(start, dtype))

    def propose(key: Key, proposal: Proposal, state: TargetState):
        del key
        return add(proposal, -jnp.abs(state.difficulty - state.target)), state

    def observe(evidence: Evidence, state: TargetState):
        dtype = state.target.dtype
        rolled = evidence.valid & (evidence.trials > 0)
        groups = rolled.sum(dtype=jnp.int32).astype(dtype)
        mean = jnp.where(rolled, pass_rate(evidence), 0).sum() / jnp.maximum(groups, 1)
        excess = mean - jnp.asarray(wanted_rate, dtype)
        move = jnp.asarray(step, dtype) * jnp.tanh(jnp.asarray(sensitivity, dtype) * excess)
        bounds = jnp.asarray(lowest, dtype), jnp.asarray(highest, dtype)
        target = jnp.clip(state.target + jnp.where(groups > 0, move, 0), *bounds)
        return evidence, state._replace(target=target)

    return Selector(init, propose, observe)


class ArcState(NamedTuple):
    """State of :func:`track_arc`."""

    belief: gaussian.Belief
    drift: Float[Array, ""]
    process_noise: Float[Array, ""]
    seen: Bool[Array, "N"]
    moments: Float[Array, "3"]  # groups seen, sum and sum of squares of their arc lengths


def track_arc(rate=0.1, drift=0.0, process_noise=1e-3, refit: int | None = 100) -> Selector:
    """Keep a Kalman filter of each prompt's arc length ``arcsin sqrt(p)`` (ARCUS).

    arXiv 2609.38018. Each step predicts ``mean <- clip(mean + v sin(2 mean))`` and
    ``variance <- variance + Q`` for the whole pool. v and Q follow the innovations e of the batch
    by moment matching, in our reading ``v <- v + rate mean(e) / mean(sin(2 mean))`` and
    ``Q <- max(Q + rate mean(e^2 - variance - R), 0)``.

    Prompts start from N(pi/4, pi^2/48); once ``refit`` groups were seen, those that are still
    unseen get the mean and variance of the arc lengths measured so far (our reading of "the
    empirical moments").

    Args:
        rate: of the adaptation of v and Q; 0 keeps them; may be traced.
        drift: v at first.
        process_noise: Q at first.
        refit: groups after which the prior is replaced; 100 in the paper, None for never.

    Returns:
        a part that publishes a :class:`GaussianBelief` of the arc length.
    """
    checks.require_finite(rate=rate, drift=drift, process_noise=process_noise)
    checks.require_counts(**checks.given(refit=refit))

    def init(num_prompts: int) -> ArcState:
        belief = gaussian.init(np.pi / 4, np.pi**2 / 48, num_prompts)
        dtype = belief.mean.dtype
        return ArcState(
            belief,
            jnp.asarray(drift, dtype),
            jnp.asarray(process_noise, dtype),
            jnp.zeros(num_prompts, bool),
            jnp.zeros(3, dtype),
        )

    def propose(key: Key, proposal: Proposal, state: ArcState):
        del key
        belief = state.belief
        return proposal.publish(GaussianBelief(belief.mean, gaussian.variance(belief))), state

    def observe(evidence: Evidence, state: ArcState):
        belief, dtype = state.belief, state.drift.dtype
        index = jnp.where(evidence.trials > 0, evidence.index, -1)
        measured, error = gaussian.measure_arc(evidence.passes, evidence.trials, dtype)
        source, here = rows.gather_index(index), index >= 0
        innovation = measured - belief.mean[source]
        known = belief.spread[source] + belief.noise
        surplus = innovation * innovation - known - error
        one = jnp.ones_like(innovation)
        slopes = jnp.sin(2 * belief.mean[source])
        terms = jnp.stack([innovation, slopes, surplus, one, measured, measured * measured])
        sums = _over_shards(jnp.where(here[None], terms, 0).sum(axis=1), evidence.axis_name)
        pace, count = jnp.asarray(rate, dtype), jnp.maximum(sums[3], 1)
        slope = jnp.where(sums[1] > 0, sums[0] / jnp.where(sums[1] > 0, sums[1], 1), 0)
        new_drift = state.drift + pace * slope
        noise = jnp.maximum(state.process_noise + pace * sums[2] / count, 0)
        terms, belief = jax.lax.optimization_barrier((terms, belief))
        target = rows.scatter_index(index, state.seen.shape[0])
        seen, moments = state.seen.at[target].set(True, mode="drop"), state.moments + sums[3:]
        if refit is not None:
            due = (moments[0] >= refit) & (state.moments[0] < refit)
            belief = _refitted(belief, moments, due & ~seen)
        belief = gaussian.update(belief, index, measured, error, noise)
        mean = jnp.clip(belief.mean + new_drift * jnp.sin(2 * belief.mean), 0, np.pi / 2)
        return evidence, ArcState(belief._replace(mean=mean), new_drift, noise, seen, moments)

    return Selector(init, propose, observe)


def _refitted(belief: gaussian.Belief, moments: Array, where: Array) -> gaussian.Belief:
    """The belief with the empirical moments as that of some prompts."""
    mean = moments[1] / jnp.maximum(moments[0], 1)
    variance = jnp.maximum(moments[2] / jnp.maximum(moments[0], 1) - mean * mean, 1e-6)
    return belief._replace(
        mean=jnp.where(where, mean, belief.mean),
        spread=jnp.where(where, variance - belief.noise, belief.spread),
    )


def add_arc_nearness(target=np.pi / 4, group: int = 8) -> Selector:
    """The logarithm of ARCUS's score: nearness to a target times the chance to be informative.

    With m, P the belief's mean and variance, ``s = min(sin target, cos target)/sqrt 2`` and
    ``a = 1 + 2 G P``: ``sqrt(s^2/(s^2+P)) exp(-(m - target)^2/(2 (s^2+P)))`` times
    ``1 - [exp(-G m^2/a) + exp(-G (pi/2 - m)^2/a)]/sqrt a``.

    The target is given (and may be traced); :func:`add_paced_arc_nearness` moves it.

    Args:
        target: arc length wanted, in (0, pi/2); pi/4 is a pass rate of 1/2.
        group: G rollouts.

    Returns:
        a part that needs :func:`track_arc` before it.
    """
    checks.require_finite(target=target)
    checks.require_counts(group=group)

    def propose(key, proposal: Proposal) -> Proposal:
        del key
        belief = proposal.belief(GaussianBelief, "add_arc_nearness", "track_arc")
        return add(proposal, arc_log_score(belief.mean, belief.variance, target, group))

    return stateless(propose)


class PaceState(NamedTuple):
    """State of :func:`add_paced_arc_nearness`."""

    target: Float[Array, ""]
    step: Int[Array, ""]  # observations made


def add_paced_arc_nearness(
    start=np.pi / 4,
    group: int = 8,
    temperature=0.3,
    slack=0.03,
    most=0.005,
    warm_up: int | None = None,
) -> Selector:
    """ARCUS's score, for a target that goes where groups are hard and yet mostly informative.

    Of 41 targets the hardest is wanted whose predicted yield is within ``slack`` of the best; the
    target moves towards it by at most ``most`` a step, after a warm-up. Our reading where the
    publication is silent: the targets lie evenly between the arc lengths at which a group all
    fails, or all passes, half of the time; the yield of a target is the mean chance to be
    informative (the second factor of :func:`add_arc_nearness`) of the prompts drawn for it,
    weighted by ``exp(score/temperature)``.

    Args:
        start: target during the warm-up; pi/4 in the paper.
        group: G rollouts.
        temperature: of the draw that follows.
        slack: 0.03 in the paper.
        most: radians; 0.005 in the paper.
        warm_up: steps; ``ceil(N/B)``, as in the paper, if not given.

    Returns:
        a part that needs :func:`track_arc` before it.
    """
    checks.require_finite(start=start, temperature=temperature, slack=slack, most=most)
    checks.require_counts(group=group, **checks.given(warm_up=warm_up))
    hardest, easiest = np.arcsin(np.sqrt([1 - 0.5 ** (1 / group), 0.5 ** (1 / group)]))
    targets = np.linspace(hardest, easiest, 41)

    def init(num_prompts: int) -> PaceState:
        del num_prompts
        return PaceState(jnp.asarray(start, jnp.result_type(float)), jnp.zeros((), jnp.int32))

    def propose(key: Key, proposal: Proposal, state: PaceState):
        del key
        belief = proposal.belief(GaussianBelief, "add_paced_arc_nearness", "track_arc")
        rows_here = belief.mean.shape[0]
        shards = 1 if proposal.axis_name is None else jax.lax.axis_size(proposal.axis_name)
        wait = warm_up
        if wait is None:
            wait = -(-rows_here * shards // (proposal.batch_size or rows_here))

        def yield_of(target):
            return _arc_yield(belief, target, group, temperature, proposal)

        grid = jnp.asarray(targets, state.target.dtype)
        yields = jax.lax.map(yield_of, grid)
        enough = yields >= yields.max() - jnp.asarray(slack, yields.dtype)
        wanted = grid[jnp.argmax(enough)]  # the first: targets go from hard to easy
        step = jnp.asarray(most, grid.dtype)
        moved = state.target + jnp.clip(wanted - state.target, -step, step)
        target = jnp.where(state.step >= wait, moved, state.target)
        score = arc_log_score(belief.mean, belief.variance, target, group)
        # Looking at the beliefs is not a step.
        kept = state if proposal.batch_size is None else state._replace(target=target)
        return add(proposal, score), kept

    def observe(evidence: Evidence, state: PaceState):
        return evidence, state._replace(step=state.step + 1)

    return Selector(init, propose, observe)


def _arc_yield(belief: GaussianBelief, target, group: int, temperature, proposal: Proposal):
    """Mean chance to be informative under the draw for ``target``, over all shards."""
    mean, variance = belief.mean, belief.variance
    score = arc_log_score(mean, variance, target, group) / jnp.asarray(temperature, mean.dtype)
    score = jnp.where(proposal.eligible, score, -jnp.inf)
    highest = score.max()
    if proposal.axis_name is not None:
        highest = jax.lax.pmax(highest, proposal.axis_name)
    weight = jnp.exp(score - jnp.where(jnp.isfinite(highest), highest, 0))
    mixed = arc_informative(mean, variance, group)
    sums = _over_shards(jnp.stack([(weight * mixed).sum(), weight.sum()]), proposal.axis_name)
    return sums[0] / jnp.maximum(sums[1], jnp.asarray(jnp.finfo(mean.dtype).tiny, mean.dtype))


def arc_log_score(
    mean: Float[Array, "N"], variance: Float[Array, "N"], target, group: int
) -> Float[Array, "N"]:
    """See :func:`add_arc_nearness`."""
    dtype = mean.dtype
    target = jnp.asarray(target, dtype)
    width = jnp.square(jnp.minimum(jnp.sin(target), jnp.cos(target))) / 2
    total = width + variance
    kernel = 0.5 * jnp.log(width / total) - jnp.square(mean - target) / (2 * total)
    mixed = arc_informative(mean, variance, group)
    return kernel + jnp.log(jnp.maximum(mixed, jnp.asarray(1e-6, dtype)))


def arc_informative(
    mean: Float[Array, "N"], variance: Float[Array, "N"], group: int
) -> Float[Array, "N"]:
    """ARCUS's chance that a group of rollouts is mixed; see :func:`add_arc_nearness`."""
    widened = 1 + 2 * group * variance
    low = jnp.exp(-group * jnp.square(mean) / widened)
    high = jnp.exp(-group * jnp.square(np.pi / 2 - mean) / widened)
    return 1 - (low + high) / jnp.sqrt(widened)
