"""The draw against a full sort, and the hash against chance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dpsjax.selectors.noise import row_bits, row_gumbel, row_normal, row_uniform

import dpsjax
from dpsjax import selectors
from dpsjax.selectors import Proposal, draw
from dpsjax.selectors.draw import top_rows


def proposal(score, eligible=None):
    size = len(score)
    return Proposal(
        ids=jnp.arange(size, dtype=jnp.int32),
        score=jnp.asarray(score, jnp.float32),
        eligible=jnp.ones(size, bool) if eligible is None else jnp.asarray(eligible),
        weight=jnp.ones(size, jnp.float32),
    )


@pytest.mark.parametrize("size", [1, 7, 127, 128, 1000, 5000, 20_011])
@pytest.mark.parametrize("levels", [2, 30, 10**6])
def test_top_rows_is_a_stable_sort(size, levels):
    values = np.random.default_rng(size).integers(0, levels, size).astype(np.float32)
    for count in (1, 8, 64):
        expected = np.argsort(-values, kind="stable")[:count]
        np.testing.assert_array_equal(top_rows(jnp.asarray(values), count), expected)


@pytest.mark.parametrize("levels", [1, 3, 10**6])
def test_draw_is_a_sort_by_score_then_hash(levels):
    rng = np.random.default_rng(levels)
    score = rng.integers(0, levels, 4000).astype(np.float32)
    eligible = rng.random(4000) < 0.7
    key = jax.random.key(5)
    hashes = np.asarray(row_bits(key, jnp.arange(4000, dtype=jnp.int32)) >> 8).astype(np.int64)
    rows = np.lexsort((np.arange(4000), -hashes, -score, ~eligible))[:32]
    batch = jax.jit(lambda key: draw(key, proposal(score, eligible), 32))(key)
    np.testing.assert_array_equal(batch.index, rows)


def test_a_selection_writes_no_ids():
    """On a CPU it writes the rank, and the hashes of those at the cut; elsewhere not even these."""
    size, selector = 400_000, selectors.dps()
    state = jax.eval_shape(lambda: selector.init(size))
    key = jax.eval_shape(lambda: jax.random.key(0))
    select = jax.jit(lambda key, state: dpsjax.select(selector, key, state, 64)[0])
    memory = select.lower(key, state).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 2.25 * 4 * size


def test_nan_and_infinite_scores_have_a_place():
    batch = draw(jax.random.key(0), proposal([np.nan, 1, np.inf, -np.inf, 2]), 4)
    assert batch.index[:3].tolist() == [2, 4, 1]
    assert int(batch.index[3]) in (0, 3)


def test_nothing_eligible():
    batch = draw(jax.random.key(0), proposal([1.0, 2.0], [False, False]), 2)
    assert batch.index.tolist() == [-1, -1] and not batch.valid.any()


def test_no_batch_is_an_error():
    with pytest.raises(ValueError, match="batch_size"):
        draw(jax.random.key(0), proposal([1.0]), 0)


def test_bits_look_random():
    """Each bit fair, neighbours and other keys independent, at 5 sigma."""
    ids = jnp.arange(1 << 16, dtype=jnp.int32)
    streams = [np.asarray(row_bits(jax.random.key(k), ids)) for k in range(2)]
    bits = [((s[:, None] >> np.arange(32, dtype=np.uint32)) & 1).astype(int) for s in streams]
    sigma = 0.5 / np.sqrt(len(ids))
    for left, right in (
        (bits[0], 0),
        (bits[0][1:] ^ bits[0][:-1], 0),
        (bits[0] ^ bits[1], 0),
        (bits[0][:, 1:] ^ bits[0][:, :-1], 0),
    ):
        assert abs(left.mean(0) - right - 0.5).max() < 5 * sigma
    counts = np.bincount(streams[0] >> 24, minlength=256)
    assert abs(((counts - 256) ** 2 / 256).sum() - 255) < 5 * np.sqrt(2 * 255)


@pytest.mark.parametrize(
    ("draws", "mean", "variance"),
    [
        (row_uniform, 0.5, 1 / 12),
        (row_normal, 0.0, 1.0),
        (row_gumbel, np.euler_gamma, np.pi**2 / 6),
    ],
)
def test_noise_moments(draws, mean, variance):
    values = np.asarray(draws(jax.random.key(1), jnp.arange(200_000, dtype=jnp.int32)), np.float64)
    assert np.isfinite(values).all()
    error = np.sqrt(variance / len(values))
    assert abs(values.mean() - mean) < 5 * error
    fourth = ((values - values.mean()) ** 4).mean()
    assert abs(values.var() - variance) < 5 * np.sqrt((fourth - variance**2) / len(values))
