"""Every setting of every selector, and the functions that take a selector's state.

Beside tests/selectors/test_settings.py and test_functions.py, which give any *number*, this gives
what is no number at all.
"""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpsjax import selectors
from tests.inputs.wrong import Row, complaints
from tests.selectors.test_settings import NEEDED

N = 6
CHAIN = selectors.dps()
START = CHAIN.init(N)
BUFFER = selectors.init_buffer(jax.ShapeDtypeStruct((), jnp.float32), 2 * N)
INDEX = np.array([0, 3], np.int32)
FOREIGN = [selectors.mopps().init(N)]


def factory(name: str) -> Row | None:
    """A row for a function that makes a selector out of settings."""
    made = getattr(selectors, name)
    signature = inspect.signature(made)
    if signature.return_annotation is not selectors.Selector or "parts" in signature.parameters:
        return None
    good = {
        argument: NEEDED.get(argument, selectors.uniform()) if p.default is p.empty else p.default
        for argument, p in signature.parameters.items()
    }
    if name == "schedule":
        good |= {"after": selectors.uniform(), "step": 2}
    optional = frozenset(argument for argument, value in good.items() if value is None)
    return Row(lambda **given: jax.eval_shape(lambda: made(**given).init(N)), good, free=optional)


PLAIN = [name for name in selectors.__all__ if not inspect.isclass(getattr(selectors, name))]
FACTORIES = {name: row for name in PLAIN if (row := factory(name)) and name != "stateless"}
COUNTS = {"passes": np.array([1, 2], np.int32), "trials": np.array([8, 8], np.int32)}
FUNCTIONS = {
    "select": Row(
        selectors.select,
        {"selector": CHAIN, "key": jax.random.key(0), "state": START, "batch_size": 2},
    ),
    "observe": Row(
        selectors.observe, {"selector": CHAIN, "state": START, "index": INDEX, **COUNTS}
    ),
    "late_weights": Row(
        selectors.late_weights, {"selector": CHAIN, "state": START, "index": INDEX}
    ),
    "reserve": Row(selectors.reserve, {"selector": CHAIN, "num_prompts": 4, "capacity": N}),
    "add_prompts": Row(
        selectors.add_prompts,
        {"selector": CHAIN, "state": START, "index": INDEX},
        also={"state": FOREIGN},
    ),
    "remove_prompts": Row(selectors.remove_prompts, {"state": START, "index": INDEX}),
    "push": Row(
        selectors.push,
        {"buffer": BUFFER, "groups": np.ones(2, np.float32), "accept": np.ones(2, bool)},
        loose=True,
    ),
    "take": Row(selectors.take, {"buffer": BUFFER, "batch_size": 2}),
    "init of a chain": Row(CHAIN.init, {"num_prompts": N}),
}


@pytest.mark.parametrize("name", FACTORIES)
def test_a_wrong_setting_is_named(name):
    assert complaints(FACTORIES[name]) == []


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_wrong_argument_is_named(name):
    assert complaints(FUNCTIONS[name]) == []


def test_the_table_is_not_empty():
    assert len(FACTORIES) > 50


@pytest.mark.parametrize("shares", [(), (0, 0), (-1, 2), ("x", "y"), None, 3, (np.nan, 1)])
def test_shares_that_are_none(shares):
    with pytest.raises((ValueError, TypeError), match="shares"):
        selectors.stratify(NEEDED["source"], shares)


def test_checks_break_no_trace():
    """Settings may be traced: a sweep is a ``vmap``."""

    def start(value):
        chain = selectors.chain(
            selectors.dps(decay=value),
            selectors.cool_down(value),
            selectors.stratify(NEEDED["source"], jnp.stack([value, 1 - value])),
            selectors.mix(selectors.uniform(), value),
            selectors.revisit(2, value),
        )
        return selectors.select(chain, jax.random.key(0), chain.init(N), 2)[0].index

    index = jax.jit(jax.vmap(start))(jnp.array([0.25, 0.75], jnp.float32))
    assert index.shape == (2, 2)
