"""Every setting of every selector, and the functions that take a selector's state.

Beside tests/selectors/test_settings.py and test_functions.py, which give any *number*, this gives
what is no number at all.
"""

import contextlib
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpsjax import rollouts, selectors
from tests.inputs.wrong import Row, complaints
from tests.selectors.table import data
from tests.selectors.test_settings import NEEDED

N = 6
CHAIN = selectors.dps()
START = CHAIN.init(N)
BUFFER = rollouts.init_buffer(jax.ShapeDtypeStruct((), jnp.float32), 2 * N)
INDEX = np.array([0, 3], np.int32)
FOREIGN = [selectors.mopps().init(N)]


# Names of columns of the data: an error says what the part needs.
COLUMNS = {"by": "(?:needs|by)", "source": "needs"}


def factory(name: str) -> Row | None:
    """A row for a function that makes a selector out of settings."""
    made = getattr(selectors, name)
    signature = inspect.signature(made)
    composes = {"parts", "filter", "score"} & set(signature.parameters)
    if signature.return_annotation is not selectors.Selector or composes:
        return None
    good = {
        argument: NEEDED.get(argument, selectors.uniform()) if p.default is p.empty else p.default
        for argument, p in signature.parameters.items()
    }
    if name == "schedule":
        good |= {"after": selectors.uniform(), "step": 2}
    optional = frozenset(argument for argument, value in good.items() if value is None)
    return Row(
        lambda **given: jax.eval_shape(lambda: made(**given).init(N, data(N))),
        good,
        said=COLUMNS,
        free=optional,
    )


PLAIN = [name for name in selectors.__all__ if not inspect.isclass(getattr(selectors, name))]
FACTORIES = {name: row for name in PLAIN if (row := factory(name)) and name != "stateless"}
COUNTS = {"passes": np.array([1, 2], np.int32), "trials": np.array([8, 8], np.int32)}
FUNCTIONS = {
    "select": Row(
        selectors.select,
        {"selector": CHAIN, "key": jax.random.key(0), "state": START, "batch_size": 2},
    ),
    "observe": Row(
        selectors.observe,
        {"selector": CHAIN, "state": START, "index": INDEX, **COUNTS, "age": np.zeros(2, np.int32)},
        also={"state": FOREIGN},
    ),
    "inspect": Row(selectors.inspect, {"selector": CHAIN, "state": START, "group": 8}),
    "advance": Row(selectors.advance, {"selector": CHAIN, "state": START}, also={"state": FOREIGN}),
    "reserve": Row(selectors.reserve, {"selector": CHAIN, "num_prompts": 4, "capacity": N}),
    "add_prompts": Row(
        selectors.add_prompts,
        {"selector": CHAIN, "state": START, "index": INDEX},
        also={"state": FOREIGN},
    ),
    "remove_prompts": Row(selectors.remove_prompts, {"state": START, "index": INDEX}),
    "push": Row(
        rollouts.push,
        {"buffer": BUFFER, "groups": np.ones(2, np.float32), "accept": np.ones(2, bool)},
        loose=True,
    ),
    "take": Row(rollouts.take, {"buffer": BUFFER, "batch_size": 2}),
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
        selectors.stratify(shares)


def test_checks_break_no_trace():
    """Settings may be traced: a sweep is a ``vmap``."""

    def start(value):
        chain = selectors.chain(
            selectors.dps(decay=value),
            selectors.cool_down(value),
            selectors.stratify(jnp.stack([value, 1 - value])),
            selectors.mix(selectors.uniform(), value),
            selectors.revisit(2, value),
        )
        return selectors.select(chain, jax.random.key(0), chain.init(N, data(N)), 2)[0].index

    index = jax.jit(jax.vmap(start))(jnp.array([0.25, 0.75], jnp.float32))
    assert index.shape == (2, 2)


class Tensor:
    """Stands in for a tensor of PyTorch: NumPy can read it, JAX cannot trace it."""

    def __init__(self, values, dtype=np.int64):
        self.values = np.array(values, dtype)

    def __array__(self, dtype=None, copy=None):
        return self.values.astype(dtype or self.values.dtype)


def tensors():
    yield Tensor
    with contextlib.suppress(ImportError):
        import torch

        yield torch.tensor


@pytest.mark.parametrize("tensor", tensors())
def test_tensors_of_other_libraries_are_read(tensor):
    """Eagerly, and under ``jit`` where it closes over them; extras too."""
    selector = selectors.chain(selectors.mopps(), selectors.accept_mixed())
    state, rewards = selector.init(4), tensor([[0.0, 1.0]], dtype=getattr(tensor, "f", np.float32))
    _, found = selectors.observe(
        selector, state, tensor([1]), tensor([1]), tensor([2]), rewards=rewards
    )
    truth = selectors.observe(selector, state, np.array([1]), np.array([1]), np.array([2]))[1]
    jax.tree.map(np.testing.assert_array_equal, found, truth)
    step = jax.jit(lambda s, i: selectors.observe(selector, s, i, tensor([1]), tensor([2]))[1])
    jax.tree.map(np.testing.assert_allclose, step(state, np.array([1])), truth)


def test_what_cannot_be_read_is_named():
    """A tensor on another device, for example, which NumPy refuses."""

    class Remote:
        def __array__(self, dtype=None, copy=None):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")

    for name in ("index", "passes", "trials", "age", "rewards"):
        rows = {n: np.array([1]) for n in ("index", "passes", "trials", "age")} | {name: Remote()}
        with pytest.raises(TypeError, match=rf"{name}=.* must be numbers.*cuda"):
            selectors.observe(CHAIN, START, **rows)
