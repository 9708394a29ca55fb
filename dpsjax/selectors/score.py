"""Parts that turn a published belief into a score, and vetoes; scores of several parts add up."""

import jax.numpy as jnp

from dpsjax import checks
from dpsjax.belief import beta
from dpsjax.belief.beta import BetaView
from dpsjax.belief.filter import View
from dpsjax.belief.states import StateView, middle_state, partial_states
from dpsjax.checks import is_concrete
from dpsjax.selectors.base import GROUP, Evidence, Proposal, Selector, stateless


def from_view(
    score, kind: type = View, wanted_by: str = "a score", offered_by: str = ""
) -> Selector:
    """A part whose score is a function of a belief.

    Args:
        score: ``(view, key, ids) -> float[N]``.
        kind: of the view: any, or what one filter publishes.
        wanted_by: the part's name, for the message where there is no such belief.
        offered_by: the tracker to put before it.
    """
    offered_by = offered_by or "a tracker such as track_hmm or track_beta"

    def propose(key, proposal: Proposal) -> Proposal:
        view = proposal.belief(kind, wanted_by, offered_by)
        return proposal.add(score(view, key, proposal.ids))

    return stateless(propose)


def add_state_prob(target="partial", scale=1.0) -> Selector:
    """Add the probability that the prompt's next rollouts land in the target states.

    The score of DPS (arXiv 2603.10887): the predicted probability of being partially solved.

    Args:
        target: "partial" (:func:`partial_states`), "middle" (:func:`middle_state`), or a weight
            per state [K].
        scale: factor on the score; may be traced.

    Returns:
        a part that needs :func:`track_hmm` before it.
    """
    checks.require_finite(scale=scale)
    named = {"partial": partial_states, "middle": middle_state}
    if isinstance(target, str):
        checks.require_choice(tuple(named), target=target)

    def score(view: StateView, key, ids):
        prob = view.prob
        weights = named[target](prob.shape[0]) if isinstance(target, str) else target
        if len(weights) != prob.shape[0]:
            raise ValueError(f"target must have {prob.shape[0]} weights, got {len(weights)}")
        # Lanes that are known not to count are not even computed.
        lanes = [k for k, w in enumerate(weights) if not (is_concrete(w) and w == 0)]
        total = sum(jnp.asarray(weights[k], prob.dtype) * prob[k] for k in lanes)
        return jnp.asarray(scale, prob.dtype) * total

    return from_view(score, StateView, "add_state_prob", "track_hmm")


def add_entropy(scale=0.1) -> Selector:
    """Add the entropy of the predicted state, in nats (the "DPS+Entropy" ablation).

    Args:
        scale: the bonus's weight; may be traced. The paper's value is not published; unseen
            prompts have the largest entropy (log K), so a large weight prefers them.

    Returns:
        a part that needs :func:`track_hmm` before it.
    """
    checks.require_finite(scale=scale)

    def score(view: StateView, key, ids):
        # Lane by lane, which one loop computes; a sum over an axis would stack the lanes first.
        lanes = [view.prob[k] for k in range(view.prob.shape[0])]
        return jnp.asarray(scale, view.prob.dtype) * -sum(p * jnp.log(p + 1e-10) for p in lanes)

    return from_view(score, StateView, "add_entropy", "track_hmm")


def add_mixed_prob(group: int = GROUP) -> Selector:
    """The probability that a group neither all passes nor all fails (MaPP's score).

    Args:
        group: G rollouts, at least 2.

    Returns:
        a part that needs any tracker before it.

    Raises:
        ValueError: ``group`` is below 2: one rollout always agrees.
    """
    checks.require_counts(least=2, group=group)
    return from_view(lambda view, key, ids: view.mixed(group), wanted_by="add_mixed_prob")


def add_nearness(target=0.5) -> Selector:
    """Minus the distance of the posterior mean from a target rate.

    Args:
        target: the rate wanted; may be traced.

    Returns:
        a part that needs :func:`track_beta` before it.
    """
    checks.require_scalar(0.0, 1.0, target=target)

    def score(view: BetaView, key, ids):
        return -jnp.abs(beta.offset(view.a, view.b, target))

    return from_view(score, BetaView, "add_nearness", "track_beta")


def add_learnability(power=1.0) -> Selector:
    """``(p (1 - p))**power`` at the believed rate p.

    Args:
        power: 1 is LILO's learnability, 1/2 the standard deviation of a rollout.

    Returns:
        a part that needs :func:`track_beta` before it.
    """
    checks.require_finite(power=power)

    def score(view: BetaView, key, ids):
        spread = beta.variance_of_rollout(view.a, view.b)
        return spread ** jnp.asarray(power, spread.dtype)

    return from_view(score, BetaView, "add_learnability", "track_beta")


def add_thompson(target=0.5, band=None) -> Selector:
    """Minus the distance of one draw from each prompt's belief to the target (MoPPS).

    Args:
        target: gamma*; the order is that of the published ``-(draw - target)^2``.
        band: ``(low, high)`` instead of the target: all draws inside tie, those outside rank by
            their distance to it (the "threshold" strategy of the released code).

    Returns:
        a part that needs any tracker before it.

    Raises:
        ValueError: the target is outside [0, 1], or the band is not ``0 <= low <= high <= 1``.
    """
    checks.require_scalar(0.0, 1.0, target=target)
    low, high = (target, target) if band is None else band
    checks.require_range(0.0, 1.0, band=(low, high))
    checks.require(
        jnp.asarray(low) <= jnp.asarray(high), "band={band} must be (low, high)", band=(low, high)
    )

    def score(view: View, key, ids):
        rate = view.sample(key, ids)
        below = jnp.asarray(low, rate.dtype) - rate
        above = rate - jnp.asarray(high, rate.dtype)
        return -jnp.maximum(jnp.maximum(below, above), 0)

    return from_view(score, wanted_by="add_thompson")


def accept_mixed() -> Selector:
    """Veto groups that all passed or all failed (DAPO's dynamic sampling, arXiv 2503.14476).

    Each group is judged by itself: two groups of one prompt, one all right and one all wrong, have
    no variance to learn from.

    Returns:
        a part without memory; trackers still learn from vetoed groups.
    """

    def observe(evidence: Evidence) -> Evidence:
        passes, trials = evidence.row_passes, evidence.row_trials
        return evidence.replace(accept=evidence.accept & (passes > 0) & (passes < trials))

    return stateless(observe=observe)
