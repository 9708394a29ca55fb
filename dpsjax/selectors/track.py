"""Parts that remember: each keeps a belief about every prompt and publishes a view of it."""

import jax
import jax.numpy as jnp

from dpsjax import checks
from dpsjax.belief import beta, grid, hmm, hmm_params, kalman
from dpsjax.belief.filter import Filter, clear_of
from dpsjax.belief.states import StateView
from dpsjax.selectors.base import Evidence, Selector


def track(filter: Filter) -> Selector:
    """Any filter as a part: it learns from every row, and publishes its view.

    Args:
        filter: see :class:`dpsjax.belief.filter.Filter`.

    Returns:
        the part; scores over any view follow it, and :func:`dpsjax.inspect` asks it.
    """

    def observe(evidence: Evidence, belief):
        seen = evidence.index, evidence.passes, evidence.trials
        return evidence, filter.observe(belief, *seen, evidence.axis_name)

    return Selector(
        init=lambda num_prompts, data=None: filter.init(num_prompts),
        observe=observe,
        advance=filter.advance,
        publish=lambda belief: (filter.view(belief),),
    )


def track_hmm(
    decay=hmm_params.DECAY, prior_alpha=1.0, prior_pi=None, num_states: int = 3, counts_dtype=None
) -> Selector:
    """Filter each prompt with the hidden Markov model of DPS (arXiv 2603.10887).

    Args:
        decay: forgetting factor lambda in [0, 1]; may be traced. The paper uses 0.7 on MATH and
            0.5 elsewhere.
        prior_alpha: see :func:`dpsjax.hmm.params`.
        prior_pi: [K] belief before the first step.
        num_states: 2, 3, 5 or 7 states of the success rate.
        counts_dtype: see :func:`dpsjax.hmm.init`; ``bfloat16`` saves a quarter of the memory.

    Returns:
        a part that publishes a ``StateView``.

    Raises:
        ValueError: as :func:`dpsjax.hmm.params` does.
    """
    params = hmm.params(num_states, decay, prior_alpha, prior_pi)

    def observe(belief, index, passes, trials, axis_name):
        state = hmm.solve_state(passes, trials, params.pi.shape[0])
        return hmm.observe(params, belief, clear_of(index, trials), state)

    return track(
        Filter(
            init=lambda num_prompts: hmm.init(params, num_prompts, counts_dtype),
            observe=observe,
            advance=lambda belief: hmm.advance(params, belief),
            view=lambda belief: StateView(hmm.prior(params, belief)),
        )
    )


def track_beta(decay=1.0, prior=(1.0, 1.0), forget_unseen=False) -> Selector:
    """Keep a Beta belief about each prompt's solve probability (MoPPS, arXiv 2507.04632).

    Args:
        decay: forgetting factor in [0, 1]; may be traced.
        prior: pseudo-counts before the first visit.
        forget_unseen: whether prompts are also forgotten while they are not seen (MoPPS: no).

    Returns:
        a part that publishes a ``BetaView``.
    """
    params = beta.params(decay, prior, forget_unseen)

    def observe(belief, index, passes, trials, axis_name):
        return beta.observe(params, belief, index, passes, trials)

    return track(
        Filter(
            init=lambda num_prompts: beta.init(params, num_prompts),
            observe=observe,
            advance=beta.advance,
            view=lambda belief: beta.BetaView(*beta.counts(params, belief)),
        )
    )


def track_solve_rate(
    cells: int = grid.CELLS, moves=grid.MOVES, decay=grid.DECAY, memory=grid.MEMORY
) -> Selector:
    """Filter each prompt's solve rate on a grid, with moves that the prompts share.

    See :mod:`dpsjax.belief.grid` for the equations.

    Args:
        cells: K of the grid; a prompt costs K floats.
        moves: prior counts of moving a cell down, staying, moving up, and jumping.
        decay: of the counts of moves; may be traced.
        memory: weight of the past in what is believed of prompts never seen; may be traced.

    Returns:
        a part that publishes a ``GridView``.

    Raises:
        ValueError: as :func:`dpsjax.belief.grid.params` does.
    """
    checks.require_counts(least=3, cells=cells)
    params = grid.params(moves, decay, memory)
    return track(
        Filter(
            init=lambda num_prompts: grid.init(params, num_prompts, cells),
            observe=grid.observe,
            advance=lambda belief: grid.advance(params, belief),
            view=grid.GridView,
        )
    )


def track_logit(process_noise=0.1, mean=0.0, variance=1.0) -> Selector:
    """Keep a Kalman filter of each prompt's logit (after KGPS, arXiv 2607.27610).

    Args:
        process_noise: variance that one training step adds; may be traced.
        mean: of the logit of prompts never seen.
        variance: of the same.

    Returns:
        a part that publishes a ``GaussianView`` of the logit.

    Raises:
        ValueError: the noise is negative, or the variance not positive.
    """
    checks.require_scalar(0.0, jnp.inf, process_noise=process_noise)
    checks.require_scalar(-jnp.inf, jnp.inf, mean=mean)
    checks.require_positive(variance=variance)

    def observe(belief, index, passes, trials, axis_name):
        measured = kalman.measure_logit(passes, trials, belief.mean.dtype)
        return kalman.observe(belief, clear_of(index, trials), *measured)

    def view(belief):
        return kalman.GaussianView(belief.mean, kalman.variance(belief), jax.nn.sigmoid)

    return track(
        Filter(
            init=lambda num_prompts: kalman.init(mean, variance, num_prompts),
            observe=observe,
            advance=lambda belief: kalman.advance(belief, process_noise),
            view=view,
        )
    )
