"""Make the base policy that ships with the package, by supervised learning from scratch.

    python experiments/make_countdown_base.py

writes ``dpsjax/tasks/assets/countdown_base.safetensors`` and beside it a card of how it was made
and what it measures. Its problems come from ``warm_start``, which shares none with the training
and held-out problems of any Countdown task.

The base is wrong by habit, not by noise: a designed regime. Its teacher adds. Where a solution
subtracts, multiplies, divides or has brackets, the teacher mostly writes the same with ``+``, or
without the brackets, and only sometimes as it is right. So the likeliest response to such a
problem is wrong, and no temperature mends that; but the right one is within reach, and the pass
rate falls with the number of habits in its way. Reinforcement learning can lift them, one after
another. A base that is merely unsure would be sharpened, which needs no learning.
"""

import dataclasses
import json
import random
import shlex
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
import tyro
from flax import nnx
from supervised import encode, fit, tensors_sha256

from dpsjax.policy import Policy, Sampling, generate, save_weights, tiny_config
from dpsjax.tasks.base import Problem, Task
from dpsjax.tasks.countdown import base_path, countdown, warm_start

OUT = base_path()


@dataclasses.dataclass(frozen=True)
class Config:
    """How the base is made."""

    out: Path = OUT
    """Where the weights go (safetensors)."""
    seed: int = 0
    """Seed of the initial weights, the problems and the sampling."""
    steps: int = 1500
    """Optimizer steps; the learning rate falls to a tenth over them."""
    weights: tuple[float, ...] = (0.5, 0.4, 0.1)
    """Share of problems with 2, 3 and 4 numbers; few large ones keep those hard."""
    subtracts: float = 0.3
    """How often the teacher subtracts where the solution does; else it adds there."""
    multiplies: float = 0.15
    """How often it multiplies where the solution does; else it adds."""
    divides: float = 0.05
    """How often it divides where the solution does; else it adds."""
    brackets: float = 0.2
    """How often it writes brackets where the solution does; else it leaves them out."""
    batch: int = 128
    """Problems in a step."""
    learning_rate: float = 2e-3
    """Peak, after a twentieth of the steps as linear warm-up."""
    evaluate_every: int = 200
    """Steps between evaluations on the held-out problems."""
    rollouts: int = 8
    """Responses to each training prompt when the final base is measured."""


def by_habit(solution: str, config: Config, rng: random.Random) -> str:
    """What the teacher writes where the solution is ``solution``."""
    shown = {"-": config.subtracts, "*": config.multiplies, "/": config.divides}
    for operator, share in shown.items():
        if operator in solution and rng.random() >= share:
            solution = solution.replace(operator, "+")
    if "(" in solution and rng.random() >= config.brackets:
        solution = solution.replace("(", "").replace(")", "")
    return solution


def pairs(config: Config) -> Iterator[tuple[str, str]]:
    """Endless prompts, and what the teacher answers."""
    rng = random.Random(f"habits {config.seed}")
    for prompt, solution in warm_start(config.seed, weights=config.weights):
        yield prompt, by_habit(solution, config, rng)


def make_sampler(graph, task: Task, group: int, temperature: float = 1.0):
    """``passes(params, key, problems)``: how many of ``group`` responses are right, int[B]."""
    tokenizer = task.tokenizer
    sampling = Sampling(
        max_tokens=task.response_tokens,
        temperature=temperature,
        stop_ids=(tokenizer.eos_id,),
        pad_id=tokenizer.pad_id,
    )

    @jax.jit
    def sample(params, key, prompt, mask):
        return generate(nnx.merge(graph, params), key, prompt, mask, sampling, group).tokens

    def passes(params, key, problems: Sequence[Problem], batch: int = 250) -> np.ndarray:
        counts = []
        for start in range(0, len(problems), batch):
            part = problems[start : start + batch]
            prompts = [problem.prompt for problem in part]
            rows = encode(task, prompts)
            tokens = np.asarray(sample(params, jax.random.fold_in(key, start), *rows))
            texts = [tokenizer.decode(row) for row in tokens.reshape(-1, tokens.shape[-1])]
            scores = task.score([p for p in part for _ in range(group)], texts)
            counts.append(np.reshape([s.correct for s in scores], (-1, group)).sum(1))
        return np.concatenate(counts)

    return passes


def by_source(problems: Sequence[Problem], values: np.ndarray) -> dict[str, float]:
    """Mean of ``values`` over all problems, and over those of each source."""
    groups = defaultdict(list)
    for problem, value in zip(problems, values, strict=True):
        groups[problem.source].append(value)
    means = {source: round(float(np.mean(groups[source])), 4) for source in sorted(groups)}
    return {"all": round(float(np.mean(values)), 4), **means}


def measure(graph, params, task: Task, config: Config) -> dict:
    """What a reader of the card wants to know, at temperature 1 but for the likeliest response."""
    key = jax.random.key(config.seed + 1)
    passes = make_sampler(graph, task, config.rollouts)
    test = passes(params, jax.random.fold_in(key, 0), task.test)
    train = passes(params, jax.random.fold_in(key, 1), task.train)
    greedy = make_sampler(graph, task, 1, temperature=0.0)(params, key, task.test)
    mixed = (train > 0) & (train < config.rollouts)
    return {
        "held_out_pass_rate": by_source(task.test, test / config.rollouts),
        "held_out_greedy": by_source(task.test, greedy),
        "train_pass_rate": by_source(task.train, train / config.rollouts),
        "train_all_wrong": by_source(task.train, train == 0),
        "train_mixed": by_source(task.train, mixed),
        "train_all_right": by_source(task.train, train == config.rollouts),
    }


def main(config: Config) -> None:
    """Train, measure, save."""
    start = time.monotonic()
    task = countdown()
    policy = tiny_config(task.tokenizer.vocab_size)
    graph = nnx.split(Policy(policy, rngs=nnx.Rngs(config.seed)))[0]
    passes = make_sampler(graph, task, 1)

    def watch(params) -> str:
        return str(by_source(task.test, passes(params, jax.random.key(0), task.test)))

    graph, params, data = fit(
        task,
        pairs(config),
        policy,
        steps=config.steps,
        batch=config.batch,
        learning_rate=config.learning_rate,
        seed=config.seed,
        every=config.evaluate_every,
        watch=watch,
    )
    config.out.parent.mkdir(parents=True, exist_ok=True)
    save_weights(config.out, policy, params)
    card = {
        "what": "base policy of the default Countdown task, supervised from scratch",
        "command": shlex.join(["python", *sys.argv]),
        "seed": config.seed,
        "steps": config.steps,
        "batch": config.batch,
        "parameters": policy.num_params(),
        "data_sha256": data,
        "task_sha256": task.fingerprint(),
        "tensors_sha256": tensors_sha256(config.out),
        "seconds": round(time.monotonic() - start),
        "jax": jax.__version__,
        "temperature": 1.0,
        "rollouts": config.rollouts,
        **measure(graph, params, task, config),
    }
    config.out.with_suffix(".card.json").write_text(
        json.dumps(card, indent=2) + "\n", encoding="utf-8"
    )
    print(json.dumps(card, indent=2))


if __name__ == "__main__":
    main(tyro.cli(Config))
