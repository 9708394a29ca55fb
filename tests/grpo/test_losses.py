import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpsjax.grpo import LossConfig
from dpsjax.grpo.aggregation import constant_length, sequence_mean, token_mean
from dpsjax.grpo.losses import average, merge, policy_loss
from tests.oracles import grpo as oracle

S, T = 10, 5
AGGREGATIONS = {
    "token_mean": token_mean,
    "sequence_mean": sequence_mean,
    "constant_length": constant_length,
}
# What the test changes from "clip only"; the oracle takes the same keywords but for the names
# translated in `to_oracle`.
SETTINGS = {
    "paper": {"entropy_coefficient": 0.001},
    "no dual clip": {"dual_clip": None, "entropy_coefficient": 0.0},
    "tight dual clip": {"dual_clip": 1.4, "entropy_coefficient": 0.0},
    "k3": {"kl_coefficient": 0.03, "entropy_coefficient": 0.01},
    "k1": {"kl_coefficient": 0.3, "kl_estimator": "k1", "entropy_coefficient": 0.0},
    "truncated": {
        "sampler_ratio_cap": 1.1,
        "recompute_old": True,
        "clip_low": 0.1,
        "clip_high": 0.1,
    },
}


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(6)
    old = -rng.exponential(1.0, (S, T))
    mask = np.arange(T) < rng.integers(1, T + 1, (S, 1))
    mask[4] = False
    counted = rng.random(S) < 0.7
    counted[[0, 4]] = True
    values = {
        "new": old + rng.normal(0, 0.7, (S, T)),  # ratios from about 0.2 to 5: every clip acts
        "old": old,
        "sampler": old + rng.normal(0, 0.3, (S, T)),
        "reference": old + rng.normal(0, 0.5, (S, T)),
        "entropy": rng.exponential(1.0, (S, T)),
        "advantage": rng.normal(0, 1, S),
    }
    return values, mask, counted


def call(values, mask, weights, settings, dtype=jnp.float64):
    v = {name: jnp.asarray(x, dtype) for name, x in values.items()}
    return policy_loss(
        v["new"],
        v["entropy"],
        v["old"],
        v["sampler"],
        v["advantage"],
        jnp.asarray(mask),
        jnp.asarray(weights, dtype),
        LossConfig(**settings),
        v["reference"],
    )


def to_oracle(settings):
    translated = {"entropy_coefficient": 0.001} | settings
    translated["kl_kind"] = translated.pop("kl_estimator", "k3")
    translated["cap"] = translated.pop("sampler_ratio_cap", None)
    translated.pop("recompute_old", None)
    return translated


def expected_loss(values, mask, weights, settings, new=None, entropy=None):
    return oracle.loss(
        values["new"] if new is None else new,
        values["old"],
        values["sampler"],
        values["advantage"],
        mask,
        weights,
        entropy=values["entropy"] if entropy is None else entropy,
        reference=values["reference"],
        **to_oracle(settings),
    )


@pytest.mark.parametrize("kind", AGGREGATIONS)
@pytest.mark.parametrize("keep_denominator", [True, False])
def test_aggregation_matches_the_loop(case, kind, keep_denominator):
    _, mask, counted = case
    counted = np.ones(S, bool) if keep_denominator else counted
    got = AGGREGATIONS[kind](jnp.asarray(mask), jnp.asarray(counted))
    np.testing.assert_allclose(got, oracle.token_weights(mask, counted, kind), atol=1e-7)
    assert not np.any(np.asarray(got)[~mask])


@pytest.mark.parametrize("kind", AGGREGATIONS)
def test_aggregation_of_nothing_is_finite(kind):
    empty = jnp.zeros((3, 4), bool)
    assert not np.any(AGGREGATIONS[kind](empty, jnp.zeros(3, bool)))
    full = AGGREGATIONS[kind](~empty, jnp.zeros(3, bool))
    assert np.all(np.isfinite(full))


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-6), (jnp.float64, 1e-12)])
def test_value_matches_the_loop(case, name, dtype, tolerance):
    values, mask, counted = case
    weights = oracle.token_weights(mask, counted, "token_mean")
    got, _ = call(values, mask, weights, SETTINGS[name], dtype)
    assert got.dtype == dtype
    want = expected_loss(values, mask, weights, SETTINGS[name])
    assert abs(float(got) - want) < tolerance * max(1.0, abs(want))


@pytest.mark.parametrize("name", SETTINGS)
def test_gradients_match_finite_differences(case, name):
    values, mask, counted = case
    weights = oracle.token_weights(mask, counted, "sequence_mean")

    def loss(new, entropy):
        changed = values | {"new": new, "entropy": entropy}
        return call(changed, mask, weights, SETTINGS[name])[0]

    got = jax.grad(loss, argnums=(0, 1))(jnp.asarray(values["new"]), jnp.asarray(values["entropy"]))
    for index, argument in enumerate(("new", "entropy")):
        want = oracle.gradient(
            lambda x, argument=argument: expected_loss(
                values, mask, weights, SETTINGS[name], **{argument: x}
            ),
            values[argument],
        )
        np.testing.assert_allclose(got[index], want, atol=1e-8)
    assert np.abs(got[0]).max() > 1e-3


def test_no_gradient_reaches_the_old_or_sampler_probabilities(case):
    values, mask, counted = case
    weights = oracle.token_weights(mask, counted, "token_mean")

    def loss(old, sampler):
        return call(values | {"old": old, "sampler": sampler}, mask, weights, SETTINGS["paper"])[0]

    grads = jax.grad(loss, argnums=(0, 1))(
        jnp.asarray(values["old"]), jnp.asarray(values["sampler"])
    )
    assert not any(np.any(g) for g in grads)


def test_garbage_outside_the_mask_changes_nothing(case):
    values, mask, counted = case
    weights = oracle.token_weights(mask, counted, "token_mean")
    setting = SETTINGS["k3"] | {"sampler_ratio_cap": 2.0, "recompute_old": True}

    def both(changed):
        def loss(new):
            return call(changed | {"new": new}, mask, weights, setting)

        (value, metrics), grad = jax.value_and_grad(loss, has_aux=True)(jnp.asarray(changed["new"]))
        return value, metrics, grad

    clean = both(values)
    for garbage in (np.nan, np.inf, -np.inf, 1e30):
        dirty = {
            name: x if x.ndim == 1 else np.where(mask, x, garbage) for name, x in values.items()
        }
        for a, b in zip(jax.tree.leaves(clean), jax.tree.leaves(both(dirty)), strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_masked_sequence_contributes_nothing_whatever_it_holds(case):
    values, mask, counted = case
    weights = oracle.token_weights(mask, counted, "token_mean")
    weights[2] = 0
    advantage = values["advantage"].copy()
    advantage[2] = np.nan

    def value_and_grad(advantage):
        def loss(new):
            changed = values | {"new": new, "advantage": advantage}
            return call(changed, mask, weights, SETTINGS["k3"])[0]

        return jax.value_and_grad(loss)(jnp.asarray(values["new"]))

    clean, dirty = value_and_grad(values["advantage"]), value_and_grad(advantage)
    assert np.isfinite(clean[0]) and clean[0] == dirty[0]
    np.testing.assert_array_equal(clean[1], dirty[1])


@pytest.mark.parametrize("kind", AGGREGATIONS)
def test_micro_batches_add_up_to_the_whole(case, kind):
    values, mask, counted = case
    weights = np.asarray(AGGREGATIONS[kind](jnp.asarray(mask), jnp.asarray(counted)), np.float64)
    whole, metrics = call(values, mask, weights, SETTINGS["k3"])
    parts = [
        call({n: x[rows] for n, x in values.items()}, mask[rows], weights[rows], SETTINGS["k3"])
        for rows in (slice(0, 5), slice(5, 10))
    ]
    np.testing.assert_allclose(sum(p[0] for p in parts), whole, rtol=1e-12)
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *[p[1] for p in parts])
    for a, b in zip(merge(stacked), metrics, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_metrics_match_a_count(case):
    values, mask, counted = case
    weights = oracle.token_weights(mask, counted, "token_mean") * counted[:, None]
    truncated = {"sampler_ratio_cap": 1.1, "recompute_old": True}
    _, sums = call(values, mask, weights, SETTINGS["tight dual clip"] | truncated)
    got = average(sums)
    ratio = np.exp(values["new"] - values["old"])
    gains = np.repeat(values["advantage"][:, None], T, 1)
    number = mask.sum()
    trained = mask & counted[:, None]
    want = {
        "tokens": number,
        "trained_tokens": mask[counted].sum(),
        "ratio": ratio[mask].mean(),
        "ratio_max": ratio[mask].max(),
        "clipped_high": (trained & (gains > 0) & (ratio > 1.28)).sum() / number,
        "clipped_low": (trained & (gains < 0) & (ratio < 0.8)).sum() / number,
        "dual_clipped": (trained & (gains < 0) & (ratio > 1.4)).sum() / number,
        "entropy": values["entropy"][mask].mean(),
        "mismatch": np.abs(values["new"] - values["sampler"])[mask].mean(),
        "mismatch_max": np.abs(values["new"] - values["sampler"])[mask].max(),
        "sampler_weight": np.minimum(np.exp(values["old"] - values["sampler"]), 1.1)[mask].mean(),
    }
    for name, value in want.items():
        np.testing.assert_allclose(getattr(got, name), value, rtol=1e-5, err_msg=name)
        assert value > 0, name
    log_ratio = (values["reference"] - values["new"])[mask]
    np.testing.assert_allclose(got.kl, np.mean(np.exp(log_ratio) - log_ratio - 1), rtol=1e-5)


def test_extreme_ratios_stay_finite():
    new = jnp.array([[0.0, -500.0]], jnp.float32)
    old = jnp.array([[-500.0, 0.0]], jnp.float32)
    for advantage in (-1.0, 1.0):
        gains = jnp.array([advantage], jnp.float32)
        weights = jnp.ones((1, 2), jnp.float32)

        def loss(x, gains=gains, weights=weights):
            config = LossConfig(entropy_coefficient=0.0, kl_coefficient=0.1)
            return policy_loss(
                x, jnp.zeros_like(x), old, old, gains, weights > 0, weights, config, old
            )[0]

        value, grad = jax.value_and_grad(loss)(new)
        assert np.isfinite(value) and np.all(np.isfinite(grad))
