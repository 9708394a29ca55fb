"""Make the base policy of operator chains that ships with the package, from scratch.

    nice -n 10 python experiments/make_operators_base.py

writes ``dpsjax/tasks/assets/operators_base.safetensors`` and beside it a card of how it was made
and what it measures, exactly: the probability of a prompt's one right response is its pass rate.

The base saw some operators mostly at their wrong tables (``--right``). Greedy decoding makes that
worse, so what reinforcement learning gains afterwards cannot be had from a lower temperature.
"""

import dataclasses
import json
import shlex
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax import nnx
from supervised import encode, encode_responses, fit, tensors_sha256

from dpsjax.policy import (
    PolicyConfig,
    Sampling,
    abstract_policy,
    generate,
    save_weights,
    token_log_probs,
)
from dpsjax.tasks.base import Problem, Task
from dpsjax.tasks.operators import RIGHT, base_path, operator_chains, warm_start

OUT = base_path()
GROUP = 8  # rollouts of a group, where the card speaks of groups


@dataclasses.dataclass(frozen=True)
class Config:
    """How the base is made."""

    out: Path = OUT
    """Where the weights go (safetensors)."""
    seed: int = 0
    """Seed of the initial weights and of the pairs."""
    tables: int = 0
    """Seed of what the operators do."""
    right: tuple[float, ...] = RIGHT
    """By operator, how often the pairs show it at its right table."""
    steps: int = 1000
    """Optimizer steps; the learning rate falls to a tenth over them."""
    batch: int = 128
    """Pairs in a step."""
    learning_rate: float = 4e-3
    """Peak, after a twentieth of the steps as linear warm-up."""
    width: int = 64
    """Of the residual stream."""
    mlp_width: int = 128
    """Of the gated hidden layer."""
    layers: int = 2
    """Transformer blocks."""
    every: int = 250
    """Steps between looks at the held-out problems."""


def make_exact(graph, task: Task):
    """``exact(params, problems)``: their pass rates at temperature 1, float[N]."""

    @jax.jit
    def rates(params, *rows):
        model = nnx.merge(graph, params)
        return jnp.exp(token_log_probs(model, *rows)[0].sum(axis=1))

    def exact(params, problems: tuple[Problem, ...], batch: int = 500) -> np.ndarray:
        found = []
        for start in range(0, len(problems), batch):
            part = problems[start : start + batch]
            rows = encode(task, [p.prompt for p in part])
            found.append(rates(params, *rows, *encode_responses(task, [p.answer for p in part])))
        return np.concatenate(found)

    return exact


def greedy(graph, params, task: Task, problems: tuple[Problem, ...]) -> np.ndarray:
    """Whether the most likely tokens are the right response, bool[N]."""
    tokenizer = task.tokenizer
    sampling = Sampling(
        max_tokens=task.response_tokens,
        temperature=0.0,
        stop_ids=(tokenizer.eos_id,),
        pad_id=tokenizer.pad_id,
    )
    rows = encode(task, [problem.prompt for problem in problems])
    drawn = jax.jit(
        lambda params: generate(nnx.merge(graph, params), jax.random.key(0), *rows, sampling)
    )
    texts = [tokenizer.decode(row[0]) for row in np.asarray(drawn(params).tokens)]
    return np.array([score.correct for score in task.score(problems, texts)])


def by_source(problems: tuple[Problem, ...], values: np.ndarray) -> dict[str, float]:
    """Mean of ``values`` over all problems, and over those of each source."""
    sources = np.array([problem.source for problem in problems])
    means = {
        s: round(float(values[sources == s].mean()), 4)
        for s in sorted({p.source for p in problems})
    }
    return {"all": round(float(values.mean()), 4), **means}


def measure(graph, params, task: Task) -> dict:
    """What a reader of the card wants to know; exact, at temperature 1 unless it says greedy."""
    exact = make_exact(graph, task)
    test, train = exact(params, task.test), exact(params, task.train)
    return {
        "held_out_pass_rate": by_source(task.test, test),
        "held_out_greedy": by_source(task.test, greedy(graph, params, task, task.test)),
        "train_pass_rate": by_source(task.train, train),
        "train_all_wrong": by_source(task.train, (1 - train) ** GROUP),
        "train_mixed": by_source(task.train, 1 - train**GROUP - (1 - train) ** GROUP),
        "train_all_right": by_source(task.train, train**GROUP),
    }


def main(config: Config) -> None:
    """Train, measure, save."""
    start = time.monotonic()
    task = operator_chains(tables=config.tables)
    policy = PolicyConfig(
        vocab_size=task.tokenizer.vocab_size,
        width=config.width,
        mlp_width=config.mlp_width,
        layers=config.layers,
        heads=4,
        kv_heads=2,
        head_dim=config.width // 4,
    )
    exact = make_exact(abstract_policy(policy)[0], task)

    graph, params, data = fit(
        task,
        warm_start(config.seed, right=config.right, tables=config.tables),
        policy,
        steps=config.steps,
        batch=config.batch,
        learning_rate=config.learning_rate,
        seed=config.seed,
        every=config.every,
        watch=lambda params: by_source(task.test, exact(params, task.test)),
    )
    config.out.parent.mkdir(parents=True, exist_ok=True)
    save_weights(config.out, policy, params)
    card = {
        "what": "base policy of the default task of operator chains, supervised from scratch",
        "command": shlex.join(["python", *sys.argv]),
        **{name: value for name, value in vars(config).items() if name not in ("out", "every")},
        "parameters": policy.num_params(),
        "data_sha256": data,
        "task_sha256": task.fingerprint(),
        "tensors_sha256": tensors_sha256(config.out),
        "seconds": round(time.monotonic() - start),
        "jax": jax.__version__,
        "group": GROUP,
        **measure(graph, params, task),
    }
    config.out.with_suffix(".card.json").write_text(
        json.dumps(card, indent=2) + "\n", encoding="utf-8"
    )
    print(json.dumps(card, indent=2))


if __name__ == "__main__":
    main(tyro.cli(Config))
