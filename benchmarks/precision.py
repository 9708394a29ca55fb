"""Claim: counts kept in bfloat16 change hardly any choice, and no calibration.

    python benchmarks/precision.py --seeds 5

DPS chooses the prompts of simulated students with float32 counts. A second filter sees the same
observations with its counts in bfloat16. At each step both are asked for the next batch with the
same key: the overlap is the share of the batch that both choose; the calibration is the Brier score
of P(some but not all pass) on the whole pool against the student's true probability. "Elsewhere"
is the overlap of the float32 filter with itself under another key: below 1 because equals are many
and chosen at random, so it is the scale on which to read the first number.
"""

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from common import save

import dpsjax
from dpsjax.lab import students
from dpsjax.lab.statistics import interval

GROUP = 8


@dataclass
class Options:
    """The pool, the runs, and where the record goes."""

    prompts: int = 8000
    batch: int = 256
    steps: int = 150
    seeds: int = 5
    decay: float = 0.7
    out: Path = Path("runs/benchmarks")


def make_run(options: Options, student: students.Student):
    """``run(key) -> (overlap, elsewhere, Brier float32, Brier bfloat16)``, each float32[steps]."""
    single = dpsjax.selectors.dps(decay=options.decay)
    half = dpsjax.selectors.dps(decay=options.decay, counts_dtype=jnp.bfloat16)

    def shared(left, right):
        return jnp.isin(left, right).astype(jnp.float32).mean()

    def brier(state, truth):
        # A chain's state holds the parts' own; the first of DPS's is the belief.
        partial = dpsjax.hmm.prior(dpsjax.hmm.params(decay=options.decay), state.parts[0])[1]
        return ((partial - truth) ** 2).mean()

    def step(carry, key):
        world, one, two = carry
        keys = jax.random.split(key, 3)
        chosen = dpsjax.select(single, keys[0], one, options.batch)[0].index
        other = dpsjax.select(half, keys[0], two, options.batch)[0].index
        again = dpsjax.select(single, keys[1], one, options.batch)[0].index
        truth = student.outcome(world, GROUP)[1]
        row = shared(chosen, other), shared(chosen, again), brier(one, truth), brier(two, truth)
        uniforms = jax.random.uniform(keys[2], (options.batch, GROUP), jnp.float32)
        passes, trials = student.answer(uniforms, world, chosen)
        world = student.learn(world, chosen, passes, trials, jnp.ones(options.batch, jnp.float32))
        _, one = dpsjax.observe(single, one, chosen, passes, trials)
        _, two = dpsjax.observe(half, two, chosen, passes, trials)
        return (world, one, two), row

    def run(key):
        first, rest = jax.random.split(key)
        carry = (
            student.init(first, options.prompts),
            *(s.init(options.prompts) for s in (single, half)),
        )
        return jax.lax.scan(step, carry, jax.random.split(rest, options.steps))[1]

    return jax.jit(jax.vmap(run))


def main(options: Options) -> None:
    record = {"prompts": options.prompts, "batch": options.batch, "steps": options.steps}
    record["seeds"] = options.seeds
    keys = jax.random.split(jax.random.key(0), options.seeds)
    names = ("overlap", "elsewhere", "brier_float32", "brier_bfloat16")
    families = {
        "logit-normal": students.logit_normal(),
        "forgetting": students.forgetting(),
        "regime-shift": students.regime_shift(),
    }
    for family, params in families.items():
        values = make_run(options, students.student(params))(keys)
        means = {
            n: np.asarray(v, np.float64).mean(axis=1) for n, v in zip(names, values, strict=True)
        }
        means["brier_difference"] = means["brier_bfloat16"] - means["brier_float32"]
        record[family] = {name: interval(value)._asdict() for name, value in means.items()}
        print(family, *(f"{n} {np.mean(v):.5f}" for n, v in means.items()), flush=True)
    save("precision", record, options.out)


if __name__ == "__main__":
    main(tyro.cli(Options))
