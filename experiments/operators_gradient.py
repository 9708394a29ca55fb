"""Which way a selected batch pushes, against the way that is best for the whole pool.

    python experiments/operators_gradient.py            # about 5 minutes

On operator chains the mean pass rate of the pool is an exact, differentiable function of the
parameters. For policies at three stages of a run, batches are drawn by each rule, rolled out, and
their GRPO gradient (before the optimizer) is compared with the exact one: the cosine, its spread,
and the cosine of the mean over all batches, which says what is left when noise is averaged away.
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax import nnx
from operators_runs import after, named, write_record
from rich.console import Console

import dpsjax
from dpsjax import chain, selectors
from dpsjax.belief.filter import group_outcome
from dpsjax.grpo import RolloutBatch
from dpsjax.lab.policies import PolicyStudent, exact_rates, policy_student, solves
from dpsjax.lab.statistics import interval
from dpsjax.loop.prompts import gather
from dpsjax.loop.stages import log_prob_function
from dpsjax.policy import generate
from dpsjax.tasks.operators import base_path, operator_chains

DS, CANDIDATES = "dynamic-sampling", 5  # it draws so many batches at once, enough for a full one
RULES = (
    "uniform",
    DS,
    "oracle:power=1",
    "oracle:power=4",
    "oracle",
    "oracle:power=1,weighted=True",
)


@dataclasses.dataclass(frozen=True)
class Config:
    """What is measured."""

    out: Path = Path("experiments/results/operators_gradient.json")
    """Where the figures go."""
    stages: tuple[int, ...] = (0, 60, 160)
    """Steps of shuffled epochs before the gradients are taken."""
    batches: int = 50
    """Batches of each rule."""
    batch: int = 32
    """Prompts in a batch."""
    group: int = 8
    """Rollouts of each."""
    smoke: bool = False
    """A few batches, to see that it works."""


def flat(tree) -> jax.Array:
    return jnp.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(tree)])


def make_gradients(student: PolicyStudent, config: Config):
    """``exact(params)`` and ``of(params, key, index, weight)``, vectors."""
    log_probs = log_prob_function(student.graph, student.sampling.temperature)

    def exact(params):
        return flat(jax.grad(lambda p: exact_rates(student, p, student.pool).mean())(params))

    def of(params, key, index, weight):
        prompt, mask = gather(student.pool.prompts, index)
        model = nnx.merge(student.graph, params)
        rollouts = generate(model, key, prompt, mask, student.sampling, config.group)
        correct = solves(student.pool, index, rollouts.tokens).astype(jnp.float32)
        batch = RolloutBatch.of(index, prompt, mask, rollouts, correct, weight=weight)
        used = batch.informative & (jnp.cumsum(batch.informative) <= config.batch)
        pull = batch.advantages * jnp.where(used, weight, 0)[:, None]

        def objective(params):
            found, _ = log_probs(params, prompt, mask, batch.tokens, batch.mask)
            return (found.sum(axis=-1) * pull).sum()

        return flat(jax.grad(objective)(params)), used.sum()

    return jax.jit(exact), jax.jit(of)


def drawn(rule: str, key, truth: np.ndarray, config: Config) -> tuple[jax.Array, jax.Array]:
    """Prompts of a batch and their weights."""
    size = config.batch * CANDIDATES if rule == DS else config.batch
    if rule in ("uniform", DS):
        rule_of, ranked = selectors.uniform(), chain()
    else:
        rule_of = named(rule).selector
        ranked = selectors.stateless(lambda _, proposal: proposal.replace(score=jnp.asarray(truth)))
    selector = chain(ranked, rule_of)
    picked, _ = dpsjax.select(selector, key, selector.init(truth.size), size)
    return picked.index, picked.weight


def cosines(found: np.ndarray, exact: np.ndarray) -> dict:
    """Of each row with the exact gradient, and of the rows' mean."""
    unit = exact / np.linalg.norm(exact)
    each = found @ unit / np.linalg.norm(found, axis=1)
    mean = found.mean(axis=0)
    return {
        "cosine": interval(each)._asdict(),
        "cosine_of_mean": float(mean @ unit / np.linalg.norm(mean)),
    }


def main(config: Config) -> None:
    """Measure, print, write."""
    console = Console(width=120)
    if config.smoke:
        config = dataclasses.replace(config, stages=(0,), batches=3)
    student = policy_student(operator_chains(2000, 1000), base_path())
    exact, of = make_gradients(student, config)
    rates = jax.jit(lambda params: exact_rates(student, params, student.pool))
    rows = []
    for stage in config.stages:
        params = after(student, stage)
        truth = np.asarray(group_outcome(rates(params), config.group)[1])
        goal = np.asarray(exact(params), np.float64)
        for rule in RULES:
            found, used = [], []
            for number in range(config.batches):
                draw_key, roll_key = jax.random.split(jax.random.fold_in(jax.random.key(1), number))
                gradient, count = of(params, roll_key, *drawn(rule, draw_key, truth, config))
                found.append(np.asarray(gradient, np.float64))
                used.append(int(count))
            row = {"stage": stage, "rule": rule, "groups": float(np.mean(used))}
            rows.append({**row, **cosines(np.stack(found), goal)})
            shown = rows[-1]["cosine"]
            console.print(
                f"after {stage} steps, {rule}: {row['groups']:.1f} mixed groups, cosine "
                f"{shown['mean']:.3f} [{shown['low']:.3f}, {shown['high']:.3f}], of the mean of "
                f"{config.batches} batches {rows[-1]['cosine_of_mean']:.3f}",
                highlight=False,
            )
    write_record(config.out, dataclasses.asdict(config), rows)


if __name__ == "__main__":
    main(tyro.cli(Config))
