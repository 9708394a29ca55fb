"""Make the base policy that ships with the package, by supervised learning from scratch.

    python experiments/make_countdown_base.py

writes ``dpsjax/tasks/assets/countdown_base.safetensors`` and beside it a card of how it was made
and what it measures. Its problems come from ``warm_start``, which shares none with the training
and held-out problems of any Countdown task.

The base is meant to be weak: sure of the small problems, rarely right on the large ones, so that
reinforcement learning has something to do and most prompts teach nothing at any one time.
"""

import dataclasses
import hashlib
import json
import shlex
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from flax import nnx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.numpy import load_file

from dpsjax.loop.prompts import tokenize
from dpsjax.policy import Policy, Sampling, generate, save_weights, tiny_config, token_log_probs
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
    steps: int = 1200
    """Most optimizer steps; the learning rate falls to a tenth over them."""
    weights: tuple[float, float, float, float] = (0.5, 0.25, 0.2, 0.05)
    """Share of problems with 2, 3, 4 and 5 numbers; few large ones keep those hard."""
    batch: int = 128
    """Problems in a step."""
    learning_rate: float = 2e-3
    """Peak, after a twentieth of the steps as linear warm-up."""
    evaluate_every: int = 200
    """Steps between evaluations on the held-out problems."""
    stop_at: float = 1.0
    """End early once the held-out accuracy reaches this."""
    rollouts: int = 8
    """Responses to each training prompt when the final base is measured."""


def encode(task: Task, prompts: Sequence[str]) -> tuple:
    """Left-padded int32[B, P] and its mask."""
    problems = [Problem(prompt, None, "") for prompt in prompts]
    tokens, length = tokenize(problems, task.tokenizer, task.prompt_tokens)
    return tokens, np.arange(task.prompt_tokens) >= task.prompt_tokens - length[:, None]


def batches(task: Task, config: Config, digest) -> Iterator[tuple]:
    """Endless (prompt, prompt_mask, tokens, mask); ``digest`` sees every pair."""
    pairs = warm_start(config.seed, weights=config.weights)
    while True:
        prompts, solutions = zip(*islice(pairs, config.batch), strict=True)
        digest.update("\n".join(prompts + solutions).encode())
        tokens = np.full((config.batch, task.response_tokens), task.tokenizer.pad_id, np.int32)
        mask = np.zeros(tokens.shape, bool)
        for row, solution in enumerate(solutions):
            ids = [*task.tokenizer.encode(solution), task.tokenizer.eos_id]
            tokens[row, : len(ids)] = ids
            mask[row, : len(ids)] = True
        yield *encode(task, prompts), tokens, mask


def make_step(graph, optimizer: optax.GradientTransformation):
    """One jitted step of maximum likelihood on the response tokens."""

    def loss(params, prompt, prompt_mask, tokens, mask):
        model = nnx.merge(graph, params)
        log_probs, _ = token_log_probs(model, prompt, prompt_mask, tokens, mask)
        return -log_probs.sum() / mask.sum().astype(jnp.float32)

    @jax.jit
    def step(params, state, batch):
        value, gradient = jax.value_and_grad(loss)(params, *batch)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    return step


def make_sampler(graph, task: Task, group: int):
    """``passes(params, key, problems)``: how many of ``group`` responses are right, int[B]."""
    tokenizer = task.tokenizer
    sampling = Sampling(
        max_tokens=task.response_tokens, stop_ids=(tokenizer.eos_id,), pad_id=tokenizer.pad_id
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
    """What a reader of the card wants to know, at temperature 1."""
    key = jax.random.key(config.seed + 1)
    passes = make_sampler(graph, task, config.rollouts)
    test = passes(params, jax.random.fold_in(key, 0), task.test)
    train = passes(params, jax.random.fold_in(key, 1), task.train)
    mixed = (train > 0) & (train < config.rollouts)
    return {
        "held_out_pass_rate": by_source(task.test, test / config.rollouts),
        "train_pass_rate": by_source(task.train, train / config.rollouts),
        "train_all_wrong": by_source(task.train, train == 0),
        "train_mixed": by_source(task.train, mixed),
        "train_all_right": by_source(task.train, train == config.rollouts),
    }


def tensors_sha256(path: Path) -> str:
    """Digest of a file's tensors in the order of their names; its header has no fixed order."""
    digest = hashlib.sha256()
    for name, array in sorted(load_file(path).items()):
        digest.update(name.encode() + array.tobytes())
    return digest.hexdigest()


def train(config: Config, task: Task) -> tuple:
    """Graph, parameters, steps done and the digest of what was learned from."""
    console = Console()
    model = Policy(tiny_config(task.tokenizer.vocab_size), rngs=nnx.Rngs(config.seed))
    graph, params = nnx.split(model)
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, config.steps // 20, config.steps, config.learning_rate / 10
    )
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(schedule, b2=0.98, weight_decay=0.01)
    )
    state = optimizer.init(params)
    step, passes = make_step(graph, optimizer), make_sampler(graph, task, 1)
    digest = hashlib.sha256()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        bar = progress.add_task("loss ?", total=config.steps)
        for done, batch in enumerate(islice(batches(task, config, digest), config.steps), 1):
            params, state, loss = step(params, state, batch)
            progress.update(bar, advance=1, description=f"loss {float(loss):.3f}")
            if done % config.evaluate_every and done != config.steps:
                continue
            right = by_source(task.test, passes(params, jax.random.key(done), task.test))
            console.print(f"step {done} loss {float(loss):.3f} held-out {right}")
            if right["all"] >= config.stop_at:
                break
    return graph, params, done, digest.hexdigest()


def main(config: Config) -> None:
    """Train, measure, save."""
    start = time.monotonic()
    task = countdown()
    graph, params, steps, data = train(config, task)
    model = nnx.merge(graph, params)
    config.out.parent.mkdir(parents=True, exist_ok=True)
    save_weights(config.out, model.config, params)
    card = {
        "what": "base policy of the default Countdown task, supervised from scratch",
        "command": shlex.join(["python", *sys.argv]),
        "seed": config.seed,
        "steps": steps,
        "batch": config.batch,
        "parameters": model.config.num_params(),
        "data_sha256": data,
        "task_sha256": task.fingerprint(),
        "tensors_sha256": tensors_sha256(config.out),
        "seconds": round(time.monotonic() - start),
        "jax": jax.__version__,
        "temperature": 1.0,
        "rollouts": config.rollouts,
        **measure(graph, params, task, config),
    }
    config.out.with_suffix(".card.json").write_text(json.dumps(card, indent=2) + "\n")
    print(json.dumps(card, indent=2))


if __name__ == "__main__":
    main(tyro.cli(Config))
