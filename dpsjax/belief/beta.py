"""A Beta belief about each prompt's solve probability, with forgetting.

Every prompt has pseudo-counts ``(a, b)``. A step in which it is rolled out ``trials`` times with
``passes`` successes does ``a <- decay a + (1 - decay) a0 + passes`` and likewise for ``b`` with
the failures (MoPPS, arXiv 2507.04632, section 4). MoPPS forgets only when a prompt is seen; with
``forget_unseen`` the counts also fade towards the prior while it is not. Both are kept as the
excess over the prior at the last visit, so a step writes the observed rows alone.

The functions of ``(a, b)`` below are written so that exchanging ``a`` and ``b`` gives the same
bits wherever it gives the same number: prompts at p and 1 - p then tie, as they should.
"""

import dataclasses
import functools
import math
import operator
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dpsjax import checks
from dpsjax.belief import noise, rows
from dpsjax.belief.filter import View, clear_of
from dpsjax.types import Array, Bool, Float, Int, Key


class Params(NamedTuple):
    """Hyperparameters: a pytree of arrays, so that a sweep is a ``vmap``."""

    prior: Float[Array, "2"]  # a0, b0
    decay: Float[Array, ""]  # 1 never forgets, 0 keeps the last group alone
    forget_unseen: Bool[Array, ""]  # whether counts also fade while a prompt is not seen


class Belief(NamedTuple):
    """What is believed of N prompts. Donate it to a jitted update: it is updated in place."""

    excess: Float[Array, "2 N"]  # counts above the prior when the prompt was last seen
    last: Int[Array, "N"]  # step after which the prompt was last seen
    step: Int[Array, ""]  # finished steps


def params(decay=1.0, prior=(1.0, 1.0), forget_unseen=False) -> Params:
    """Build the hyperparameters; each may be traced.

    Args:
        decay: in [0, 1].
        prior: pseudo-counts ``(a0, b0)``, positive.
        forget_unseen: False follows MoPPS.

    Returns:
        the parameters, in the default float type.

    Raises:
        ValueError: for a decay outside [0, 1] or a prior that is not two positive numbers.
    """
    checks.require_finite(decay=decay, prior=prior, forget_unseen=forget_unseen)
    dtype = jnp.result_type(float)
    prior, decay = jnp.asarray(prior, dtype), jnp.asarray(decay, dtype)
    if prior.shape != (2,):
        raise ValueError(f"prior must be two numbers (a0, b0), got shape {prior.shape}")
    if decay.ndim != 0:
        raise ValueError(f"decay must be a number, got shape {decay.shape}: vmap over it")
    checks.require(
        (decay >= 0) & (decay <= 1), "decay must lie in [0, 1], got {decay}", decay=decay
    )
    checks.require(
        jnp.isfinite(prior) & (prior > 0), "prior must be positive, got {prior}", prior=prior
    )
    return Params(prior, decay, jnp.asarray(forget_unseen, bool))


def init(params: Params, num_prompts: int) -> Belief:
    """Every prompt at the prior; a ValueError or TypeError where there is none."""
    checks.require_type(Params, "of dpsjax.belief.beta.params", params=params)
    checks.require_counts(num_prompts=num_prompts)
    return Belief(
        excess=jnp.zeros((2, num_prompts), params.prior.dtype),
        last=jnp.zeros(num_prompts, jnp.int32),
        step=jnp.zeros((), jnp.int32),
    )


def _retained(params, age):
    """decay**age with 0**0 = 1 if unseen prompts forget; else 1."""
    kept = jnp.exp(age.astype(params.decay.dtype) * jnp.log(params.decay))
    return jnp.where((age <= 0) | ~params.forget_unseen, jnp.ones_like(kept), kept)


def counts(params: Params, belief: Belief) -> tuple[Float[Array, "N"], Float[Array, "N"]]:
    """The pseudo-counts ``(a, b)`` now."""
    kept = _retained(params, belief.step - belief.last)
    return params.prior[0] + kept * belief.excess[0], params.prior[1] + kept * belief.excess[1]


def observe(
    params: Params,
    belief: Belief,
    index: Int[Array, "B"],
    passes: Int[Array, "B"],
    trials: Int[Array, "B"],
) -> Belief:
    """What was seen in this step; a prompt seen twice in a step forgets once.

    Args:
        params: the hyperparameters.
        belief: N prompts; donate it under ``jit``.
        index: distinct rows; -1 is padding.
        passes: successes, 0..trials; rows may have different numbers of trials.
        trials: rollouts; 0 means not seen.

    Returns:
        the belief.
    """
    num_prompts, dtype = belief.last.shape[0], belief.excess.dtype
    index = clear_of(index, trials)
    source, target = rows.gather_index(index), rows.scatter_index(index, num_prompts)
    age = belief.step - belief.last[source]
    kept = jnp.where(age < 0, 1, params.decay * _retained(params, age))
    seen = jnp.stack([passes, trials - passes]).astype(dtype)
    renewed = kept[None] * belief.excess[:, source] + seen
    # Writes depend on reads, so that a donated belief is rewritten in place; a formal choice.
    now = jnp.where(renewed[0] >= 0, belief.step + 1, belief.step)
    return Belief(
        excess=belief.excess.at[:, target].set(renewed, mode="drop"),
        last=belief.last.at[target].set(now, mode="drop"),
        step=belief.step,
    )


def advance(belief: Belief) -> Belief:
    """The passing of a step."""
    return belief._replace(step=belief.step + 1)


@dataclasses.dataclass(frozen=True)
class BetaView(View):
    """What a Beta belief says: pseudo-counts of success and failure."""

    a: Float[Array, "N"]
    b: Float[Array, "N"]

    def rate(self) -> Float[Array, "N"]:
        """The posterior mean."""
        return self.a / (self.a + self.b)

    def outcome(self, group: int) -> Float[Array, "3 N"]:
        """The beta-binomial chances."""

        def run(count):
            return _product((count + i) / (self.a + self.b + i) for i in range(group))

        return jnp.stack([run(self.b), informative_prob(self.a, self.b, group), run(self.a)])

    def sample(self, key: Key, ids: Int[Array, "N"]) -> Float[Array, "N"]:
        """A Beta number."""
        return noise.row_beta(key, ids, self.a, self.b)


def offset(a: Float[Array, "..."], b: Float[Array, "..."], target) -> Float[Array, "..."]:
    """Posterior mean minus target, antisymmetric to the last bit for target 1/2."""
    target = jnp.asarray(target, a.dtype)
    return ((1 - target) * a - target * b) / (a + b)


def variance_of_rollout(a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, "..."]:
    """P (1 - p) at the posterior mean p."""
    total = a + b
    return (a * b) / (total * total)


def expected_variance_of_rollout(
    a: Float[Array, "..."], b: Float[Array, "..."]
) -> Float[Array, "..."]:
    """E[p (1 - p)] under Beta(a, b)."""
    total = a + b
    return (a * b) / (total * (total + 1))


def _rounded(value):
    """Keep a product from being fused into the sum that follows.

    A fused multiply-add rounds once, so ``x y + u v`` would depend on which product is fused, and
    prompts at p and 1 - p would no longer tie.
    """
    largest = jnp.asarray(jnp.finfo(value.dtype).max, value.dtype)
    return jnp.clip(value, -largest, largest)


def _product(factors):
    return functools.reduce(operator.mul, factors)


def informative_prob(
    a: Float[Array, "..."], b: Float[Array, "..."], group: int
) -> Float[Array, "..."]:
    """Probability that a group neither all passes nor all fails, under Beta(a, b).

    ``1 - B(a+G, b)/B(a, b) - B(a, b+G)/B(a, b)`` (MaPP, its posterior-predictive
    informativeness), as products of G ratios: no Beta function is needed.

    Args:
        a: pseudo-counts of success.
        b: pseudo-counts of failure.
        group: G rollouts, at least 1.

    Returns:
        probabilities; 0 for a group of 1.
    """
    scale = [1 / (a + b + i) for i in range(group)]
    every = _product((a + i) * scale[i] for i in range(group))
    none = _product((b + i) * scale[i] for i in range(group))
    return jnp.maximum(1 - (_rounded(every) + _rounded(none)), 0)


def information(a: Float[Array, "..."], b: Float[Array, "..."], group: int) -> Float[Array, "..."]:
    """Mutual information, in nats, between a group's outcomes and the solve probability.

    ``I = H(Beta(a,b)) - sum_s BetaBin(s) H(Beta(a+s, b+G-s))`` (InSight, arXiv 2603.01907),
    evaluated as ``H(outcomes) - G E[h(p)]``: the same number (information is symmetric) from three
    digammas instead of 3 (G + 2), and without differences of large entropies.

    Args:
        a: pseudo-counts of success.
        b: pseudo-counts of failure.
        group: G rollouts.

    Returns:
        non-negative numbers.
    """
    total = a + b
    scale = 1 / (total + group)  # keeps the products near 1
    rising = [jnp.ones_like(a)], [jnp.ones_like(a)]
    for lane, count in zip(rising, (a, b), strict=True):
        for i in range(group):
            lane.append(lane[-1] * ((count + i) * scale))
    norm = 1 / _product((total + i) * scale for i in range(group))

    def surprise(successes):
        chance = rising[0][successes] * rising[1][group - successes] * norm
        floor = jnp.asarray(jnp.finfo(a.dtype).tiny, a.dtype)
        return _rounded(-math.comb(group, successes) * chance * jnp.log(jnp.maximum(chance, floor)))

    outcomes = sum(surprise(s) + surprise(group - s) for s in range((group + 1) // 2))
    if group % 2 == 0:
        outcomes = outcomes + surprise(group // 2)
    digamma = jax.scipy.special.digamma
    given = _rounded(a * digamma(a + 1)) + _rounded(b * digamma(b + 1))
    given = digamma(total + 1) - given / total
    return jnp.maximum(outcomes - group * given, 0)


def denoised_advantages(
    rewards: Float[Array, "B G"],
    valid: Bool[Array, "B G"],
    a: Float[Array, "B"],
    b: Float[Array, "B"],
) -> Float[Array, "B G"]:
    """MaPP's denoised advantage: GRPO's, averaged over what the other rollouts might have been.

    With n valid rollouts and the counts ``a', b'`` that leave rollout j out, a pass gets
    ``+sum_{S=1}^{n-1} BB(S-1; n-1, a', b') sqrt((n-S)/S)`` and a failure
    ``-sum_{S=1}^{n-1} BB(S; n-1, a', b') sqrt(S/(n-S))``, BB the beta-binomial mass: the mean of
    the group-normalised advantage under the belief, no standard deviation of the group at hand.

    Args:
        rewards: 1 where a rollout passed, else 0.
        valid: which rollouts exist.
        a: counts *after* this step's update, which include these rollouts.
        b: the same of the failures.

    Returns:
        advantages in the dtype of ``rewards``, 0 where invalid. Unlike GRPO's they are not 0 in
        groups that all passed or all failed: do not mask those.
    """
    size, dtype = rewards.shape[1], rewards.dtype
    passed = jnp.where(valid, rewards, 0) > 0.5
    count = valid.sum(axis=1, dtype=jnp.int32).astype(dtype)[:, None]
    hit = passed.astype(dtype)
    tiny = jnp.asarray(1e-6, dtype)  # decay 0 and prior 0 would leave nothing
    others_a = jnp.maximum(a.astype(dtype)[:, None] - hit, tiny)
    others_b = jnp.maximum(b.astype(dtype)[:, None] - (1 - hit), tiny)
    lgamma = jax.scipy.special.gammaln

    def rising(base, number):
        return lgamma(base + number) - lgamma(base)

    def mass(successes):
        rest = jnp.maximum(count - 1 - successes, 0)
        choose = lgamma(count) - lgamma(successes + 1) - lgamma(rest + 1)
        seen = rising(others_a, successes) + rising(others_b, rest)
        return jnp.exp(choose + seen - rising(others_a + others_b, count - 1))

    total = jnp.zeros(rewards.shape, dtype)
    for successes in range(1, size):
        s = jnp.asarray(successes, dtype)
        left = jnp.maximum(count - s, 0)
        odds = jnp.sqrt(left / s)
        up = mass(s - 1) * odds
        down = -mass(s) / jnp.where(odds > 0, odds, jnp.ones_like(odds))
        total = total + jnp.where(s < count, jnp.where(passed, up, down), 0)
    return jnp.where(valid, total, 0)
