"""Every selector, once. A new selector adds a row and inherits every contract."""

import jax.numpy as jnp

from dpsjax import selectors as s


def alike(num_prompts):
    """Prompts of equal difficulty, so that all are equal at the start."""
    return jnp.zeros(num_prompts, jnp.float32)


def sources(num_prompts):
    """Four sources of equal size."""
    return jnp.arange(num_prompts, dtype=jnp.int32) % 4


SELECTORS = {
    "uniform": s.uniform,
    "uniform_epochs": s.uniform_epochs,
    "dps": s.dps,
    "dps_entropy": lambda: s.dps(decay=0.7, entropy=0.05),
    "dps_2": lambda: s.dps(num_states=2, prior_alpha="stability"),
    "dps_local_5": lambda: s.dps(num_states=5, prior_alpha="local", target=s.middle_state(5)),
    "dps_progress_7": lambda: s.dps(num_states=7, prior_alpha="progress"),
    "dps_matrix": lambda: s.dps(
        prior_alpha=((2.0, 1.0, 0.5), (1.0, 3.0, 0.0), (0.5, 1.0, 2.0)), prior_pi=(0.2, 0.7, 0.1)
    ),
    "dps_candidates": lambda: s.dps(candidates=24),
    "dps_then_mixed": lambda: s.chain(s.dps(), s.accept_mixed()),
    "dps_binomial": lambda: s.dps_binomial(group=4),
    "mopps": s.mopps,
    "mopps_band": lambda: s.mopps(1.0, band=(0.3, 0.7), candidates=24, forget_unseen=True),
    "history_resampling": s.history_resampling,
    "history_resampling_forever": lambda: s.history_resampling("forever", epoch_steps=2),
    "history_resampling_this_epoch": lambda: s.history_resampling("this_epoch", strict=False),
    "dynamic_sampling": s.dynamic_sampling,
    "depo": s.depo,
    "lppo": s.lppo,
    "lppo_late": lambda: s.lppo(inner=s.dps(), late=True),
    "learning_progress": s.learning_progress,
    "beta_mean": s.beta_mean,
    "variance_ema": s.variance_ema,
    "static_order": lambda: s.static_order(alike),
    "mapp": s.mapp,
    "mapp_top": lambda: s.mapp(group=4, top=True),
    "insight": s.insight,
    "kgps": s.kgps,
    "arcus": s.arcus,
    "arcus_paced": lambda: s.arcus(group=4, paced=True),
    "cures": s.cures,
    "gcs": s.gcs,
    "lilo": s.lilo,
    "greso": s.greso,
    "speed": s.speed,
    "sec": lambda: s.sec(sources, 4),
    "adarft": lambda: s.adarft(alike),
    "vcrl": s.vcrl,
    "vcrl_bank": lambda: s.vcrl(0.3, bank=0.25),
    "prioritized_replay": s.prioritized_replay,
    "prioritized_replay_value": lambda: s.prioritized_replay(0.5, by_rank=False),
    "mix": lambda: s.chain(s.dps(), s.mix(s.uniform(), 0.25)),
    "freeze": lambda: s.freeze(s.beta_mean()),
    "schedule": lambda: s.chain(s.schedule(s.uniform(), s.beta_mean(), 2)),
    "stratify": lambda: s.chain(s.beta_mean(), s.stratify(sources, (1, 1, 1, 1))),
    "cool_down": lambda: s.chain(s.beta_mean(), s.cool_down(2)),
    "cool_down_soft": lambda: s.chain(s.dps(), s.cool_down(9, strict=False)),
    "revisit": lambda: s.chain(s.dps(), s.revisit(2, 0.25)),
}

# Rows whose every contract is marked slow: seven states take half a minute to compile.
COSTLY = {"dps_progress_7"}

# The costly contracts (those that compile the whole round once more, or run it op by op) run by
# default for these, which between them use every kind of part; else they are marked slow.
REPRESENTATIVE = {
    "uniform",
    "dps",
    "mopps",
    "history_resampling",
    "depo",
    "arcus",
    "greso",
    "sec",
    "prioritized_replay",
    "stratify",
}
