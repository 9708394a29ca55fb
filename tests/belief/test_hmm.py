"""The filter against the loop oracle, the paper's golden values, distrax, and its own laws."""

import chex
import distrax
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dpsjax
from dpsjax import hmm
from dpsjax.belief import blocks
from tests.oracles.hmm import LoopFilter

PRIORS = ("uniform", "progress", "stability", "local")
update = jax.jit(hmm.update)


def history(seed, num_prompts, num_states, steps, batch):
    """Random batches, empty steps, prompts never seen, and one unseen for hundreds of steps."""
    rng = np.random.default_rng(seed)
    for step in range(steps):
        index = rng.choice(num_prompts // 2, batch, replace=False).astype(np.int32)
        if 150 < step < 600:
            index[index == 0] = -1
        if step % 7 == 6 or 100 < step < 140:
            index[:] = -1
        yield index, rng.integers(0, num_states, batch).astype(np.int32)


@jax.jit
def read(params, belief):
    return hmm.prior(params, belief), hmm.posterior(params, belief), hmm.alpha(params, belief)


def follow(params, num_prompts, steps, batch=6, seed=0, every=1):
    """Largest error against the loop over a history; that of counts in excess of 1 is relative."""
    num_states = params.pi.shape[0]
    belief = hmm.init(params, num_prompts)
    oracle = LoopFilter(num_prompts, params.alpha, params.pi, params.decay)
    worst = 0.0
    rounds = history(seed, num_prompts, num_states, steps, batch)
    for step, (index, state) in enumerate(rounds):
        belief = update(params, belief, index, state)
        oracle.step({int(i): int(s) for i, s in zip(index, state, strict=True) if i >= 0})
        if step % every and step != steps - 1:
            continue
        for left, right in zip(read(params, belief), oracle.arrays(), strict=True):
            error = abs(np.asarray(left, np.float64) - right) / np.maximum(right, 1)
            worst = max(worst, float(error.max()))
    return worst


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 1.0])
def test_double_precision_is_exact(prior, decay):
    for num_states in (2, 3, 5, 7):
        params = hmm.params(num_states, decay, prior)
        assert follow(params, 16, 60) < 1e-12


LONG = [(k, decay, prior) for k in (2, 3, 5, 7) for decay in (0.0, 0.7, 1.0) for prior in PRIORS]
SOME = [(2, 0.0, "uniform"), (3, 0.7, "stability"), (3, 1.0, "local"), (5, 0.7, "progress")]


@pytest.mark.parametrize(
    "num_states, decay, prior",
    [pytest.param(*case, marks=() if case in SOME else pytest.mark.slow) for case in LONG],
)
def test_single_precision_after_1000_steps(num_states, decay, prior):
    """Half of the prompts are never seen, one not for 450 steps and then again."""
    params = jax.tree.map(
        lambda leaf: leaf.astype(jnp.float32), hmm.params(num_states, decay, prior)
    )
    assert follow(params, 8, 1000, batch=2, every=20) < 1e-5


@pytest.mark.parametrize("decay", [0.3, 0.7, 0.99, 1.0])
def test_single_precision_after_500_steps(decay):
    params = jax.tree.map(
        lambda leaf: leaf.astype(jnp.float32), hmm.params(decay=np.float32(decay))
    )
    assert follow(params, 24, 500) < 1e-5


def test_half_precision_counts_move_the_prior_little():
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), hmm.params(decay=0.7))
    whole, half = hmm.init(params, 16), hmm.init(params, 16, jnp.bfloat16)
    for index, state in history(3, 16, 3, 200, 4):
        whole, half = (update(params, belief, index, state) for belief in (whole, half))
        difference = np.abs(hmm.prior(params, whole) - hmm.prior(params, half)).max()
        assert (
            difference < 2**-8
        )  # bfloat16 keeps 8 bits of a count, which is below 1 / (1 - decay)
    assert difference > 0
    assert {leaf.dtype for leaf in jax.tree.leaves(half.excess)} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize(
    "num_states", [3, *(pytest.param(number, marks=pytest.mark.slow) for number in (2, 5, 7))]
)
def test_blocks_change_no_bit(num_states):
    """On a CPU large pools move in blocks; the last block is short."""
    size = 2 * blocks.BLOCK * blocks.AT_ONCE + 37
    single = jax.tree.map(
        lambda leaf: leaf.astype(jnp.float32), hmm.params(num_states, 0.7, "progress")
    )
    rng = np.random.default_rng(num_states)
    belief = hmm.init(single, size)
    for _ in range(4):
        index = rng.choice(size, 4000, replace=False).astype(np.int32)
        state = rng.integers(0, num_states, 4000).astype(np.int32)
        belief = update(single, belief, index, state)
    nothing = np.array([-1], np.int32), np.zeros(1, np.int32)
    few = slice(size - 100, size)  # too few for blocks
    part = jax.tree.map(lambda leaf: leaf if leaf.ndim == 0 else leaf[few], belief)
    after, part = update(single, belief, *nothing), update(single, part, *nothing)
    np.testing.assert_array_equal(hmm.posterior(single, after), hmm.prior(single, belief))
    np.testing.assert_array_equal(hmm.prior(single, after)[:, few], hmm.prior(single, part))
    assert (hmm.prior(single, after) != hmm.prior(single, belief)).any()


def test_any_prior_and_any_first_belief():
    rng = np.random.default_rng(1)
    for num_states in (2, 3, 4):
        params = hmm.params(
            decay=0.8,
            prior_alpha=rng.gamma(1.0, size=(num_states, num_states)),
            prior_pi=rng.dirichlet(np.ones(num_states)),
        )
        assert follow(params, 16, 50) < 1e-12


GOLDEN = {  # stored prior after each step, and the final counts, of the official sampler
    0.5: (
        "0.3 0.4 0.3 .24 .52 .24 .218182 .563636 .218182 .328767 .342466 .328767 "
        ".305572 .344903 .349525 .317642 .339707 .34265 .325086 .336657 .338257 "
        ".398209 .301287 .300504 .361108 .318435 .320458",
        "1.162568 1.162064 1.175367 2.001302 1.02474 1.001302 1.0 1.03125 1.0",
    ),
    0.7: (
        "0.3 0.4 0.3 .23622 .527559 .23622 .20562 .588759 .20562 .321096 .357808 .321096 "
        ".286066 .373572 .340361 .295454 .364761 .339785 .305247 .356497 .338255 "
        ".394054 .307075 .298871 .33833 .337924 .323747",
        "1.222933 1.220684 1.256383 2.019216 1.219219 1.019216 1.0 1.16807 1.0",
    ),
    1.0: (
        "0.3 0.4 0.3 .230769 .538462 .230769 .1875 .625 .1875 .3 .4 .3 "
        ".243158 .450526 .306316 .235978 .456909 .307114 .235071 .457715 .307214 "
        ".358003 .366856 .275142 .196815 .50199 .301194",
        "1.301157 1.306901 1.391942 2.333333 3.333333 1.333333 1.0 2.0 1.0",
    ),
}


@pytest.mark.parametrize("decay", GOLDEN)
def test_official_golden_values(decay):
    priors, counts = (np.array(text.split(), float) for text in GOLDEN[decay])
    params = hmm.params(decay=decay)
    belief = hmm.init(params, 2)
    passes = [4, 4, 4, 8, None, None, None, 0, 2]
    for row, passed in zip(priors.reshape(9, 3), passes, strict=True):
        index = np.array([-1 if passed is None else 0], np.int32)
        state = hmm.solve_state(np.array([passed or 0]), np.array([8]))
        belief = update(params, belief, index, state)
        np.testing.assert_allclose(hmm.prior(params, belief)[:, 0], row, atol=6e-7)
    np.testing.assert_allclose(hmm.alpha(params, belief)[:, :, 0], counts.reshape(3, 3), atol=6e-7)


def test_fixed_transitions_agree_with_distrax():
    """Huge prior counts pin the transitions, and distrax's forward filter must agree."""
    rng = np.random.default_rng(2)
    transition = rng.dirichlet(np.ones(3), size=3)  # rows: from
    initial = rng.dirichlet(np.ones(3))
    params = hmm.params(decay=1.0, prior_alpha=1e12 * transition.T, prior_pi=initial)
    seen = [None, 1, None, None, 2, 0, None, 1, None]
    # Symbol 3 is "nothing seen": equally likely in every state.
    emission = jnp.concatenate([jnp.eye(3) / 2, jnp.full((3, 1), 0.5)], axis=1)
    model = distrax.HMM(
        init_dist=distrax.Categorical(probs=jnp.asarray(initial)),
        trans_dist=distrax.Categorical(probs=jnp.asarray(transition)),
        obs_dist=distrax.Categorical(probs=emission),
    )
    symbols = jnp.array([3 if s is None else s for s in seen], jnp.int32)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        filtered = model.forward(symbols)[1]
    belief = hmm.init(params, 1)
    for step, state in enumerate(seen):
        index = np.array([-1 if state is None else 0], np.int32)
        belief = update(params, belief, index, np.array([state or 0], np.int32))
        np.testing.assert_allclose(hmm.posterior(params, belief)[:, 0], filtered[step], atol=1e-9)


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
    prior=st.sampled_from(PRIORS),
    decay=st.one_of(st.just(0.0), st.just(1.0), st.floats(0, 1)),
    num_states=st.sampled_from([2, 3, 5]),
    seen=st.lists(st.integers(-1, 4), max_size=20),
)
def test_always_a_probability(prior, decay, num_states, seen):
    params = jax.tree.map(
        lambda leaf: leaf.astype(jnp.float32), hmm.params(num_states, decay, prior)
    )
    belief = hmm.init(params, 1)
    for state in seen:
        index = np.array([-1 if state < 0 else 0], np.int32)
        belief = update(params, belief, index, np.array([state % num_states], np.int32))
    for value in (hmm.prior(params, belief), hmm.posterior(params, belief)):
        assert np.isfinite(value).all() and (np.asarray(value) >= 0).all()
        np.testing.assert_allclose(np.asarray(value).sum(0), 1, atol=1e-6)
    counts = np.asarray(hmm.alpha(params, belief))
    assert (counts >= np.asarray(params.alpha)[:, :, None] - 1e-6).all()


def test_impossible_move_is_believed_and_not_counted():
    params = hmm.params(decay=1.0, prior_alpha="local")
    belief = hmm.init(params, 1)
    zero = np.array([0], np.int32)
    belief = update(params, belief, zero, np.array([hmm.SOLVED], np.int32))
    before = hmm.alpha(params, belief)
    belief = update(params, belief, zero, np.array([hmm.UNSOLVED], np.int32))
    np.testing.assert_array_equal(hmm.posterior(params, belief)[:, 0], [1, 0, 0])
    np.testing.assert_array_equal(hmm.alpha(params, belief), before)


def test_no_observation_and_identity_transition_change_nothing():
    params = hmm.params(decay=1.0, prior_alpha=np.eye(3), prior_pi=[0.2, 0.5, 0.3])
    belief = hmm.init(params, 4)
    for _ in range(10):
        belief = update(params, belief, np.zeros(0, np.int32), np.zeros(0, np.int32))
    np.testing.assert_allclose(hmm.prior(params, belief)[:, 0], [0.2, 0.5, 0.3], atol=1e-15)


def test_never_seen_prompts_are_propagated_alike():
    params = hmm.params(decay=0.5, prior_alpha="progress")
    belief = hmm.init(params, 5)
    belief = update(params, belief, np.array([0], np.int32), np.array([1], np.int32))
    prior = np.asarray(hmm.prior(params, belief))
    np.testing.assert_allclose(prior[:, 1], [0.261111, 0.327778, 0.411111], atol=1e-6)
    assert (prior[:, 1:] == prior[:, 1:2]).all()


def test_one_code_path_for_jit_vmap_scan():
    params = hmm.params(decay=0.6)
    rounds = list(history(3, 8, 3, 12, 3))
    belief = hmm.init(params, 8)
    for index, state in rounds:
        belief = hmm.update(params, belief, index, state)
    index, state = (jnp.stack(column) for column in zip(*rounds, strict=True))

    def run(params):
        def body(belief, row):
            return hmm.update(params, belief, *row), None

        return jax.lax.scan(body, hmm.init(params, 8), (index, state))[0]

    chex.assert_trees_all_close(run(params), belief, rtol=1e-14)
    decays = jnp.array([0.6, 0.0, 1.0])
    swept = jax.vmap(lambda decay: run(hmm.params(decay=decay)))(decays)
    chex.assert_trees_all_close(jax.tree.map(lambda leaf: leaf[0], swept), belief, rtol=1e-12)
    alone = run(hmm.params(decay=1.0))
    chex.assert_trees_all_close(jax.tree.map(lambda leaf: leaf[2], swept), alone, rtol=1e-12)


def test_vmap_over_prompts_is_the_whole_array():
    params = hmm.params(decay=0.6)
    state = np.array([0, 1, 2, 1], np.int32)
    whole = update(params, hmm.init(params, 4), np.arange(4, dtype=np.int32), state)
    single = jax.vmap(
        lambda s: hmm.update(params, hmm.init(params, 1), jnp.zeros(1, jnp.int32), s[None])
    )(jnp.asarray(state))
    lanes = jax.tree.map(lambda leaf: leaf[:, 0], single._replace(step=whole.step[None, None]))
    chex.assert_trees_all_close(lanes._replace(step=whole.step), whole)


def test_repeats_pool_their_states():
    params = hmm.params()
    start = hmm.init(params, 4)
    merged = update(
        params, start, np.array([2, 1, 2, 1], np.int32), np.array([0, 1, 2, 1], np.int32)
    )
    single = update(params, start, np.array([2, 1, -1, -1], np.int32), np.array([1, 1, 0, 0]))
    chex.assert_trees_all_close(merged, single)


@pytest.mark.parametrize(
    ("index", "state", "error", "words"),
    [
        ([4], [0], ValueError, "index"),
        ([-2], [0], ValueError, "index"),
        ([0], [3], ValueError, "state"),
        ([0], [-1], ValueError, "state"),
        ([[0]], [[0]], ValueError, "vector"),
        ([0, 1], [0], ValueError, "length"),
        ([0.0], [0], TypeError, "integers"),
        ([0], [True], TypeError, "integers"),
    ],
)
def test_bad_observations(index, state, error, words):
    params = hmm.params()
    with pytest.raises(error, match=words):
        hmm.update(params, hmm.init(params, 4), np.array(index), np.array(state))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"decay": 1.5}, "decay"),
        ({"decay": -0.1}, "decay"),
        ({"decay": float("nan")}, "decay"),
        ({"prior_alpha": [[0, 1, 1], [0, 1, 1], [0, 1, 1]]}, "column"),
        ({"prior_alpha": -1.0}, "negative"),
        ({"prior_alpha": np.ones((2, 3))}, "prior_alpha"),
        ({"prior_alpha": "increase"}, "progress"),
        ({"prior_pi": [0.5, 0.5]}, "prior_pi"),
        ({"prior_pi": [0.5, 0.5, 0.5]}, "probability"),
    ],
)
def test_bad_parameters(arguments, words):
    with pytest.raises(ValueError, match=words):
        hmm.params(**arguments)


def test_checkify_reports_inside_jit():
    params = hmm.params()
    checked = jax.jit(dpsjax.checkify(hmm.update))
    zero = np.zeros(1, np.int32)
    error, _ = checked(params, hmm.init(params, 4), zero, zero)
    error.throw()
    error, _ = checked(params, hmm.init(params, 4), zero + 9, zero)
    with pytest.raises(ValueError, match="index"):
        error.throw()


def test_checks_are_no_effect_where_nobody_asked():
    """JAX dispatches a jitted function with effects by way of Python, which is slow."""
    params = hmm.params()
    belief, zero = hmm.init(params, 4), jnp.zeros(1, jnp.int32)
    assert not jax.make_jaxpr(hmm.update)(params, belief, zero, zero).effects


def test_bad_rows_are_dropped_inside_jit():
    params = hmm.params()
    start = hmm.init(params, 4)
    nothing = update(params, start, np.array([-1], np.int32), np.array([0], np.int32))
    for index, state in ((9, 0), (0, 7)):
        bad = update(params, start, np.array([index], np.int32), np.array([state], np.int32))
        chex.assert_trees_all_equal(bad, nothing)


@pytest.mark.parametrize(
    ("num_states", "states"),
    [
        (2, [0, 1, 1, 1, 1, 1, 1, 1, 0]),
        (3, [0, 1, 1, 1, 1, 1, 1, 1, 2]),
        (5, [0, 1, 1, 2, 2, 2, 3, 3, 4]),
        (7, [0, 1, 2, 2, 3, 4, 4, 5, 6]),
    ],
)
def test_partitions_of_eight_rollouts(num_states, states):
    found = hmm.solve_state(np.arange(9), np.full(9, 8), num_states)
    np.testing.assert_array_equal(found, states)


def test_partition_cuts_are_exact_on_the_boundary():
    passes, trials = np.array([1, 2, 5, 10, 1, 2, 3, 4]), np.array([3, 3, 15, 15, 5, 5, 5, 5])
    np.testing.assert_array_equal(hmm.solve_state(passes[:4], trials[:4], 5), [2, 2, 2, 2])
    np.testing.assert_array_equal(hmm.solve_state(passes[4:], trials[4:], 7), [2, 3, 3, 4])
    halves = hmm.partition_state(np.arange(5), np.full(5, 4), ((1, 2, True),))
    np.testing.assert_array_equal(halves, [0, 0, 1, 1, 1])


def test_solve_state_edge_cases():
    assert hmm.solve_state(np.array([0]), np.array([0])).tolist() == [-1]
    with pytest.raises(ValueError, match="passes"):
        hmm.solve_state(np.array([5]), np.array([4]))
    with pytest.raises(ValueError, match="num_states"):
        hmm.solve_state(np.array([1]), np.array([4]), 4)


def test_a_donated_belief_is_updated_in_place():
    params = hmm.params()
    compiled = (
        jax.jit(hmm.update, donate_argnums=1)
        .lower(
            params,
            jax.eval_shape(lambda: hmm.init(params, 10**6)),
            jnp.zeros(8, jnp.int32),
            jnp.zeros(8, jnp.int32),
        )
        .compile()
    )
    memory = compiled.memory_analysis()
    assert memory.alias_size_in_bytes >= 10**6 * (12 * 8 + 4)


@pytest.mark.parametrize("wide", [np.int64, np.uint64])
@pytest.mark.parametrize(("index", "state"), [(2**32 + 3, 1), (3, 2**32 + 1)])
def test_wide_numbers_are_judged_before_they_are_narrowed(index, state, wide):
    params = hmm.params()
    start = hmm.init(params, 4)
    rows = np.array([index], wide), np.array([state], wide)
    with pytest.raises(ValueError, match=r"(index|state) must lie in"):
        hmm.update(params, start, *rows)
    nothing = update(params, start, np.array([-1], np.int32), np.array([0], np.int32))
    chex.assert_trees_all_equal(update(params, start, *rows), nothing)
