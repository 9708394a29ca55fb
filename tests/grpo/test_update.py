import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dpsjax.grpo import GRPOConfig, LossConfig, make_optimizer, make_update
from tests.grpo.stand_in import (
    B,
    G,
    T,
    assert_identical,
    batch,
    largest_difference,
    log_prob_fn,
    rows,
)
from tests.grpo.stand_in import params as make_params
from tests.oracles import grpo as oracle

GRADIENT = optax.sgd(1.0)  # new = old - gradient
# These programs run for microseconds and take seconds to optimise.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


LOSS = {field.name for field in dataclasses.fields(LossConfig)}


def settings(**changes):
    """Of the update and of its loss, by name."""
    loss = LossConfig(**{name: changes.pop(name) for name in LOSS & set(changes)})
    return GRPOConfig(**{"rollouts_per_prompt": G, "learning_rate": 1e-2, "loss": loss} | changes)


@functools.cache
def compiled(config, optimizer=GRADIENT, function=log_prob_fn):
    """One jitted update for each choice, shared by the tests: compiling is what they cost."""
    update = make_update(config, function, optimizer)
    return jax.jit(update, compiler_options=QUICK)


@functools.cache
def adam(config):
    return make_optimizer(config)


def run(batch_, params=None, *, config=None, optimizer=GRADIENT, reference=None):
    """One jitted update; returns parameters, optimizer state and metrics."""
    params = make_params(jnp.float64) if params is None else params
    update = compiled(config or settings(), optimizer)
    return update(params, optimizer.init(params), batch_, reference)


def gradient(batch_, **options):
    params = make_params(jnp.float64)
    new, _, metrics = run(batch_, params, **options)
    return jax.tree.map(lambda a, b: a - b, params, new), metrics


@pytest.fixture(scope="module")
def whole():
    return batch(jnp.float64)


@pytest.fixture(scope="module")
def plain(whole):
    return gradient(whole)


def test_gradient_matches_finite_differences_of_the_loop(whole):
    """Denominators, weights, masks, KL, entropy and truncation, all through the update."""
    part = whole._replace(
        informative=jnp.arange(B) != 2,
        accept=jnp.arange(B) != 4,
        index=jnp.where(jnp.arange(B) == 6, -1, jnp.arange(B, dtype=jnp.int32)),
        weight=jnp.linspace(0.5, 1.5, B, dtype=jnp.float32),
    )
    config = settings(
        aggregation="sequence-mean", entropy_coefficient=0.01, kl_coefficient=0.05, clip_low=0.05,
        clip_high=0.05, recompute_old=True, sampler_ratio_cap=1.05,
    )  # fmt: skip
    start, reference = make_params(jnp.float64), make_params(jnp.float64, seed=9)
    got, _ = gradient(part, config=config, reference=reference)

    used = np.repeat([i not in (2, 4, 6) for i in range(B)], G)
    flat_mask = np.asarray(part.mask).reshape(-1, T)
    weights = oracle.token_weights(flat_mask, used, "sequence_mean")
    weights = weights * (np.repeat(np.asarray(part.weight), G) * used)[:, None]

    def evaluate(params):
        outputs = log_prob_fn(params, *part[1:5])
        return [np.asarray(x).reshape(-1, T) for x in outputs]

    old, ref = evaluate(start)[0], evaluate(reference)[0]
    leaf = start["mlp"]["kernel"]

    def loss(kernel):
        new, entropy = evaluate(start | {"mlp": start["mlp"] | {"kernel": jnp.asarray(kernel)}})
        return oracle.loss(
            new, old, np.asarray(part.log_probs).reshape(-1, T), np.ravel(part.advantages),
            flat_mask, weights, entropy=entropy, reference=ref, clip_low=0.05, clip_high=0.05,
            entropy_coefficient=0.01, kl_coefficient=0.05, cap=1.05,
        )  # fmt: skip

    want = oracle.gradient(loss, leaf)
    np.testing.assert_allclose(got["mlp"]["kernel"], want, atol=1e-7)  # weights are float32
    assert np.abs(want).max() > 1e-2


@pytest.mark.parametrize("micro", [2, G, 2 * G])
def test_micro_batches_change_nothing(whole, plain, micro):
    got, metrics = gradient(whole, config=settings(micro_batch=micro))
    assert largest_difference(got, plain[0]) < 1e-12
    chex.assert_trees_all_close(metrics, plain[1], rtol=1e-5)


@pytest.mark.parametrize("field", ["index", "accept", "informative", "weight"])
def test_rows_outside_the_loss_contribute_nothing(whole, field):
    """Half the rows are out, and hold garbage: as if they had never been in the batch."""
    out = jnp.arange(B) % 2 == 1
    value = {"index": jnp.int32(-1), "weight": jnp.float32(0)}.get(field, False)
    dirty = whole._replace(**{field: jnp.where(out, value, getattr(whole, field))})
    spoil = out[:, None]
    dirty = dirty._replace(
        advantages=jnp.where(spoil, jnp.nan, dirty.advantages),
        log_probs=jnp.where(spoil[..., None], jnp.nan, dirty.log_probs)
        if field == "index"
        else dirty.log_probs,
    )
    got, metrics = gradient(dirty)
    want, clean = gradient(rows(whole, np.arange(0, B, 2)))
    assert largest_difference(got, want) < 1e-13
    np.testing.assert_allclose(metrics.loss, clean.loss, rtol=1e-6)
    assert metrics.groups == clean.groups == B // 2
    assert metrics.policy.trained_tokens == clean.policy.trained_tokens
    covers_all = field != "index"
    assert (metrics.policy.tokens > clean.policy.tokens) == covers_all


def test_uninformative_groups_can_stay_in_the_denominator(whole):
    part = whole._replace(informative=jnp.arange(B) < 5, accept=jnp.arange(B) != 0)
    without, _ = gradient(part)
    within, _ = gradient(part, config=settings(count_uninformative=True))
    kept = float(jnp.sum(part.mask[1:5])) / float(jnp.sum(part.mask))
    # token_weights are float32
    assert largest_difference(jax.tree.map(lambda x: x * kept, without), within) < 1e-6


@pytest.mark.parametrize("recompute", [False, True])
def test_mini_batches_and_epochs_are_successive_steps(whole, recompute):
    config = settings(
        mini_batch=2, epochs=2, micro_batch=G, learning_rate=0.1, recompute_old=recompute
    )
    optimizer = adam(config)
    got = run(whole, config=config, optimizer=optimizer)

    params = make_params(jnp.float64)
    state = optimizer.init(params)
    if recompute:
        exact, _ = log_prob_fn(params, *whole[1:5])
        fixed = whole._replace(log_probs=exact)
    else:
        fixed = whole
    step = compiled(settings(learning_rate=0.1), optimizer)
    losses = []
    for _ in range(2):
        for first in range(B // 2):
            part = rows(fixed, [first, first + B // 2])
            params, state, metrics = step(params, state, part, None)
            losses.append(float(metrics.loss))
    assert largest_difference(got[0], params) < 1e-12
    assert got[2].steps == len(losses) == 8
    np.testing.assert_allclose(got[2].loss, np.mean(losses), rtol=1e-5, atol=1e-7)
    assert largest_difference(got[0], make_params(jnp.float64)) > 0.05


def test_a_single_step_recomputes_old_probabilities_in_its_own_pass(whole):
    """One step: old equals new, so the ratio is 1 whatever the sampler recorded."""
    evaluations = []

    def counted(*arguments):
        evaluations.append(1)
        return log_prob_fn(*arguments)

    update = make_update(settings(recompute_old=True), counted, GRADIENT)
    params = make_params(jnp.float64)
    quick = jax.jit(update, compiler_options=QUICK)
    _, _, metrics = quick(params, GRADIENT.init(params), whole, None)
    assert len(evaluations) == 1
    np.testing.assert_allclose(metrics.policy.ratio, 1, rtol=1e-6)
    exact, _ = log_prob_fn(params, *whole[1:5])
    gap = np.abs(exact - whole.log_probs)[whole.mask]
    np.testing.assert_allclose(metrics.policy.mismatch, gap.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics.policy.mismatch_max, gap.max(), rtol=1e-5)


def test_truncation_scales_down_what_the_sampler_under_reported(whole):
    exact, _ = log_prob_fn(make_params(jnp.float64), *whole[1:5])
    config = settings(entropy_coefficient=0.0, recompute_old=True)
    doubled = whole._replace(log_probs=exact - jnp.log(2.0))  # old / sampler = 2 everywhere
    free, _ = gradient(doubled, config=config)
    for cap, factor in ((1.5, 1.5), (4.0, 2.0)):
        config = settings(entropy_coefficient=0.0, recompute_old=True, sampler_ratio_cap=cap)
        got, metrics = gradient(doubled, config=config)
        assert largest_difference(got, jax.tree.map(lambda x, f=factor: x * f, free)) < 1e-12
        np.testing.assert_allclose(metrics.policy.sampler_weight, factor, rtol=1e-6)


def test_kl_pulls_towards_the_reference(whole):
    quiet = whole._replace(advantages=jnp.zeros((B, G)))
    config = settings(kl_coefficient=1.0, entropy_coefficient=0.0)
    params, reference = make_params(jnp.float64), make_params(jnp.float64, seed=9)
    got, metrics = gradient(quiet, config=config, reference=reference)
    assert metrics.policy.kl > 0.01 and largest_difference(got, jax.tree.map(jnp.zeros_like, got))
    same, still = gradient(quiet, config=config, reference=params)
    assert still.policy.kl < 1e-7
    assert largest_difference(same, jax.tree.map(jnp.zeros_like, same)) < 1e-12
    config = settings(kl_coefficient=1.0, entropy_coefficient=0.0, kl_estimator="k1")
    moved, _ = gradient(quiet, config=config, reference=params)
    assert largest_difference(moved, same) > 1e-3  # k1's gradient is the score, not 0


def test_repeated_updates_raise_what_had_a_positive_advantage():
    part = batch(noise=0.0)
    config = settings(learning_rate=0.02, mini_batch=4)
    optimizer = make_optimizer(config)
    params = make_params()
    state = optimizer.init(params)
    update = compiled(config, optimizer)

    def gain(params):
        log_probs, _ = log_prob_fn(params, *part[1:5])
        return float(jnp.sum(jnp.where(part.mask, log_probs, 0) * part.advantages[..., None]))

    before = gain(params)
    for _ in range(5):
        params, state, _ = update(params, state, part, None)
    assert gain(params) > before + 1


def test_one_trace_for_any_number_of_updates(whole):
    config = settings(mini_batch=4, micro_batch=G, epochs=2)
    optimizer = make_optimizer(config)
    update = jax.jit(chex.assert_max_traces(make_update(config, log_prob_fn, optimizer), n=1))
    params = make_params(jnp.float64)
    state = optimizer.init(params)
    for _ in range(3):
        params, state, _ = update(params, state, whole, None)
    assert update._cache_size() == 1
    chex.assert_trees_all_equal_shapes_and_dtypes(params, make_params(jnp.float64))


def test_low_precision_parameters_keep_their_dtype():
    config = settings(micro_batch=G)
    params = make_params(jnp.bfloat16)
    optimizer = make_optimizer(config)

    def wide(params, *arguments):
        outputs = log_prob_fn(params, *arguments)
        return jax.tree.map(lambda x: x.astype(jnp.float32), outputs)

    update = compiled(config, optimizer, wide)
    new, state, metrics = update(params, optimizer.init(params), batch(), None)
    chex.assert_trees_all_equal_shapes_and_dtypes(new, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, optimizer.init(params))
    assert largest_difference(new, params) > 0 and metrics.skipped_nonfinite == 0


class TestSkippedSteps:
    config = settings(mini_batch=4, weight_decay=0.1)
    optimizer = adam(config)

    def warm(self, whole):
        """Parameters and an optimizer state with momentum."""
        return run(whole, config=self.config, optimizer=self.optimizer)[:2]

    def apply(self, params, state, part, function=log_prob_fn):
        update = compiled(self.config, self.optimizer, function)
        return update(params, state, part, None)

    def test_nothing_informative_changes_nothing(self, whole):
        params, state = self.warm(whole)
        part = whole._replace(informative=jnp.zeros(B, bool))
        *got, metrics = self.apply(params, state, part)
        assert_identical(tuple(got), (params, state))
        assert (metrics.skipped_empty, metrics.skipped_nonfinite, metrics.steps) == (2, 0, 2)

    @pytest.mark.parametrize("poison", [jnp.nan, jnp.inf])
    def test_a_poisoned_step_alone_is_skipped(self, whole, poison):
        params, state = self.warm(whole)
        # Mini-batches take every second row: row 0 spoils the first, row 1 would the second.
        bad = whole._replace(advantages=whole.advantages.at[0, 0].set(poison))
        *got, metrics = self.apply(params, state, bad)
        assert (metrics.skipped_nonfinite, metrics.skipped_empty) == (1, 0)
        only = compiled(settings(), self.optimizer)
        want = only(params, state, rows(whole, np.arange(1, B, 2)), None)
        assert largest_difference(got[0], want[0]) < 1e-12
        worse = bad._replace(advantages=bad.advantages.at[1, 1].set(poison))
        *got, metrics = self.apply(params, state, worse)
        assert_identical(tuple(got), (params, state))
        assert metrics.skipped_nonfinite == 2

    def test_a_gradient_that_is_not_finite_is_caught_behind_a_finite_loss(self, whole):
        params, state = self.warm(whole)

        def broken(params, *arguments):
            log_probs, entropy = log_prob_fn(params, *arguments)
            zero = jnp.sum(params["mlp"]["bias"]) * 0
            return log_probs + jnp.sqrt(jnp.abs(zero)), entropy  # value 0, gradient 0 * inf

        *got, metrics = self.apply(params, state, whole, broken)
        assert_identical(tuple(got), (params, state))
        assert jnp.isfinite(metrics.loss) and not jnp.isfinite(metrics.grad_norm)
        assert metrics.skipped_nonfinite == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rollouts_per_prompt": 8}, r"the batch has 4 rollouts .*rollouts_per_prompt=8"),
        ({"mini_batch": 3}, r"mini_batch=3 takes 3 of the batch's 8 prompts on 1 devices"),
        ({"micro_batch": 12}, r"micro_batch=12 sequences does not divide"),
        ({"kl_coefficient": 0.1}, r"kl_coefficient=0\.1 needs reference_params"),
    ],
)
def test_what_does_not_fit_is_refused(whole, changes, message):
    with pytest.raises(ValueError, match=message):
        run(whole, config=settings(**changes))


def test_functions_of_ones_own_are_as_good_as_names(whole):
    """A mean over all tokens, spelled out, and k1 by another name."""

    def mean(mask, counted):
        kept = mask.astype(jnp.float32)
        return kept / jnp.sum(jnp.where(counted[:, None], kept, 0))

    reference = make_params(jnp.float64, seed=9)
    own = settings(kl_coefficient=0.1, aggregation=mean, kl_estimator=lambda p, q: p - q)
    named = settings(kl_coefficient=0.1, kl_estimator="k1")
    got, _ = gradient(whole, config=own, reference=reference)
    want, _ = gradient(whole, config=named, reference=reference)
    assert largest_difference(got, want) < 1e-12


def test_an_aggregation_of_another_shape_is_refused(whole):
    with pytest.raises(AssertionError, match="shape"):
        run(whole, config=settings(aggregation=lambda mask, counted: jnp.ones(mask.shape[0])))
