"""Beliefs as distributions of distrax, against closed forms and sums over all paths."""

import itertools
import sys

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpsjax import hmm, selectors
from dpsjax.belief import beta, distributions
from dpsjax.belief.beta import BetaView

A = jnp.array([0.5, 1.0, 2.0, 7.0, 30.0], jnp.float64)
B = jnp.array([3.0, 1.0, 0.7, 7.0, 2.0], jnp.float64)
LAW = distributions.rate(BetaView(A, B))


@pytest.fixture(autouse=True)
def as_distrax_does():
    """Its own sums mix types and ranks."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def played(decay=0.8, prior="progress"):
    """A filter of three prompts; the second one was seen."""
    params = hmm.params(decay=decay, prior_alpha=prior)
    belief = hmm.init(params, 3)
    for state in (0, 1, 1, 2):
        belief = hmm.update(params, belief, jnp.array([1]), jnp.array([state]))
    return params, belief


def test_moments_of_a_beta_belief():
    np.testing.assert_allclose(BetaView(A, B).rate(), LAW.mean(), rtol=1e-12)
    np.testing.assert_allclose(beta.offset(A, B, 0.3), LAW.mean() - 0.3, rtol=1e-12)
    variance = LAW.mean() * (1 - LAW.mean()) - LAW.variance()
    np.testing.assert_allclose(beta.expected_variance_of_rollout(A, B), variance, rtol=1e-12)


def test_information_is_the_expected_fall_of_the_entropy():
    """InSight's own form: entropy before less the mean entropy after, for groups of one."""
    passed = A / (A + B)
    after = passed * distributions.rate(BetaView(A + 1, B)).entropy()
    after = after + (1 - passed) * distributions.rate(BetaView(A, B + 1)).entropy()
    np.testing.assert_allclose(beta.information(A, B, 1), LAW.entropy() - after, rtol=1e-9)


def test_information_is_the_expected_divergence():
    """The same number again: how far a rollout moves the belief, in nats."""
    ups, downs = BetaView(A + 1, B), BetaView(A, B + 1)
    moved = [distributions.rate(view).kl_divergence(LAW) for view in (ups, downs)]
    expected = LAW.mean() * moved[0] + (1 - LAW.mean()) * moved[1]
    np.testing.assert_allclose(beta.information(A, B, 1), expected, rtol=1e-9)


def test_the_transitions_are_the_means_of_dirichlet_columns():
    params, belief = played()
    law = distributions.transitions(params, belief)
    assert law.batch_shape == (3, 3) and law.event_shape == (3,)
    predicted = jnp.einsum("nji,jn->in", law.mean(), hmm.posterior(params, belief))
    np.testing.assert_allclose(hmm.prior(params, belief), predicted, rtol=1e-12)


def test_states_have_the_entropy_that_is_scored():
    params, belief = played()
    law = distributions.states(params, belief)
    np.testing.assert_allclose(law.probs, hmm.prior(params, belief).T, rtol=1e-15)
    selector = selectors.chain(selectors.track_hmm(0.8, "progress"), selectors.add_entropy(1.0))
    state = selector.init(3)._replace(parts=(belief, ()))
    proposal = selectors.Proposal(jnp.zeros(3), jnp.ones(3, bool))
    score = selector.propose(jax.random.key(0), proposal, state)[0].score
    np.testing.assert_allclose(score, law.entropy(), rtol=1e-8)


def test_outcomes_are_categories():
    law = distributions.outcome(BetaView(A, B), 4)
    assert law.batch_shape == (5,) and law.num_categories == 3
    np.testing.assert_allclose(law.probs[:, 1], beta.informative_prob(A, B, 4), rtol=1e-12)


@pytest.mark.parametrize("prior", ["progress", "local"])
def test_unseen_steps_of_the_chain_are_those_of_the_filter(prior):
    """Without forgetting, transitions stay, and distrax's filter predicts what ours does."""
    params, belief = played(1.0, prior)
    model = distributions.chain(params, belief, 1)
    ahead = model.forward(jnp.full(5, 3))[1]
    nothing = jnp.zeros(0, jnp.int32)
    for row in ahead:
        np.testing.assert_allclose(hmm.prior(params, belief)[:, 1], row, rtol=1e-12, atol=1e-15)
        belief = hmm.update(params, belief, nothing, nothing)


def test_smoothing_is_a_sum_over_all_paths():
    params, belief = played()
    seen = [3, 0, 3, 2, 3]
    model = distributions.chain(params, belief, 1, initial=params.pi)
    smoothed = model.forward_backward(jnp.array(seen))[2]
    counts = np.asarray(hmm.alpha(params, belief))[:, :, 1]
    moves, start = counts / counts.sum(axis=0), np.asarray(params.pi)
    truth = np.zeros((5, 3))
    for path in itertools.product(range(3), repeat=5):
        if all(symbol in (3, state) for symbol, state in zip(seen, path, strict=True)):
            steps = [moves[to, source] for source, to in itertools.pairwise(path)]
            truth[range(5), path] += start[path[0]] * np.prod(steps)
    np.testing.assert_allclose(smoothed, truth / truth.sum(axis=1, keepdims=True), rtol=1e-9)


def test_a_row_that_is_none():
    params, belief = played()
    for row in (3, -1):
        with pytest.raises(ValueError, match=f"row={row} must be"):
            distributions.chain(params, belief, row)


def test_without_distrax_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distrax", None)
    with pytest.raises(ImportError, match=r"pip install -e '.\[distrax\]'"):
        distributions.rate(BetaView(A, B))


def test_the_objects_are_those_of_distrax():
    params, belief = played()
    assert isinstance(LAW, distrax.Beta)
    assert isinstance(distributions.states(params, belief), distrax.Categorical)
    assert isinstance(distributions.transitions(params, belief), distrax.Dirichlet)
    assert isinstance(distributions.chain(params, belief, 0), distrax.HMM)
