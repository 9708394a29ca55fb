"""Claim: a round of any recipe at 1e6 prompts costs at most a few rounds of DPS.

    GLIBC_TUNABLES=glibc.malloc.hugetlb=1 python benchmarks/recipes.py --prompts 1e6

One round: select B prompts, then observe them. All recipes in one process, their rounds taken in
turns so that a slow moment of the machine meets all of them; medians, and ratios to DPS.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from common import save

import dpsjax
from dpsjax import selectors as s


@dataclass
class Options:
    """Pool, batch, and where the record goes."""

    prompts: float = 1e6
    batch: int = 256
    group: int = 8
    rounds: int = 9
    out: Path = Path("runs/benchmarks")


def recipes(num_prompts: int, group: int) -> dict:
    """Every recipe at its published settings; what is known offline is drawn at random."""
    rng = np.random.default_rng(0)
    difficulty = rng.random(num_prompts).astype(np.float32)
    category = rng.integers(0, 20, num_prompts).astype(np.int32)
    return {
        "dps": s.dps(),
        "dps, entropy": s.dps(entropy=0.1),
        "dps, 7 states": s.dps(num_states=7),
        "dps, bfloat16 counts": s.dps(counts_dtype=jnp.bfloat16),
        "dps, 2,048 candidates": s.dps(candidates=2048),
        "dps, proportional": s.chain(s.dps(), s.draw_proportional()),
        "dps, cool-down": s.chain(s.dps(), s.cool_down(12)),
        "uniform": s.uniform(),
        "uniform, epochs": s.uniform_epochs(),
        "dps, binomial": s.dps_binomial(),
        "mopps": s.mopps(),
        "beta mean": s.beta_mean(),
        "history resampling": s.history_resampling(),
        "dynamic sampling": s.dynamic_sampling(),
        "depo": s.depo(),
        "lppo": s.lppo(),
        "learning progress": s.learning_progress(),
        "variance ema": s.variance_ema(),
        "static order": s.static_order(difficulty),
        "mapp": s.mapp(group=group),
        "insight": s.insight(group=group),
        "kgps": s.kgps(),
        "arcus": s.arcus(group=group),
        "cures": s.cures(),
        "gcs": s.gcs(),
        "lilo": s.lilo(),
        "greso": s.greso(),
        "speed": s.speed(),
        "sec": s.sec(category, 20),
        "adarft": s.adarft(100 * difficulty),
        "vcrl": s.vcrl(),
        "prioritized replay": s.prioritized_replay(),
    }


class Round:
    """One recipe's state and its compiled round."""

    def __init__(self, selector, num_prompts: int, batch: int, group: int):
        def step(state, key, passes):
            chosen, state = dpsjax.select(selector, key, state, batch)
            trials = jnp.full(batch, group, jnp.int32)
            rewards = (jnp.arange(group) < passes[:, None]).astype(jnp.float32)
            entropies = jnp.ones((batch, group), jnp.float32)
            _, state = dpsjax.observe(
                selector, state, chosen.index, passes, trials, rewards=rewards, entropies=entropies
            )
            return state, chosen.index

        self.step = jax.jit(step, donate_argnums=0)
        self.state = jax.jit(lambda: selector.init(num_prompts))()
        self.rng, self.batch, self.group, self.clock = np.random.default_rng(0), batch, group, 0

    def __call__(self) -> float:
        """Seconds of one round."""
        self.clock += 1
        passes = jnp.asarray(self.rng.integers(0, self.group + 1, self.batch), jnp.int32)
        key = jax.random.key(self.clock)
        jax.block_until_ready(self.state)
        start = time.perf_counter()
        self.state, index = self.step(self.state, key, passes)
        jax.block_until_ready((self.state, index))
        return time.perf_counter() - start


def main(options: Options) -> None:
    size = int(options.prompts)
    rounds = {}
    for name, selector in recipes(size, options.group).items():
        rounds[name] = Round(selector, size, options.batch, options.group)
        for _ in range(2):
            rounds[name]()
        print(f"compiled {name}", flush=True)
    times = {name: [] for name in rounds}
    for _ in range(options.rounds):
        for name, one in rounds.items():
            times[name].append(one())
    medians = {name: float(np.median(values)) for name, values in times.items()}
    for name, median in sorted(medians.items(), key=lambda pair: pair[1]):
        print(f"{name:24} {median * 1e3:8.2f} ms  {median / medians['dps']:5.2f} x DPS", flush=True)
    record = {"prompts": size, "batch": options.batch, "rounds": options.rounds}
    record["recipes"] = {
        name: {"median": median, "of_dps": median / medians["dps"]}
        for name, median in medians.items()
    }
    save("recipes", record, options.out)


if __name__ == "__main__":
    main(tyro.cli(Options))
