"""The baselines, DPS and its nearest neighbours; :mod:`dpsjax.selectors.contrib` has the field.

A recipe is a chain of parts. Its keywords are hyperparameters, with the defaults that the whole
library uses: the command line and the laboratory take them from here.
"""

from typing import Literal

from dpsjax.belief import grid, hmm_params
from dpsjax.selectors.base import GROUP, Selector, chain
from dpsjax.selectors.chance import candidate_pool, draw_proportional
from dpsjax.selectors.entry import Entry
from dpsjax.selectors.history import add_fewest_visits, track_visits
from dpsjax.selectors.score import (
    add_entropy,
    add_mixed_prob,
    add_nearness,
    add_state_prob,
    add_thompson,
)
from dpsjax.selectors.track import track_beta, track_hmm, track_solve_rate


def _among(candidates: int | None) -> list[Selector]:
    return [] if candidates is None else [candidate_pool(candidates)]


def uniform() -> Selector:
    """Every prompt equally likely, without repeats in a batch (the paper's US)."""
    return chain()


def uniform_epochs() -> Selector:
    """Every prompt once before any comes twice, in random order: a shuffled data loader."""
    return chain(track_visits(), add_fewest_visits())


def dps(
    decay=hmm_params.DECAY,
    prior_alpha=1.0,
    prior_pi=None,
    num_states: int = 3,
    target="partial",
    entropy=None,
    power=None,
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
        target: states that count: all "partial" ones, the "middle" one alone, or a weight per
            state [K].
        entropy: weight of the entropy bonus ("DPS+Entropy"); none if not given.
        power: draw in proportion to this power of the score, instead of the B best as published.
        candidates: size of a random candidate pool; the whole pool if not given, as in the
            released scripts.
        counts_dtype: float type of the counts; float32 by default. ``bfloat16`` saves a quarter of
            the memory (``benchmarks/precision.py`` measures its effect on what is chosen).

    Returns:
        the selector.
    """
    return chain(
        *_among(candidates),
        track_hmm(decay, prior_alpha, prior_pi, num_states, counts_dtype),
        add_state_prob(target),
        *([] if entropy is None else [add_entropy(entropy)]),
        *([] if power is None else [draw_proportional(power)]),
    )


def dps_binomial(
    group: int = GROUP,
    power=4.0,
    cells: int = grid.CELLS,
    moves=grid.MOVES,
    decay=grid.DECAY,
    memory=grid.MEMORY,
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
        cells: of the grid of solve rates.
        moves: see :func:`track_solve_rate`.
        decay: see :func:`track_solve_rate`.
        memory: see :func:`track_solve_rate`.

    Returns:
        the selector.
    """
    return chain(
        track_solve_rate(cells, moves, decay, memory),
        add_mixed_prob(group),
        draw_proportional(power),
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
    return chain(
        *_among(candidates), track_beta(decay, prior, forget_unseen), add_thompson(target, band)
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
    return chain(track_beta(decay, prior, forget_unseen), add_nearness(target))


PRIORS = Literal["uniform", "progress", "stability", "local"]

ENTRIES = (
    Entry(uniform),
    Entry(uniform_epochs),
    Entry(
        dps,
        "2603.10887",
        options={
            "prior_alpha": float | PRIORS,
            "num_states": Literal[2, 3, 5, 7],
            "target": Literal["partial", "middle"],
            "entropy": float | None,
            "power": float | None,
        },
        variants={
            "dps-0.2": {"decay": 0.2},
            "dps-0.8": {"decay": 0.8},
            "dps-1.0": {"decay": 1.0},
            "dps-entropy": {"entropy": 0.1},
            "dps-candidates": {"candidates": 2048},
            "dps-cool": {"cool_down": 12},
            "dps-proportional": {"power": 1.0},
            "dps-2": {"num_states": 2},
            "dps-5-middle": {"num_states": 5, "target": "middle"},
            "dps-7": {"num_states": 7},
        },
    ),
    Entry(dps_binomial, variants={"dps-binomial-cool": {"cool_down": 12}}),
    Entry(
        mopps,
        "2507.04632",
        options={"band": tuple[float, float] | None},
        variants={"mopps-band": {"band": (0.3, 0.7)}},
    ),
    Entry(beta_mean, variants={"beta-cool": {"cool_down": 12}}),
)
