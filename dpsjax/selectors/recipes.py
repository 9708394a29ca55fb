"""The selectors of DPS's paper and its neighbours, each a few lines over the shared parts."""

from dpsjax import checks
from dpsjax.selectors.combinators import cool_down as cooled
from dpsjax.selectors.combinators import mix
from dpsjax.selectors.gates import accept_mixed, candidate_pool
from dpsjax.selectors.history import Exclusion, skip_solved
from dpsjax.selectors.protocol import Selector, chain
from dpsjax.selectors.rates import add_average, add_fewest_visits, add_progress, weigh_progress
from dpsjax.selectors.replay import track_explorability
from dpsjax.selectors.sampling import add_thompson, draw_proportional
from dpsjax.selectors.scores import add_entropy, add_state_prob
from dpsjax.selectors.solve_rate import add_mixed_prob, track_solve_rate
from dpsjax.selectors.trackers import (
    pass_rate,
    track_average,
    track_beta,
    track_hmm,
    track_visits,
)


def uniform() -> Selector:
    """Every prompt equally likely, without repeats in a batch (the paper's US)."""
    return chain()


def uniform_epochs() -> Selector:
    """Every prompt once before any comes twice, in random order: a shuffled data loader."""
    return chain(track_visits(), add_fewest_visits())


def dps(
    decay=0.5,
    prior_alpha=1.0,
    prior_pi=None,
    num_states: int = 3,
    target=None,
    entropy=None,
    candidates: int | None = None,
    counts_dtype=None,
) -> Selector:
    """Dynamics-Predictive Sampling: the B prompts most likely to be partially solved.

    arXiv 2603.10887, section 4 and algorithm 1. Follows the released sampler on its whole-pool
    settings, except where that gives NaN (see :mod:`dpsjax.belief.hmm`) or an order left to an
    unstable sort (here: equals at random, by the key).

    Args:
        decay: lambda. The paper: 0.7 on MATH, 0.5 on Countdown and Geometry3k.
        prior_alpha: 1.0 in the paper; see :func:`dpsjax.hmm.params`.
        prior_pi: uniform in the paper.
        num_states: 3 in the paper; 2, 5 and 7 are its ablations.
        target: weight per state [K]; all partial states if not given.
        entropy: weight of the entropy bonus ("DPS+Entropy"); none if not given.
        candidates: size of a random candidate pool; the whole pool if not given, as in the
            released scripts.
        counts_dtype: float type of the counts; float32 by default. ``bfloat16`` saves a quarter of
            the memory (``benchmarks/precision.py`` measures its effect on what is chosen).

    Returns:
        the selector.
    """
    checks.require_finite(decay=decay)
    return chain(
        *([] if candidates is None else [candidate_pool(candidates)]),
        track_hmm(decay, prior_alpha, prior_pi, num_states, counts_dtype),
        add_state_prob(target),
        *([] if entropy is None else [add_entropy(entropy)]),
    )


def dps_binomial(
    group: int = 8,
    power=4.0,
    cool_down: int = 0,
    cells: int = 16,
    moves=(1.0, 46.0, 2.5, 0.5),
    decay=0.9,
    memory=0.9,
) -> Selector:
    """DPS with a chain over solve rates, binomial emissions and moves that prompts share.

    Not a published method: it stands beside :func:`dps`, whose equations it keeps but for three
    things. The hidden state is the solve rate, of which a group of rollouts is a binomial sample,
    so chance in a group is not taken for a change of the prompt. Transition counts are pooled over
    the prompts. Prompts are drawn in proportion to a power of their chance to be mixed, not the B
    best, so that the pool is covered. ``docs/laboratory.md`` says where it wins and where not.

    Args:
        group: G rollouts.
        power: of the chance in the draw; may be traced. Infinite powers would be the B best.
        cool_down: steps in which a prompt is not drawn again, as far as the pool allows.
        cells: of the grid of solve rates.
        moves: see :func:`track_solve_rate`.
        decay: see :func:`track_solve_rate`.
        memory: see :func:`track_solve_rate`.

    Returns:
        the selector.
    """
    checks.require_integers(cool_down=cool_down)
    if cool_down < 0:
        raise ValueError(f"cool_down={cool_down!r} must be 0 (none) or more")
    checks.require_finite(power=power, decay=decay, memory=memory)
    checks.require_counts(group=group, cells=cells)
    return chain(
        track_solve_rate(cells, moves, decay, memory),
        add_mixed_prob(group),
        draw_proportional(power),
        *([cooled(cool_down, strict=False)] if cool_down else []),
    )


def mopps(
    decay=0.5,
    target=0.5,
    prior=(1.0, 1.0),
    band=None,
    forget_unseen=False,
    candidates: int | None = None,
) -> Selector:
    """MoPPS (arXiv 2507.04632): a draw from each prompt's Beta belief, nearest the target first.

    Follows the released code for groups of more than one, with any number of rollouts a row (the
    code loses all evidence at one rollout a prompt).

    Args:
        decay: lambda. Released scripts: 1.0 on MATH, 0.5 on Countdown and Geometry3k.
        target: gamma*; 0.5 in the paper.
        prior: pseudo-counts before the first visit; (1, 1) in the paper.
        band: ``(low, high)`` for the "threshold" variant; (0.3, 0.7) in the released code.
        forget_unseen: whether prompts are also forgotten while unseen; the paper: no.
        candidates: size of a random candidate pool; released scripts: 16 B on MATH, else 8 B;
            the whole pool if not given.

    Returns:
        the selector.
    """
    checks.require_finite(decay=decay, target=target)
    return chain(
        *([] if candidates is None else [candidate_pool(candidates)]),
        track_beta(decay, prior, forget_unseen),
        add_thompson(target, band),
    )


def history_resampling(
    exclude: Exclusion = "next_epoch", epoch_steps: int | None = None, strict: bool = True
) -> Selector:
    """History resampling (SRPO, arXiv 2504.14286): leave out prompts that all passed.

    Prompts that all failed stay in. The publications allow several readings of how long a prompt
    is left out; see :func:`skip_solved`.

    Args:
        exclude: "next_epoch" (one epoch only), "forever" (adding up) or "this_epoch".
        epoch_steps: steps in an epoch; one pass over what is left if not given.
        strict: whether a batch is padded if too few prompts are left, or else filled with others.

    Returns:
        the selector.
    """
    return chain(skip_solved(exclude, epoch_steps, strict))


def dynamic_sampling(inner: Selector | None = None) -> Selector:
    """DAPO's dynamic sampling (arXiv 2503.14476): only mixed groups enter the loss.

    The selector vetoes; filling the batch is the loop's part: see :func:`fill` and
    :class:`Buffer` ("true fill" without, "capped" with ``max_rounds``).

    Args:
        inner: what draws the prompts; :func:`uniform` if not given.

    Returns:
        the selector.
    """
    return chain(uniform() if inner is None else inner, accept_mixed())


def depo(history: int = 3, entropy_limit=1.5, explore=0.1) -> Selector:
    """DEPO's online stage (arXiv 2509.01321): explorability with replay.

    Most of the batch are the prompts of greatest mean explorability over their last visits, a
    share of it the least visited ones. Departures: shares are of the batch, drawn from the whole
    pool, instead of a cut of each loaded batch that shrinks linearly with the epoch; history,
    share and schedule were not published. For the offline stage see :func:`weighted_dpp_greedy`
    and :func:`gaussian_difficulty_sample`.

    Args:
        history: s, visits remembered.
        entropy_limit: lambda_H; 1.5 in the paper.
        explore: rho, share of the least visited; may be traced.

    Returns:
        the selector; give ``rewards`` and ``entropies`` to :func:`dpsjax.observe`.
    """
    checks.require_finite(entropy_limit=entropy_limit, explore=explore)
    checks.require_counts(history=history)
    return chain(
        track_explorability(history, entropy_limit), add_average(), mix(uniform_epochs(), explore)
    )


def lppo(
    decay=0.8, slope=8.0, base=0.5, inner: Selector | None = None, late: bool = False
) -> Selector:
    """LPPO's learning-progress weights on the loss (arXiv 2507.06573).

    Args:
        decay: beta of the averaged pass rate; 0.8 in a third party's implementation.
        slope: kappa; 8.0 there.
        base: b; 0.5 there.
        inner: what draws the prompts; :func:`uniform` if not given.
        late: see :func:`weigh_progress`. False works in any loop, a visit later than the paper;
            ``dpsjax train`` and the laboratory have it True.

    Returns:
        the selector.
    """
    checks.require_finite(decay=decay, slope=slope, base=base)
    return chain(
        uniform() if inner is None else inner,
        track_average(pass_rate, decay),
        weigh_progress(slope, base, late),
    )


def learning_progress(decay=0.8, unseen=1.0, explore=0.1) -> Selector:
    """Draw the prompts whose averaged pass rate moved most at their last visit.

    LPPO's progress used as a selector; not a published method.

    Args:
        decay: of the average.
        unseen: score of prompts seen less than twice; 1 lets them come first.
        explore: share of the batch for the least visited.

    Returns:
        the selector.
    """
    checks.require_finite(decay=decay, unseen=unseen, explore=explore)
    return chain(
        track_average(pass_rate, decay), add_progress(unseen), mix(uniform_epochs(), explore)
    )
