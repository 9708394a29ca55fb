"""A short history of rollouts, and ways to go through it."""

import jax
import jax.numpy as jnp
import numpy as np

import dpsjax
from dpsjax.selectors import Proposal

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


def follow(selector, loop_step, check):
    """Feed one history to both, and compare after every step."""
    observe = jax.jit(lambda state, *seen: dpsjax.observe(selector, state, *seen)[1])
    look = jax.jit(lambda state: propose(selector, state))
    state = selector.init(N)
    for seen in history():
        state = observe(state, *seen)
        loop_step(as_dict(*seen))
        check(look(state))


def close(left, right, tolerance=1e-10):
    np.testing.assert_allclose(np.asarray(left), np.asarray(right), rtol=tolerance, atol=tolerance)
