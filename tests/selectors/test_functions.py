"""Public functions that are no factories: any number at all, and each bad one is named.

Together with ``test_settings.py``, which has the factories, this covers all of
``dpsjax.selectors`` and ``dpsjax.rollouts``: the last test says so.
"""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from dpsjax import rollouts, selectors
from tests.selectors.test_settings import CASES

N = 5
KEY = jax.random.key(0)
CHAIN = selectors.uniform()
START = CHAIN.init(N)
BELIEVING = selectors.kgps()
BELIEF = BELIEVING.init(N)
BUFFER = rollouts.init_buffer(jax.ShapeDtypeStruct((), jnp.float32), 2 * N)
few = settings(max_examples=12, deadline=None, derandomize=True)


def numbers(*shape):
    """Mostly rates, sometimes anything that a float can be."""
    one = st.one_of(st.floats(0, 1, width=32), st.floats(width=32))
    size = int(np.prod(shape))
    return st.lists(one, min_size=size, max_size=size).map(
        lambda values: jnp.asarray(np.array(values, np.float32).reshape(shape))
    )


def roll_out(key, batch):
    del key
    trials = jnp.full(batch.index.shape, 4, jnp.int32)
    return trials // 2, trials, jnp.zeros(batch.index.shape, jnp.float32)


count = st.integers(-1, 12)
ids = st.lists(st.integers(-2, N)).map(lambda index: np.array(index, np.int32))
# Of each function: how it is called, what its arguments may be, and whether a result is right.
FUNCTIONS = {
    "knapsack_value": (
        {"rate": numbers(N), "highest": count},
        lambda out, given: out.shape == (N, given["highest"] + 1) and (out >= 0).all(),
    ),
    "rollouts.knapsack": (
        {"value": numbers(N, 4), "budget": count, "lowest": count},
        lambda out, given: out.sum() == given["budget"] and out.min() >= given["lowest"],
    ),
    "vip_allocate": (
        {"rate": numbers(N), "budget": st.integers(-1, 40), "lowest": count, "highest": count},
        lambda out, given: out.sum() == given["budget"] and out.max() <= given["highest"],
    ),
    "allocate_proportional": (
        {
            "weight": numbers(N),
            "budget": count,
            "lowest": st.integers(-1, 3),
            "highest": st.none() | count,
        },
        lambda out, given: (
            out.sum() == given["budget"]
            and out.min() >= given["lowest"]
            and out.max() <= (given["highest"] or given["budget"])
        ),
    ),
    "progress_weight": (
        {"change": st.floats(-1, 1).map(jnp.float32), "slope": st.floats(0, 10)},
        lambda out, given: bool(0.5 <= out <= 1.5),
    ),
    "quotas": (
        {
            "shares": st.lists(st.integers(1, 9), min_size=1).map(
                lambda x: jnp.array(x, jnp.float32)
            ),
            "total": st.integers(0, 50),
        },
        lambda out, given: out.sum() == given["total"] and (out >= 0).all(),
    ),
    "prompt_axes": (
        {"selector": st.just(CHAIN)},
        lambda out, given: out.active == 0,
    ),
    "inspect": (
        {"selector": st.just(BELIEVING), "state": st.just(BELIEF), "group": count},
        lambda out, given: bool((out.mixed >= 0).all() & (out.mixed <= 1).all()),
    ),
    "has_belief": (
        {"selector": st.just(CHAIN), "state": st.just(START)},
        lambda out, given: out is False,
    ),
    "entry_of": (
        {"name": st.sampled_from(["dps", "sec", "kgps"])},
        lambda out, given: out.name == given["name"],
    ),
    "max_variance_subset": (
        {"rewards": numbers(2, N), "count": count},
        lambda out, given: (out.sum(axis=1) == given["count"]).all(),
    ),
    "pagerank": (
        {"similarity": numbers(N, N), "damping": st.floats(-1, 2), "iterations": count},
        lambda out, given: bool(jnp.isfinite(out).all()),
    ),
    "weighted_dpp_greedy": (
        {"kernel": numbers(N, N), "weights": numbers(N), "count": count},
        lambda out, given: out.shape == (given["count"],) and out.max() < N,
    ),
    "gaussian_difficulty_sample": (
        {"key": st.just(KEY), "accuracy": numbers(N), "count": count, "deviation": st.floats()},
        lambda out, given: len(set(out.tolist())) == given["count"],
    ),
    "reserve": (
        {"selector": st.just(CHAIN), "num_prompts": count, "capacity": count},
        lambda out, given: out.active.sum() == given["num_prompts"],
    ),
    "add_prompts": (
        {"selector": st.just(CHAIN), "state": st.just(START), "index": ids},
        lambda out, given: bool(out.active.all()),
    ),
    "remove_prompts": (
        {"state": st.just(START), "index": ids},
        lambda out, given: out.active.sum() == N - len(set(given["index"].tolist()) - {-1}),
    ),
    "init_buffer": (
        {"group": st.just(jax.ShapeDtypeStruct((), jnp.float32)), "capacity": count},
        lambda out, given: out.groups.shape == (given["capacity"],),
    ),
    "take": (
        {"buffer": st.just(BUFFER), "batch_size": count},
        lambda out, given: out[0].shape == (given["batch_size"],),
    ),
    "fill": (
        {
            "selector": st.just(CHAIN),
            "key": st.just(KEY),
            "state": st.just(START),
            "buffer": st.just(BUFFER),
            "batch_size": st.integers(-1, N),
            "roll_out": st.just(roll_out),
            "max_rounds": st.one_of(st.none(), st.integers(-1, 3)),
        },
        lambda out, given: bool(out[1].all()),
    ),
    "partial_states": (
        {"num_states": count},
        lambda out, given: len(out) == given["num_states"] and sum(out) >= 1,
    ),
    "middle_state": (
        {"num_states": count},
        lambda out, given: len(out) == given["num_states"] and sum(out) == 1,
    ),
}
# Not called with a user's numbers, or called with them in another file.
ELSEWHERE = {
    "advance": "takes no numbers",
    "allocate_greedy": "by vip_allocate, which adds its gain",
    "catalogue": "takes nothing",
    "chain": "tests/selectors/test_contracts.py: refuses what is no selector",
    "draw": "by select",
    "explorability": "reads evidence, which observe has checked",
    "from_view": "composes functions",
    "observe": "tests/test_inputs.py",
    "pass_rate": "reads evidence, which observe has checked",
    "push": "tests/rollouts/test_buffer.py: refuses what does not fit",
    "rollout_variance": "reads evidence, which observe has checked",
    "schedule": "composes selectors",
    "select": "tests/test_inputs.py",
    "stateless": "composes functions",
    "track": "composes functions",
}


def found(name):
    if name == "rollouts.knapsack":  # the recipe has its name
        return rollouts.knapsack
    return getattr(selectors, name, None) or getattr(rollouts, name)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_any_argument_gives_a_result_or_its_name(name):
    arguments, right = FUNCTIONS[name]

    @few
    @given(st.fixed_dictionaries(arguments))
    def call(given):
        try:
            out = found(name)(**given)
        except (ValueError, TypeError) as error:
            assert not isinstance(error, TypeCheckError), "the package must say it, not the test's"
            assert any(argument in str(error) for argument in arguments), error
            assert len(str(error)) > 15
        else:
            assert right(out, given), (given, out)

    call()


def test_every_public_name_is_covered():
    public = {*selectors.__all__, *rollouts.__all__}
    public = {name for name in public if not inspect.isclass(found(name))}
    makes = selectors.Selector
    plain = {n for n in public if inspect.signature(found(n)).return_annotation is makes}
    factories = {name for name, *_ in CASES} | (plain - set(ELSEWHERE))
    assert public - factories == {*FUNCTIONS, *ELSEWHERE} - {"rollouts.knapsack"}
