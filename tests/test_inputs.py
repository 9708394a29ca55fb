"""Any argument at all: a defined result, or a ValueError or TypeError that names the argument."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dpsjax
from dpsjax import hmm
from dpsjax.grpo import GRPOConfig, LossConfig, centered, group_normalized, leave_one_out
from dpsjax.policy import Sampling
from dpsjax.policy.checkpoint import load_checkpoint
from dpsjax.run.config import (
    CheckpointConfig,
    EvaluationConfig,
    RolloutConfig,
    TrainConfig,
    from_dict,
    to_dict,
)
from dpsjax.tasks.countdown import verify

POOL, BATCH = 6, 3
SELECTOR = dpsjax.selectors.dps()
START = SELECTOR.init(POOL)
KEY = jax.random.key(0)
few = settings(max_examples=40, deadline=None, derandomize=True)
counts = st.integers(-2, 9)


def names(error: BaseException, *arguments: str) -> bool:
    """Whether the message names one of the arguments and says more than its name."""
    text = str(error)
    return any(argument in text for argument in arguments) and len(text) > 15


def vectors(values, size=BATCH):
    """Mostly of the right length, sometimes not, sometimes of floats or of another rank."""
    exact = st.lists(values, min_size=size, max_size=size)
    return st.one_of(
        exact.map(lambda v: np.array(v, np.int32)),
        exact,
        exact.map(lambda v: np.array(v, np.float32)),
        exact.map(lambda v: np.array(v, np.int32)[None]),
        st.lists(values, max_size=1).map(lambda v: np.array(v, np.int32)),
    )


def finite(tree) -> bool:
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    return all(np.isfinite(leaf).all() for leaf in leaves if leaf.dtype.kind == "f")


@few
@given(vectors(st.integers(-3, POOL + 1)), vectors(counts), vectors(counts))
def test_observe(index, passes, trials):
    try:
        feedback, state = dpsjax.observe(SELECTOR, START, index, passes, trials)
    except (ValueError, TypeError) as error:
        assert names(error, "index", "passes", "trials")
        return
    index, passes, trials = (np.asarray(v) for v in (index, passes, trials))
    assert feedback.accept.shape == index.shape and finite(state)
    assert ((index >= -1) & (index < POOL)).all()
    real = index >= 0
    assert ((passes >= 0) & (passes <= trials))[real].all()
    assert not np.asarray(feedback.accept)[~real | (trials == 0)].any()
    belief = np.array(jax.tree.leaves(state.parts[0].posterior))
    np.testing.assert_allclose(belief.sum(axis=0), 1, atol=1e-5)


@few
@given(st.integers(-2, POOL + 2), st.lists(st.booleans(), min_size=POOL, max_size=POOL))
def test_select(batch_size, active):
    state = START._replace(active=jnp.array(active))
    try:
        batch, _ = dpsjax.select(SELECTOR, KEY, state, batch_size)
    except (ValueError, TypeError) as error:
        assert batch_size < 1 or batch_size > POOL
        assert names(error, "batch_size")
        return
    index = np.asarray(batch.index)
    chosen = index[index >= 0]
    assert index.shape == (batch_size,) and len(set(chosen.tolist())) == len(chosen)
    assert len(chosen) == min(batch_size, sum(active))
    assert all(active[i] for i in chosen)


@pytest.mark.parametrize("state", [None, (), {}, jnp.zeros(3)])
def test_a_state_of_something_else(state):
    for call in (
        lambda: dpsjax.select(SELECTOR, KEY, state, 2),
        lambda: dpsjax.observe(SELECTOR, state, [0], [1], [1]),
    ):
        with pytest.raises(TypeError, match="state"):
            call()


anything = st.one_of(st.floats(), st.integers(-1, 2), st.floats(0, 1))


@few
@given(
    st.integers(-1, 4),
    anything,
    st.one_of(
        anything,
        st.sampled_from(["uniform", "progress", "stability", "local", "best"]),
        st.lists(st.floats(0, 3), min_size=9, max_size=9).map(lambda v: np.reshape(v, (3, 3))),
        st.lists(anything, min_size=2, max_size=3),
    ),
    st.one_of(st.none(), st.lists(st.floats(-0.1, 1), min_size=2, max_size=3)),
)
def test_hmm_params(num_states, decay, prior_alpha, prior_pi):
    try:
        params = hmm.params(num_states, decay, prior_alpha, prior_pi)
    except (ValueError, TypeError) as error:
        assert names(error, "num_states", "decay", "prior_alpha", "prior_pi")
        return
    assert finite(params) and 0 <= float(params.decay) <= 1
    assert params.alpha.shape == (params.pi.size, params.pi.size) and params.pi.size >= 2


@few
@given(vectors(st.integers(-3, POOL + 1)), vectors(st.integers(-1, 3)))
def test_hmm_update(index, state):
    params = hmm.params(prior_alpha="local")  # zeros in the prior
    try:
        belief = hmm.update(params, hmm.init(params, POOL), index, state)
    except (ValueError, TypeError) as error:
        assert names(error, "index", "state")
        return
    prior = np.asarray(hmm.prior(params, belief))
    assert finite(belief) and (prior >= 0).all()
    np.testing.assert_allclose(prior.sum(axis=0), 1, atol=1e-6)


@few
@given(vectors(counts), vectors(counts), st.integers(-1, 8))
def test_solve_state(passes, trials, num_states):
    try:
        state = np.asarray(hmm.solve_state(passes, trials, num_states))
    except (ValueError, TypeError) as error:
        assert names(error, "passes", "trials", "num_states")
        return
    assert num_states in (2, 3, 5, 7)
    assert ((state >= -1) & (state < num_states)).all()
    assert ((state == -1) == (np.asarray(trials) == 0)).all()


@few
@given(
    st.lists(st.floats(-1e6, 1e6, width=32, allow_subnormal=False), min_size=8, max_size=8),
    st.lists(st.booleans(), min_size=8, max_size=8),
    st.sampled_from([math.nan, math.inf, 0.0]),
    st.sampled_from([group_normalized, centered, leave_one_out]),
)
def test_advantages(rewards, valid, hidden, function):
    valid = np.reshape(valid, (2, 4))
    rewards = np.where(valid, np.reshape(np.array(rewards, np.float32), (2, 4)), np.float32(hidden))
    values, informative = function(jnp.asarray(rewards, jnp.float32), jnp.asarray(valid))
    values = np.asarray(values)
    assert np.isfinite(values).all() and (values[~valid] == 0).all()
    for row in range(2):
        seen = rewards[row][valid[row]]
        assert bool(informative[row]) == (seen.size > 0 and seen.min() < seen.max())
        if not informative[row]:
            assert (values[row] == 0).all()


@few
@given(
    st.one_of(st.text(), st.text("0123456789+-*/() =.e", max_size=30)),
    st.lists(st.integers(-5, 99), max_size=4),
    st.integers(-99, 99),
)
def test_verify_scores_any_text(expression, numbers, target):
    score = verify(expression, numbers, target)
    assert score.reward in (0.0, 1.0) and score.correct == (score.reward == 1)
    assert score.correct == (score.reason == "")


numbers = st.one_of(st.floats(), st.floats(0.01, 2))
integers = st.integers(-3, 10)


@few
@given(
    st.sampled_from(
        [
            (GRPOConfig, "learning_rate", numbers),
            (GRPOConfig, "weight_decay", numbers),
            (GRPOConfig, "max_grad_norm", numbers),
            (LossConfig, "clip_low", numbers),
            (LossConfig, "clip_high", numbers),
            (LossConfig, "dual_clip", numbers),
            (LossConfig, "entropy_coefficient", numbers),
            (LossConfig, "kl_coefficient", numbers),
            (GRPOConfig, "epochs", integers),
            (GRPOConfig, "mini_batch", integers),
            (GRPOConfig, "rollouts_per_prompt", integers),
            (RolloutConfig, "temperature", numbers),
            (RolloutConfig, "prompts", integers),
            (EvaluationConfig, "every", integers),
            (EvaluationConfig, "samples", integers),
            (CheckpointConfig, "every", integers),
            (CheckpointConfig, "minutes", numbers),
            (CheckpointConfig, "keep", integers),
            (TrainConfig, "steps", integers),
            (TrainConfig, "seed", st.integers(-2, 2**33)),
        ]
    ).flatmap(lambda c: st.tuples(st.just(c[0]), st.just(c[1]), c[2]))
)
def test_settings(case):
    kind, name, value = case
    try:
        made = kind(**{name: value})
    except ValueError as error:
        assert names(error, name) and (str(value) in str(error) or repr(value) in str(error))
        return
    assert vars(made)[name] == value  # so it is no NaN
    if isinstance(value, float):
        assert value >= 0


@few
@given(st.floats(), st.integers(-2, 3), st.floats())
def test_sampling(temperature, top_k, top_p):
    try:
        made = Sampling(max_tokens=4, temperature=temperature, top_k=top_k, top_p=top_p)
    except ValueError as error:
        assert names(error, "temperature", "top_k", "top_p")
        return
    assert made.temperature >= 0 and made.top_k >= 0 and 0 < made.top_p <= 1


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner)),
    max_leaves=5,
)


@few
@given(st.sampled_from(sorted(to_dict(TrainConfig()))), json_values)
def test_settings_from_json(name, value):
    """A record of a run that somebody edited."""
    try:
        config = from_dict({name: value})
    except (ValueError, TypeError, AttributeError) as error:
        assert str(error)
        return
    assert isinstance(config, TrainConfig)


@few
@given(
    st.one_of(
        st.sampled_from(["../x", "/etc/passwd", "a/../../b", "..", ".", "", "a/b", "C:\\x\\y"]),
        st.text(max_size=20),
        st.integers(),
        st.none(),
    )
)
def test_an_index_cannot_name_files_outside_its_folder(tmp_path_factory, name):
    folder = tmp_path_factory.mktemp("weights", numbered=True)
    (folder.parent / "x").write_text("outside")
    config = {"model_type": "llama", "num_attention_heads": 1, "hidden_size": 4, "vocab_size": 8,
              "intermediate_size": 4, "num_hidden_layers": 1}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    index = {"weight_map": {"lm_head.weight": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        load_checkpoint(folder)
    assert "outside the folder" in str(caught.value) or "does not exist" in str(caught.value)
