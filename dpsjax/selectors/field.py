"""Selectors of the wider field, each a few lines over the shared parts.

Where a publication leaves a constant open, the docstring says so and the default is ours.
"""

import numpy as np

from dpsjax import checks
from dpsjax.selectors.combinators import RowData, mix
from dpsjax.selectors.gates import accept_mixed, accept_variance, candidate_pool
from dpsjax.selectors.history import skip_streaks
from dpsjax.selectors.paced import (
    add_arc_nearness,
    add_category_value,
    add_difficulty_target,
    add_order,
    add_paced_arc_nearness,
    track_arc,
)
from dpsjax.selectors.protocol import Selector, chain
from dpsjax.selectors.rates import (
    add_average,
    add_bell,
    add_expected_variance,
    add_information,
    add_informative_prob,
    add_learnability,
    add_nearness,
)
from dpsjax.selectors.recipes import uniform, uniform_epochs
from dpsjax.selectors.replay import prioritize
from dpsjax.selectors.sampling import draw_proportional, draw_softmax
from dpsjax.selectors.trackers import (
    pass_rate,
    rollout_variance,
    track_average,
    track_beta,
    track_logit,
    track_visits,
)


def beta_mean(decay=0.5, target=0.5, prior=(1.0, 1.0), forget_unseen=False) -> Selector:
    """The prompts whose posterior-mean pass rate is nearest the target: MoPPS without its draw.

    Args:
        decay: forgetting factor at each visit; may be traced.
        target: the rate wanted.
        prior: pseudo-counts before the first visit.
        forget_unseen: whether prompts are also forgotten while unseen.

    Returns:
        the selector.
    """
    checks.require_finite(decay=decay, target=target)
    return chain(track_beta(decay, prior, forget_unseen), add_nearness(target))


def variance_ema(decay=0.9, start=0.25) -> Selector:
    """The prompts with the largest average of p (1 - p) (the "Var+EMA" ablation of DPS).

    The paper's exact definition is not public; this is the plain reading.

    Args:
        decay: weight of the past.
        start: of prompts never seen; 1/4, the largest possible, lets them come first.

    Returns:
        the selector.
    """
    checks.require_finite(decay=decay, start=start)
    return chain(track_average(rollout_variance, decay, start), add_average())


def static_order(difficulty: RowData, hardest_first: bool = False) -> Selector:
    """Through the pool in a fixed order of difficulty, again and again.

    Args:
        difficulty: [N] or a function of N that makes it.
        hardest_first: the other way round.

    Returns:
        the selector. Prompts of equal difficulty come in random order. In float32, orders finer
        than about 1 part in 10**7/visits of the range of difficulties are not kept.
    """
    return chain(uniform_epochs(), add_order(difficulty, hardest_first))


def mapp(decay=0.5, group: int = 8, prior=(1.0, 1.0), top: bool = False) -> Selector:
    """MaPP's prompt selection: the chance that a group is informative, under a Beta belief.

    Args:
        decay: lambda; 0.5 in the paper.
        group: G rollouts.
        prior: (1, 1) in the paper.
        top: False draws in proportion to the score, as published; True takes the B best.

    Returns:
        the selector. Its denoised advantage is :func:`dpsjax.belief.beta.denoised_advantages`.
    """
    checks.require_finite(decay=decay)
    checks.require_counts(group=group)
    return chain(
        track_beta(decay, prior),
        add_informative_prob(group),
        *([] if top else [draw_proportional()]),
    )


def insight(
    group: int = 8, target=0.3, sharpness=1.0, decay=1.0, candidates: int | None = None
) -> Selector:
    """InSight (arXiv 2603.01907): weighted mutual information under a Beta belief.

    Args:
        group: G rollouts.
        target: mu; 0.3 in the paper.
        sharpness: eta; not published.
        decay: lambda; 1 in the paper.
        candidates: size of the random candidate pool; the whole pool if not given.

    Returns:
        the selector.
    """
    checks.require_finite(target=target, sharpness=sharpness, decay=decay)
    checks.require_counts(group=group)
    return chain(
        *([] if candidates is None else [candidate_pool(candidates)]),
        track_beta(decay),
        add_information(group, target, sharpness),
    )


def kgps(process_noise=0.1, variance=1.0, points: int = 5) -> Selector:
    """A Kalman filter of the logit, ranked by E[p (1 - p)] (after KGPS, arXiv 2607.27610).

    Known to us from its abstract and one description only. Departures: the process noise is
    constant (the paper ties it to the size of the policy's update: pass that as a traced array);
    no warm-up is needed, for prompts never seen tie at random.

    Args:
        process_noise: variance of the logit that one step adds.
        variance: of the logit of prompts never seen.
        points: nodes of the quadrature.

    Returns:
        the selector.
    """
    checks.require_finite(process_noise=process_noise, variance=variance)
    checks.require_counts(points=points)
    return chain(track_logit(process_noise, 0.0, variance), add_expected_variance(points))


def arcus(
    group: int = 8,
    target=np.pi / 4,
    temperature=0.3,
    rate=0.1,
    paced: bool = False,
    refit: int | None = 100,
) -> Selector:
    """ARCUS (arXiv 2609.38018): a Kalman filter of the arc length and a Gumbel draw.

    The paper draws ``(1 + 0.25) B`` prompts and trains on up to B informative ones: ask for a
    larger batch and obey ``accept``. Departures: see :func:`track_arc`, :func:`add_arc_nearness`
    and :func:`add_paced_arc_nearness`.

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
    checks.require_finite(target=target, temperature=temperature, rate=rate)
    checks.require_counts(group=group, **checks.given(refit=refit))
    nearness = (
        add_paced_arc_nearness(target, group, temperature)
        if paced
        else add_arc_nearness(target, group)
    )
    return chain(track_arc(rate, refit=refit), nearness, draw_softmax(temperature), accept_mixed())


def cures(temperature=0.1, decay=1.0) -> Selector:
    """CurES (arXiv 2510.01037): prompts drawn by ``exp(sqrt(p (1 - p))/temperature)``.

    Departures: beliefs are not reset for each of 15 subsets of the data (make a new state for
    that), and all prompts start from the prior instead of 4 rollouts each. Its allocation of
    rollouts is :func:`allocate_proportional`.

    Args:
        temperature: tau; not known to us.
        decay: 1 in the paper.

    Returns:
        the selector.
    """
    checks.require_finite(temperature=temperature, decay=decay)
    return chain(track_beta(decay), add_learnability(0.5), draw_softmax(temperature))


def gcs(decay=0.9, width=0.35, target=0.5) -> Selector:
    """A Gaussian weight on the averaged pass rate (GCS, arXiv 2605.11403), drawn in proportion.

    Args:
        decay: of the average; 0.9 in the paper.
        width: 0.35 in the paper.
        target: 0.5 in the paper.

    Returns:
        the selector.
    """
    checks.require_finite(decay=decay, width=width, target=target)
    return chain(
        track_average(pass_rate, decay, first_visit_sets=False),
        add_bell(target, width),
        draw_softmax(1.0),
    )


def lilo(decay=0.0, prior=(1.0, 1.0)) -> Selector:
    """Learnability p (1 - p), the B best (LILO, NeurIPS 2025).

    Departure: the paper estimates p by rollouts made for the purpose; here p is the posterior
    mean of the last group (of more with a larger decay).

    Args:
        decay: forgetting factor at each visit.
        prior: pseudo-counts.

    Returns:
        the selector.
    """
    checks.require_finite(decay=decay)
    return chain(track_beta(decay, prior), add_learnability())


def greso(start=0.5, target=0.25, change=0.01, strict: bool = False) -> Selector:
    """GRESO (arXiv 2506.02177): skip prompts whose groups kept agreeing, then dynamic sampling.

    Args:
        start: base probability of keeping; 0.5 in the released code.
        target: wanted share of groups that agree; 0.25 there.
        change: of the base probabilities in a step; 0.01 there.
        strict: see :func:`skip_streaks`.

    Returns:
        the selector; the loop fills the batch (:func:`fill`).
    """
    checks.require_finite(start=start, target=target, change=change)
    return chain(skip_streaks(start, change, target, strict=strict), accept_mixed())


def speed(inner: Selector | None = None) -> Selector:
    """SPEED-RL's screening (arXiv 2506.09016): a few rollouts decide who gets the many.

    Roll out a few times (4 in the paper's script) and observe: groups that are accepted get the
    rest (20), the others none. Then learn from all rollouts of a group together, without a second
    ``observe``, which would count as another step.

    Args:
        inner: what draws the prompts; :func:`uniform` if not given.

    Returns:
        the selector.
    """
    return chain(uniform() if inner is None else inner, accept_mixed())


def sec(category: RowData, num_categories: int, rate=0.5, temperature=0.2) -> Selector:
    """SEC (arXiv 2505.14970): a bandit over categories of prompts.

    Args:
        category: int[N], 0..C-1, or a function of N that makes it.
        num_categories: C.
        rate: of learning; not known to us.
        temperature: of the Boltzmann draw; not known to us.

    Returns:
        the selector.
    """
    checks.require_finite(rate=rate, temperature=temperature)
    return chain(add_category_value(category, num_categories, rate, temperature), draw_softmax(1.0))


def adarft(difficulty: RowData, start=0.0, step=50.0, sensitivity=2.0, wanted=0.5) -> Selector:
    """AdaRFT (arXiv 2504.05520): the prompts nearest a target difficulty that follows success.

    Args:
        difficulty: [N] in 0..100, or a function of N that makes it.
        start: target at first.
        step: eta; 50 in the released code.
        sensitivity: alpha; 2 there.
        wanted: beta, pass rate aimed at; 0.5 there.

    Returns:
        the selector.
    """
    checks.require_finite(start=start, step=step, sensitivity=sensitivity, wanted=wanted)
    return chain(add_difficulty_target(difficulty, start, wanted, sensitivity, step))


def vcrl(threshold=0.5, inner: Selector | None = None, bank=0.0, momentum=0.9) -> Selector:
    """VCRL's variance gate and memory bank (arXiv 2509.19803).

    Groups of little reward variance do not train. A share of the batch comes from the memory
    bank: the prompts whose variance, averaged over their visits, is highest. Departures: the bank
    is the whole pool with a priority for each prompt, 0 until its first visit, instead of a queue
    of bounded size; its prompts take a fixed share of the batch, instead of the places of vetoed
    groups. The published schedule of the threshold is not known to us.

    Args:
        threshold: kappa; may be traced.
        inner: what draws the other prompts; :func:`uniform` if not given.
        bank: share of the batch from the bank, in [0, 1]; 0 for the gate alone.
        momentum: weight of the past in a prompt's priority.

    Returns:
        the selector.
    """
    checks.require_finite(threshold=threshold, bank=bank, momentum=momentum)
    inner = uniform() if inner is None else inner
    memory = chain(
        track_average(rollout_variance, momentum, 0.0, first_visit_sets=False), add_average()
    )
    banked = [] if isinstance(bank, float) and bank == 0 else [mix(memory, bank)]
    return chain(inner, *banked, accept_variance(threshold))


def prioritized_replay(
    temperature=0.1, staleness=0.1, decay=0.0, start=0.25, by_rank: bool = True
) -> Selector:
    """Prioritized level replay (arXiv 2010.03934) on p (1 - p), mixed with staleness.

    Departures: see :func:`prioritize`; the value is the variance of the rollouts, in place of the
    value loss that a policy without critic does not have.

    Args:
        temperature: beta; 0.1 in the paper.
        staleness: rho; 0.1 in the paper.
        decay: of the average of p (1 - p); 0 keeps the last group.
        start: value of prompts never seen; 1/4 is the largest possible.
        by_rank: by rank, as the paper prefers, or in proportion to the value.

    Returns:
        the selector.
    """
    checks.require_finite(temperature=temperature, staleness=staleness, decay=decay, start=start)
    return chain(
        track_visits(),
        track_average(rollout_variance, decay, start),
        prioritize(temperature, staleness, by_rank=by_rank),
        draw_proportional(),
    )
