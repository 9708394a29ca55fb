"""The closed forms of the beliefs against distrax's Beta and Dirichlet distributions."""

import distrax
import jax.numpy as jnp
import numpy as np

from dpsjax import hmm
from dpsjax.belief import beta

A = jnp.array([0.5, 1.0, 2.0, 7.0, 30.0], jnp.float64)
B = jnp.array([3.0, 1.0, 0.7, 7.0, 2.0], jnp.float64)


def test_moments_of_a_beta_belief():
    law = distrax.Beta(A, B)
    np.testing.assert_allclose(beta.offset(A, B, 0.3), law.mean() - 0.3, rtol=1e-12)
    variance = law.mean() * (1 - law.mean()) - law.variance()
    np.testing.assert_allclose(beta.expected_variance_of_rollout(A, B), variance, rtol=1e-12)


def test_information_is_the_expected_fall_of_the_entropy():
    """InSight's own form: entropy before less the mean entropy after, for groups of one."""
    passed = A / (A + B)
    after = passed * distrax.Beta(A + 1, B).entropy()
    after = after + (1 - passed) * distrax.Beta(A, B + 1).entropy()
    expected = distrax.Beta(A, B).entropy() - after
    np.testing.assert_allclose(beta.information(A, B, 1), expected, rtol=1e-9)


def test_the_transitions_are_the_means_of_dirichlet_columns():
    params = hmm.params(decay=0.8, prior_alpha="progress")
    belief = hmm.init(params, 3)
    for state in (0, 1, 1, 2):
        belief = hmm.update(params, belief, jnp.array([1]), jnp.array([state]))
    alpha = hmm.alpha(params, belief)
    columns = distrax.Dirichlet(jnp.moveaxis(alpha, 0, -1)).mean()  # [from, N, to]
    predicted = jnp.einsum("jni,jn->in", columns, hmm.posterior(params, belief))
    np.testing.assert_allclose(hmm.prior(params, belief), predicted, rtol=1e-12)
