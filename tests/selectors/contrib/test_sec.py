"""SEC: values that decay, and arms drawn with replacement."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dpsjax
from dpsjax import selectors
from dpsjax.selectors.contrib.sec import advantage_size
from tests.oracles import contrib
from tests.selectors.play import N, as_dict, close, history, in_rounds

CATEGORY = np.array([0, 1, 2] * 4, np.int32)


def test_sizes_of_advantages():
    trials = np.arange(1, 9)
    cases = [(m, n) for n in trials for m in range(n + 1)]
    found = advantage_size(*(jnp.asarray(c, jnp.int32) for c in zip(*cases)), jnp.float64)  # noqa: B905
    close(found, [np.mean(abs(contrib.advantages(m, n))) for m, n in cases])


@pytest.mark.parametrize("rounds", [1, 2])
def test_values(rounds):
    selector, loop = selectors.sec(3, rate=0.4), contrib.CategoryLoop(CATEGORY, 3, 0.4)
    state, decayed = selector.init(N, {"source": CATEGORY}), False
    for seen in history():
        before = list(loop.value)
        if rounds == 1:
            _, state = dpsjax.observe(selector, state, *seen)
        else:
            state = in_rounds(selector, seen)(state)
        loop.step([as_dict(*seen)])
        close(state.parts[0].value, loop.value)
        absent = set(range(3)) - set(CATEGORY[[n for n in seen[0] if n >= 0]].tolist())
        decayed |= any(loop.value[c] < before[c] for c in absent if absent != {0, 1, 2})
    assert decayed


def test_places_are_drawn_with_replacement():
    """How many places each category gets has a multinomial law, at 5 sigma."""
    value, temperature, places, draws = np.array([0.1, 0.5, 0.3]), 0.5, 3, 6000
    selector = selectors.sec(3, temperature=temperature)
    state = selector.init(N, {"source": CATEGORY})
    state = state._replace(parts=(state.parts[0]._replace(value=jnp.asarray(value)),))
    pick = jax.jit(jax.vmap(lambda key: dpsjax.select(selector, key, state, places)[0].index))
    index = np.asarray(pick(jax.random.split(jax.random.key(0), draws)))
    assert all(len(set(row)) == places for row in index.tolist())
    counts = np.stack([(CATEGORY[index] == c).sum(axis=1) for c in range(3)], axis=1)
    p = np.exp(value / temperature) / np.exp(value / temperature).sum()
    for wanted in [(3, 0, 0), (0, 3, 0), (1, 1, 1), (0, 2, 1)]:
        ways = math.factorial(places) / math.prod(math.factorial(k) for k in wanted)
        truth = ways * math.prod(p**wanted)
        share = (counts == wanted).all(axis=1).mean()
        assert abs(share - truth) < 5 * np.sqrt(truth * (1 - truth) / draws), wanted


@pytest.mark.parametrize("wrong", [-1, 3])
def test_categories_out_of_range_are_refused(wrong):
    category = CATEGORY.copy()
    category[5] = wrong
    with pytest.raises(ValueError, match=r"source must lie in \[0, 3\)"):
        selectors.sec(3).init(N, {"source": category})
