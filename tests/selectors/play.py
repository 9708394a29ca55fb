"""A short history of rollouts, and ways to go through it."""

import jax
import jax.numpy as jnp
import numpy as np

import dpsjax
from dpsjax.selectors import Proposal
from tests.oracles.selectors import draw_law

N, B, STEPS = 12, 5, 25


def history(seed=0, steps=STEPS):
    """Random batches with unequal numbers of trials; an empty step now and then."""
    rng = np.random.default_rng(seed)
    for step in range(steps):
        index = rng.choice(N - 2, B, replace=False).astype(np.int32)
        trials = rng.integers(1, 9, B).astype(np.int32)
        passes = np.where(index < 3, trials * (index % 2), rng.integers(0, trials + 1))
        if step % 6 == 5:
            index[:] = -1
        yield index, passes.astype(np.int32), trials


def as_dict(index, passes, trials):
    return {
        int(i): (int(m), int(g)) for i, m, g in zip(index, passes, trials, strict=True) if i >= 0
    }


def propose_with(selector, key):
    """The scores of a pool that nothing is known of."""
    return propose(selector, selector.init(N), key).score


def propose(selector, state, key=None):
    """What the selector makes of the pool now, with what it believes."""
    key = jax.random.key(0) if key is None else key
    proposal = Proposal(jnp.zeros(N, jnp.float32), jnp.ones(N, bool), batch_size=B)
    return selector.propose(key, proposal, state)[0].publish(selector.publish(state))


def follow(selector, loop_step, check, data=None):
    """Feed one history to both, and compare after every step."""
    observe = jax.jit(lambda state, *seen: dpsjax.observe(selector, state, *seen)[1])
    look = jax.jit(lambda state: propose(selector, state).replace(beliefs=()))
    state = selector.init(N, data)
    for seen in history():
        state = observe(state, *seen)
        loop_step(as_dict(*seen))
        check(look(state))


def in_rounds(selector, seen):
    """The call ``state -> state`` that learns from a step's rows in two rounds, then advances."""

    def call(state):
        cut = seen[0].shape[0] // 2
        for part in (slice(cut), slice(cut, None)):
            rows = (array[part] for array in seen)
            state = dpsjax.observe(selector, state, *rows, advance=False)[1]
        return dpsjax.selectors.advance(selector, state)

    return call


def expect_law(selector, state, weights):
    """Pairs of prompts come up as in drawing one by one in proportion to weights, at 5 sigma."""
    draws = 8000
    pick = jax.jit(jax.vmap(lambda key: dpsjax.select(selector, key, state, 2)[0].index))
    found = np.asarray(pick(jax.random.split(jax.random.key(1), draws)))
    law = draw_law(weights, 2)
    pairs = dict.fromkeys(law, 0)
    for row in found.tolist():
        pairs[frozenset(row)] += 1
    for pair, chance in law.items():
        sigma = np.sqrt(chance * (1 - chance) / draws)
        assert abs(pairs[pair] / draws - chance) < 5 * sigma + 1 / draws, pair


def close(left, right, tolerance=1e-10):
    np.testing.assert_allclose(np.asarray(left), np.asarray(right), rtol=tolerance, atol=tolerance)
