"""DPS with binomial emissions: against a loop, and what it is for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dpsjax
from dpsjax import selectors
from dpsjax.belief import grid
from tests.oracles.binomial import RateLoop
from tests.selectors.play import N, as_dict, close, history, propose


@pytest.mark.parametrize(("cells", "decay"), [(5, 0.9), (16, 0.5)])
def test_belief_and_score(cells, decay):
    moves = (2.0, 40.0, 5.0, 3.0)
    loop = RateLoop(N, cells, moves, decay, 0.7)
    part = selectors.chain(
        selectors.track_solve_rate(cells, moves, decay, 0.7), selectors.add_mixed_prob(6)
    )

    observe = jax.jit(lambda state, *seen: dpsjax.observe(part, state, *seen)[1])
    state = part.init(N)
    for seen in history():
        state = observe(state, *seen)
        loop.step(as_dict(*seen))
        (view,) = part.publish(state)
        found = grid.prior(view.belief)
        close(found, np.stack([loop.prior(n) for n in range(N)], axis=1))
        close(propose(part, state).score, [loop.mixed(n, 6) for n in range(N)])

    assert abs(loop.moves - np.array(moves)).max() > 1 and np.ptp(loop.start) > 0.05


def test_mass_is_kept_in_single_precision():
    params = grid.params()
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    belief = grid.init(params, 50)
    rng = np.random.default_rng(0)

    @jax.jit
    def step(belief, *seen):
        return grid.advance(params, grid.observe(belief, *seen))

    for _ in range(500):
        index = jnp.asarray(rng.choice(50, 8, replace=False), jnp.int32)
        passes = jnp.asarray(rng.choice([0, 64], 8), jnp.int32)  # from one end to the other
        belief = step(belief, index, passes, jnp.full(8, 64, jnp.int32))
    np.testing.assert_allclose(belief.posterior.sum(axis=0), 1, atol=1e-4)
    assert np.isfinite(belief.moves).all()


def test_a_belief_outlives_a_rest():
    """A prompt of rate 1/2 is still known after twelve steps, which DPS has forgotten by then."""
    gap = {}
    for name, selector in (
        ("dps", selectors.dps()),
        (
            "binomial",
            selectors.chain(selectors.track_solve_rate(), selectors.add_mixed_prob()),
        ),
    ):
        state = selector.init(4)
        observe = jax.jit(lambda state, *seen, s=selector: dpsjax.observe(s, state, *seen)[1])
        for _ in range(3):
            seen = jnp.arange(3, dtype=jnp.int32), jnp.array([0, 4, 8], jnp.int32)
            state = observe(state, *seen, jnp.full(3, 8, jnp.int32))
        nothing = jnp.zeros(0, jnp.int32)
        for _ in range(12):
            state = observe(state, nothing, nothing, nothing)
        proposal = selectors.Proposal(jnp.zeros(4, jnp.float32), jnp.ones(4, bool))
        score = selector.propose(jax.random.key(0), proposal, state)[0].score
        gap[name] = float(score[1] - max(score[0], score[2]))
    assert gap["dps"] < 0.02 < 0.3 < gap["binomial"]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: grid.params(moves=(1.0, 2.0)), "moves must be four counts"),
        (lambda: grid.params(moves=(1.0, 2.0, 0.0, 1.0)), "moves must be positive"),
        (lambda: grid.params(decay=1.5), "decay must lie in"),
        (lambda: grid.init(grid.params(), 3, cells=2), "cells=2 must be at least 3"),
        (lambda: selectors.add_mixed_prob(1), "group=1 must be at least 2"),
    ],
)
def test_bad_settings(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_donated_belief_leaves_the_selector_whole():
    selector = selectors.dps_binomial()
    index, passes = jnp.array([0, 3]), jnp.array([1, 4])
    for _ in range(2):
        state = selector.init(N)
        dpsjax.observe(selector, state, index, passes, jnp.full(2, 8), donate=True)
