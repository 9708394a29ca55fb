"""History resampling against sets of prompts."""

import jax
import numpy as np
import pytest

import dpsjax
from dpsjax import selectors
from tests.oracles import contrib

N, B, G = 24, 4, 4


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("exclude", ["next_epoch", "forever", "this_epoch"])
def test_it_follows_the_sets(exclude, strict):
    loop = contrib.EpochLoop(N, exclude)
    rng = np.random.default_rng(0)
    selector = selectors.history_resampling(exclude, strict=strict)
    select = jax.jit(lambda key, state: dpsjax.select(selector, key, state, B))
    observe = jax.jit(lambda state, *seen: dpsjax.observe(selector, state, *seen)[1])
    state, sizes = selector.init(N), set()
    for step in range(60):
        batch, state = select(jax.random.fold_in(jax.random.key(0), step), state)
        index = [int(i) for i in batch.index if i >= 0]
        allowed, preferred = loop.preferred()
        inside = set(index) & allowed
        assert len(inside) == min(B, len(allowed))
        assert len(index) == (len(inside) if strict else B)
        assert len(set(index) & preferred) == min(B, len(preferred))
        sizes.add(len(allowed))
        passes = np.where(rng.random(B) < 0.3, G, rng.integers(0, G, B))
        state = observe(state, batch.index, passes, np.full(B, G))
        loop.step({n: (int(passes[b]), G) for b, n in enumerate(index)})
    assert len(sizes) > 2


def test_by_steps_and_the_unsolved_stay():
    selector = selectors.history_resampling(epoch_steps=N // B)
    state, batches = selector.init(N), []
    for step in range(18):  # An epoch is 6 steps here. Even prompts are solved, odd are hopeless.
        batch, state = dpsjax.select(selector, jax.random.key(step), state, B)
        index = np.asarray(batch.index)
        passes = np.where(index % 2 == 0, G, 0)
        _, state = dpsjax.observe(selector, state, index, passes, np.full(B, G))
        batches.append(index)
    epochs = [np.concatenate(batches[6 * e : 6 * e + 6]) for e in range(3)]
    assert sorted(epochs[0]) == list(range(N))
    assert (epochs[1] % 2 == 1).all()
    assert (epochs[2] % 2 == 0).any()
