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


CATEGORIES, FEATURES = 20, 8
MORE = {
    "dps, entropy": lambda: s.dps(entropy=0.1),
    "dps, 7 states": lambda: s.dps(num_states=7),
    "dps, bfloat16 counts": lambda: s.dps(counts_dtype=jnp.bfloat16),
    "dps, 2,048 candidates": lambda: s.dps(candidates=2048),
    "dps, proportional": lambda: s.dps(power=1.0),
    "dps, cool-down": lambda: s.chain(s.dps(), s.cool_down(12)),
}


def recipes(group: int) -> dict:
    """Every recipe of the catalogue at its defaults, and some settings of DPS."""
    known = {"group": group, "num_categories": CATEGORIES}
    named = {name: entry.build(known) for name, entry in s.catalogue().items()}
    return named | {name: build() for name, build in MORE.items()}


def prompts(num_prompts: int) -> dict[str, np.ndarray]:
    """What is known of the prompts beforehand, drawn at random."""
    rng = np.random.default_rng(0)
    return {
        "source": rng.integers(0, CATEGORIES, num_prompts).astype(np.int32),
        "difficulty": (100 * rng.random(num_prompts)).astype(np.float32),
        "features": rng.random((num_prompts, FEATURES)).astype(np.float32),
    }


class Round:
    """One recipe's state and its compiled round."""

    def __init__(self, selector, data, batch: int, group: int):
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
        self.state = jax.jit(selector.init, static_argnums=0)(len(data["source"]), data)
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
    rounds, data = {}, prompts(size)
    for name, selector in recipes(options.group).items():
        rounds[name] = Round(selector, data, options.batch, options.group)
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
