"""ARCUS (arXiv 2609.38018): a Kalman filter of the arc length and a Gumbel draw.

The arc length of a prompt is ``arcsin sqrt(p)``, in which counts have nearly constant noise.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dpsjax import checks
from dpsjax.belief import kalman, rows
from dpsjax.belief.filter import Filter, clear_of, ordered
from dpsjax.selectors.base import GROUP, Proposal, Selector, chain, over_shards
from dpsjax.selectors.chance import draw_softmax
from dpsjax.selectors.entry import Entry
from dpsjax.selectors.score import accept_mixed, from_view
from dpsjax.selectors.track import track
from dpsjax.types import Array, Bool, Float, Int, Key

# Defaults of the recipe and of its parts.
RATE = 0.1
REFIT = 100
TARGET = np.pi / 4
TEMPERATURE = 0.3

TARGETS = 41  # that a paced target chooses from


class ArcView(kalman.GaussianView):
    """Published by :func:`track_arc`: a Gaussian belief about the arc length."""


class ArcState(NamedTuple):
    """State of :func:`track_arc`."""

    belief: kalman.Belief
    drift: Float[Array, ""]
    process_noise: Float[Array, ""]
    seen: Bool[Array, "N"]
    moments: Float[Array, "3"]  # groups seen, sum and sum of squares of their arc lengths
    sums: Float[Array, "4"]  # of this step: groups, innovations, slopes, surplus of their squares


def track_arc(rate=RATE, drift=0.0, process_noise=1e-3, refit: int | None = REFIT) -> Selector:
    """Keep a Kalman filter of each prompt's arc length ``arcsin sqrt(p)``.

    Each step predicts ``mean <- clip(mean + v sin(2 mean))`` and ``variance <- variance + Q`` for
    the whole pool. v and Q follow the innovations e of the step by moment matching, in our reading
    ``v <- v + rate mean(e) / mean(sin(2 mean))`` and
    ``Q <- max(Q + rate mean(e^2 - variance - R), 0)``.

    Prompts start from N(pi/4, pi^2/48); once ``refit`` groups were seen, those that are still
    unseen get the mean and variance of the arc lengths measured so far (our reading of "the
    empirical moments").

    Args:
        rate: of the adaptation of v and Q, in [0, 1]; 0 keeps them; may be traced.
        drift: v at first.
        process_noise: Q at first.
        refit: groups after which the prior is replaced; 100 in the paper, None for never.

    Returns:
        a part that publishes an :class:`ArcView`.

    Raises:
        TypeError: a setting is no number.
        ValueError: one is out of its range.
    """
    checks.require_scalar(0.0, 1.0, rate=rate)
    checks.require_scalar(-jnp.inf, jnp.inf, drift=drift)
    checks.require_scalar(0.0, jnp.inf, process_noise=process_noise)
    checks.require_counts(**checks.given(refit=refit))

    def init(num_prompts: int) -> ArcState:
        belief = kalman.init(np.pi / 4, np.pi**2 / 48, num_prompts)
        dtype = belief.mean.dtype
        return ArcState(
            belief,
            jnp.asarray(drift, dtype),
            jnp.asarray(process_noise, dtype),
            jnp.zeros(num_prompts, bool),
            jnp.zeros(3, dtype),
            jnp.zeros(4, dtype),
        )

    def observe(state: ArcState, index, passes, trials, axis_name) -> ArcState:
        belief, index = state.belief, clear_of(index, trials)
        measured, error = kalman.measure_arc(passes, trials, belief.mean.dtype)
        source = rows.gather_index(index)
        mean, known = belief.mean[source], belief.spread[source] + belief.noise
        innovation = measured - mean
        surplus = innovation * innovation - known - error
        one = jnp.ones_like(mean)
        terms = [one, innovation, jnp.sin(2 * mean), surplus, measured, measured * measured]
        sums = jnp.where((index >= 0)[None], jnp.stack(terms), 0).sum(axis=1)
        sums, belief = ordered(over_shards(sums, axis_name), belief)
        target = rows.scatter_index(index, state.seen.shape[0])
        return state._replace(
            belief=kalman.observe(belief, index, measured, error),
            seen=state.seen.at[target].set(True, mode="drop"),
            moments=state.moments + jnp.stack([sums[0], sums[4], sums[5]]),
            sums=state.sums + sums[:4],
        )

    def advance(state: ArcState) -> ArcState:
        belief, moments = state.belief, state.moments
        groups, innovations, slopes, surplus = state.sums
        pace = jnp.asarray(rate, groups.dtype)
        slope = jnp.where(slopes > 0, innovations / jnp.where(slopes > 0, slopes, 1), 0)
        speed = state.drift + pace * slope
        noise = jnp.maximum(state.process_noise + pace * surplus / jnp.maximum(groups, 1), 0)
        if refit is not None:
            due = (moments[0] >= refit) & (moments[0] - groups < refit)
            belief = _refitted(belief, moments, due & ~state.seen)
        belief = kalman.advance(belief, noise)
        mean = jnp.clip(belief.mean + speed * jnp.sin(2 * belief.mean), 0, np.pi / 2)
        return state._replace(
            belief=belief._replace(mean=mean),
            drift=speed,
            process_noise=noise,
            sums=jnp.zeros_like(state.sums),
        )

    def view(state: ArcState) -> ArcView:
        belief = state.belief
        return ArcView(belief.mean, kalman.variance(belief), kalman.rate_of_arc)

    return track(Filter(init, observe, advance, view))


def _refitted(belief: kalman.Belief, moments: Array, where: Array) -> kalman.Belief:
    """The belief with the empirical moments as that of some prompts."""
    mean = moments[1] / jnp.maximum(moments[0], 1)
    variance = jnp.maximum(moments[2] / jnp.maximum(moments[0], 1) - mean * mean, 1e-6)
    return belief._replace(
        mean=jnp.where(where, mean, belief.mean),
        spread=jnp.where(where, variance - belief.noise, belief.spread),
    )


def _require_target(**values) -> None:
    checks.require_scalar(0.0, np.pi / 2, **values)
    for name, value in values.items():
        inside = (jnp.asarray(value) > 0) & (jnp.asarray(value) < np.pi / 2)
        checks.require(inside, f"{name} must lie in (0, pi/2), got {{value}}", value=value)


def add_arc_nearness(target=TARGET, group: int = GROUP) -> Selector:
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
    _require_target(target=target)
    checks.require_counts(least=2, group=group)

    def score(view: ArcView, key, ids):
        return arc_log_score(view.mean, view.variance, target, group)

    return from_view(score, ArcView, "add_arc_nearness", "track_arc")


class PaceState(NamedTuple):
    """State of :func:`add_paced_arc_nearness`."""

    target: Float[Array, ""]
    step: Int[Array, ""]  # finished steps
    moved: Bool[Array, ""]  # whether the target has had this step's move


def add_paced_arc_nearness(
    start=np.pi / 4,
    group: int = GROUP,
    temperature=TEMPERATURE,
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
    _require_target(start=start)
    checks.require_positive(temperature=temperature)
    checks.require_scalar(0.0, jnp.inf, slack=slack, most=most)
    checks.require_counts(least=2, group=group)
    checks.require_counts(**checks.given(warm_up=warm_up))
    hardest, easiest = np.arcsin(np.sqrt([1 - 0.5 ** (1 / group), 0.5 ** (1 / group)]))
    targets = np.linspace(hardest, easiest, TARGETS)

    def init(num_prompts: int, data=None) -> PaceState:
        first = jnp.asarray(start, jnp.result_type(float))
        return PaceState(first, jnp.zeros((), jnp.int32), jnp.zeros((), bool))

    def propose(key: Key, proposal: Proposal, state: PaceState):
        view = proposal.belief(ArcView, "add_paced_arc_nearness", "track_arc")
        shards = 1 if proposal.axis_name is None else jax.lax.axis_size(proposal.axis_name)
        pool = view.mean.shape[0] * shards
        wait = -(-pool // proposal.batch_size) if warm_up is None else warm_up

        grid = jnp.asarray(targets, state.target.dtype)
        yields = jax.lax.map(lambda aim: _yield_of(view, aim, group, temperature, proposal), grid)
        enough = yields >= yields.max() - jnp.asarray(slack, yields.dtype)
        wanted = grid[jnp.argmax(enough)]  # the first: targets go from hard to easy
        step = jnp.asarray(most, grid.dtype)
        nearer = state.target + jnp.clip(wanted - state.target, -step, step)
        due = (state.step >= wait) & ~state.moved
        target = jnp.where(due, nearer, state.target)
        score = arc_log_score(view.mean, view.variance, target, group)
        return proposal.add(score), state._replace(target=target, moved=jnp.ones((), bool))

    def advance(state: PaceState) -> PaceState:
        return state._replace(step=state.step + 1, moved=jnp.zeros((), bool))

    return Selector(init, propose, advance=advance)


def _yield_of(view: ArcView, target, group: int, temperature, proposal: Proposal):
    """Mean chance to be informative under the draw for ``target``, over all shards."""
    mean, variance = view.mean, view.variance
    score = arc_log_score(mean, variance, target, group) / jnp.asarray(temperature, mean.dtype)
    score = jnp.where(proposal.eligible, score, -jnp.inf)
    highest = score.max()
    if proposal.axis_name is not None:
        highest = jax.lax.pmax(highest, proposal.axis_name)
    weight = jnp.exp(score - jnp.where(jnp.isfinite(highest), highest, 0))
    mixed = arc_informative(mean, variance, group)
    sums = over_shards(jnp.stack([(weight * mixed).sum(), weight.sum()]), proposal.axis_name)
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


def arcus(
    group: int = GROUP,
    target=TARGET,
    temperature=TEMPERATURE,
    rate=RATE,
    paced: bool = False,
    refit: int | None = REFIT,
) -> Selector:
    """ARCUS (arXiv 2609.38018): a Kalman filter of the arc length and a Gumbel draw.

    The paper draws ``(1 + 0.25) B`` prompts and trains on up to B informative ones: ask for a
    larger batch and obey ``accept``.

    Departures: the target is fixed unless ``paced``. Where the publication is silent, the grid and
    the yield of the targets (:func:`add_paced_arc_nearness`), the moment matching and the moments
    at the refit (:func:`track_arc`) are our reading. No code is released.

    Args:
        group: G rollouts.
        target: arc length wanted; where it starts if it is paced.
        temperature: T of the draw; 0.3 in the paper.
        rate: of the adaptation of drift and process noise; 0.1 in the paper.
        paced: whether the target moves along the predicted yield, as published.
        refit: groups after which prompts never seen get the empirical moments for their prior;
            100 in the paper, None for never.

    Returns:
        the selector.
    """
    _require_target(target=target)  # by the recipe's name of it
    nearness = (
        add_paced_arc_nearness(target, group, temperature)
        if paced
        else add_arc_nearness(target, group)
    )
    return chain(track_arc(rate, refit=refit), nearness, draw_softmax(temperature), accept_mixed())


ENTRIES = (Entry(arcus, "2609.38018", variants={"arcus-paced": {"paced": True}}),)
