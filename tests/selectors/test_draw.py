"""The draw against a full sort, and the hash against chance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dpsjax
from dpsjax import selectors
from dpsjax.belief import noise
from dpsjax.belief.noise import row_bits, row_gumbel, row_normal, row_uniform
from dpsjax.selectors import Proposal, draw
from dpsjax.selectors.largest import top_rows


def proposal(score, batch_size, eligible=None):
    eligible = jnp.ones(len(score), bool) if eligible is None else jnp.asarray(eligible)
    return Proposal(jnp.asarray(score, jnp.float32), eligible, batch_size=batch_size)


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
    batch = jax.jit(lambda key: draw(key, proposal(score, 32, eligible)))(key)
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
    batch = draw(jax.random.key(0), proposal([np.nan, 1, np.inf, -np.inf, 2], 4))
    assert batch.index[:3].tolist() == [2, 4, 1]
    assert int(batch.index[3]) in (0, 3)


def test_nothing_eligible():
    batch = draw(jax.random.key(0), proposal([1.0, 2.0], 2, [False, False]))
    assert batch.index.tolist() == [-1, -1] and not batch.valid.any()


def test_tiers_come_before_scores_and_quotas_before_tiers():
    base = proposal([5, 4, 3, 2, 1, 0], 4)
    marked = base.first(jnp.array([0, 0, 0, 0, 1, 0], bool))
    assert draw(jax.random.key(0), marked).index.tolist() == [4, 0, 1, 2]
    last = marked.bar(jnp.array([1, 1, 0, 0, 0, 0], bool), strict=False)
    assert draw(jax.random.key(0), last).index.tolist() == [4, 2, 3, 5]
    out = marked.bar(jnp.array([1, 1, 1, 1, 0, 0], bool), strict=True)
    assert draw(jax.random.key(0), out).index.tolist() == [4, 5, -1, -1]
    strata = jnp.array([0, 0, 0, 1, 1, 1], jnp.int32)
    shares = marked.replace(strata=strata, quotas=jnp.array([2, 2], jnp.int32))
    assert sorted(draw(jax.random.key(0), shares).index.tolist()) == [0, 1, 3, 4]
    short = shares.bar(jnp.array([0, 0, 0, 1, 0, 1], bool))  # one of source 1 is left
    assert sorted(draw(jax.random.key(0), short).index.tolist()) == [0, 1, 2, 4]


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


def test_the_tail_of_the_gumbel_noise_has_32_bits(monkeypatch):
    """A pool of 10**8 prompts meets chances of 1e-9: 23 bits would end at 16.6 and repeat."""
    bits = np.r_[np.arange(300), 10**4, 65_535, 65_536, 10**6, 2**31, 2**32 - 1].astype(np.uint32)
    monkeypatch.setattr(noise, "row_bits", lambda key, ids: jnp.asarray(bits))
    ids = jnp.arange(len(bits), dtype=jnp.int32)
    found = np.asarray(row_gumbel(jax.random.key(0), ids), np.float64)
    truth = -np.log(-np.log1p(-(bits.astype(np.float64) + 0.5) / 2**32))
    np.testing.assert_allclose(found[:-1], truth[:-1], rtol=1e-5)
    assert found.max() > 22 and len(set(found[:300])) == 300 and np.isfinite(found[-1])


def test_rare_rows_are_drawn_as_often_as_their_weight_says():
    """A million rows of weight 2**-18 share with 64 of weight 1: chances of 2**-24 and less."""
    common, rare, draws = 64, 2**20, 300
    weights = np.r_[np.ones(common), np.full(rare, 2.0**-18)].astype(np.float32)
    part = selectors.draw_proportional()

    @jax.jit
    def one(key):
        noise_key, draw_key = jax.random.split(key)
        return draw(draw_key, part.propose(noise_key, proposal(weights, 1), ())[0]).index[0]

    keys = jax.random.split(jax.random.key(4), draws)
    share = np.mean([int(one(key)) >= common for key in keys])
    expected = rare * 2.0**-18 / (common + rare * 2.0**-18)
    # Four errors: five would let a draw pass in which none is ever rare.
    error = np.sqrt(expected * (1 - expected) / draws)
    assert 4 * error < expected and abs(share - expected) < 4 * error
