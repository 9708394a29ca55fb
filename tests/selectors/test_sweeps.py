"""Hyperparameters may be traced: a sweep is one ``vmap``, and equals its members."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dpsjax
from dpsjax import selectors as s

N, B = 16, 4
DATA = {"source": np.arange(N, dtype=np.int32) % 4, "difficulty": np.zeros(N, np.float32)}

SWEEPS = {
    "dps_binomial": lambda x: s.dps_binomial(4, 8 * x, decay=x, memory=x),
    "mopps": lambda x: s.mopps(decay=x, target=x, prior=(1 + x, 1.0)),
    "mopps_band": lambda x: s.mopps(band=(x / 2, x), forget_unseen=x > 0.5),
    "beta_mean": lambda x: s.chain(s.beta_mean(x, target=x), s.cool_down(4 * x)),
    "mapp": lambda x: s.mapp(decay=x),
    "insight": lambda x: s.insight(4, target=x, sharpness=x, decay=x),
    "kgps": lambda x: s.kgps(process_noise=x, variance=x),
    "arcus": lambda x: s.arcus(target=x, temperature=x, rate=x),
    "cures": lambda x: s.cures(temperature=x, decay=x),
    "cures_release": lambda x: s.cures(decay=x, hold_steps=2),
    "dps": lambda x: s.dps(decay=x, entropy=x, power=4 * x),
    "gcs": lambda x: s.gcs(decay=x, width=x),
    "variance_ema": lambda x: s.variance_ema(decay=x, start=x),
    "greso": lambda x: s.greso(start=x, target=x, change=x),
    "sec": lambda x: s.sec(4, rate=x, temperature=x),
    "adarft": lambda x: s.adarft(start=x, step=x, sensitivity=x, wanted=x),
    "prioritized_replay": lambda x: s.prioritized_replay(temperature=x, staleness=x, decay=x),
    "lppo": lambda x: s.lppo(decay=x, slope=x, base=x),
    "depo": lambda x: s.depo(entropy_limit=x, explore=x),
    "vcrl": lambda x: s.vcrl(threshold=x, bank=x, momentum=x),
    "learning_progress": lambda x: s.learning_progress(decay=x, explore=x),
    "mix": lambda x: s.chain(s.dps(decay=x), s.mix(s.uniform(), x), s.revisit(10 * x, x)),
    "schedule": lambda x: s.chain(s.schedule(s.uniform(), s.dps(), 4 * x)),
    "stratify": lambda x: s.chain(s.dps(), s.stratify(jnp.stack([x, 1 - x, x, jnp.ones_like(x)]))),
}


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_equals_its_members(name):
    values = jnp.array([0.25, 0.5, 0.75], jnp.float32)
    passes = jnp.array([0, 1, 2, 4], jnp.int32)

    def rounds(value):
        selector = SWEEPS[name](value)
        state = selector.init(N, DATA)

        def body(state, key):
            batch, state = dpsjax.select(selector, key, state, B)
            trials = jnp.full(B, 4, jnp.int32)
            feedback, state = dpsjax.observe(selector, state, batch.index, passes, trials)
            return state, (batch.index, feedback.accept, batch.weight * feedback.weight)

        return jax.lax.scan(body, state, jax.random.split(jax.random.key(0), 6))[1]

    sweep = jax.jit(jax.vmap(rounds))
    together = sweep(values)
    for place, value in enumerate(values):
        index, accept, weight = sweep(jnp.full(3, value))
        np.testing.assert_array_equal(together[0][place], index[0])
        np.testing.assert_array_equal(together[1][place], accept[0])
        np.testing.assert_allclose(together[2][place], weight[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("part", "before"),
    [
        (s.add_thompson, "a tracker such as track_hmm or track_beta"),
        (s.add_learnability, "track_beta"),
        (s.add_deviation, "track_beta"),
        (s.add_bell, "track_average"),
        (s.add_progress, "track_average"),
        (s.add_nearness, "track_beta"),
        (s.add_information, "track_beta"),
        (s.add_average, "track_average"),
        (s.add_expected_variance, "track_logit"),
        (s.add_arc_nearness, "track_arc"),
        (s.add_paced_arc_nearness, "track_arc"),
        (s.add_mixed_prob, "a tracker such as track_hmm or track_beta"),
        (s.add_fewest_visits, "track_visits"),
        (s.prioritize, "track_average"),
    ],
)
def test_a_part_names_what_it_misses(part, before):
    selector = s.chain(part())
    with pytest.raises(ValueError, match=f"put {before} before it"):
        dpsjax.select(selector, jax.random.key(0), selector.init(4), 2)
