"""Supervised learning of a small policy from (prompt, response) pairs: how base policies are made.

Not a script of its own; those that make bases import it.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.numpy import load_file

from dpsjax.loop.prompts import Sight, tokenize
from dpsjax.policy import Images, Policy, PolicyConfig, token_log_probs
from dpsjax.tasks.base import Problem, Task


def encode(task: Task, prompts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Left-padded int32[B, P] and its mask, of texts."""
    tokens = np.full((len(prompts), task.prompt_tokens), task.tokenizer.pad_id, np.int32)
    mask = np.zeros(tokens.shape, bool)
    for row, prompt in enumerate(prompts):
        ids = task.tokenizer.encode(prompt)
        tokens[row, -len(ids) :] = ids
        mask[row, -len(ids) :] = True
    return tokens, mask


def encode_responses(task: Task, responses: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Right-padded int32[B, T] with the end of sequence, and its mask."""
    tokens = np.full((len(responses), task.response_tokens), task.tokenizer.pad_id, np.int32)
    mask = np.zeros(tokens.shape, bool)
    for row, response in enumerate(responses):
        ids = [*task.tokenizer.encode(response), task.tokenizer.eos_id]
        tokens[row, : len(ids)] = ids
        mask[row, : len(ids)] = True
    return tokens, mask


def encode_seen(
    task: Task, problems: Sequence[Problem], size: int, sight: Sight
) -> tuple[np.ndarray, np.ndarray, Images]:
    """Left-padded int32[B, P], its mask and the pictures, of problems that show some."""
    found = tokenize(problems, task.tokenizer, size, sight=sight)
    return found.tokens, np.arange(size) >= size - found.length[:, None], found.images


def make_step(graph, optimizer: optax.GradientTransformation) -> Callable:
    """One jitted step of maximum likelihood on the response tokens."""

    def loss(params, prompt, prompt_mask, tokens, mask, images=None):
        model = nnx.merge(graph, params)
        log_probs, _ = token_log_probs(model, prompt, prompt_mask, tokens, mask, images=images)
        return -log_probs.sum() / mask.sum().astype(jnp.float32)

    @jax.jit
    def step(params, state, batch):
        value, gradient = jax.value_and_grad(loss)(params, *batch)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    return step


def fit(
    task: Task,
    pairs: Iterator[tuple[str | Problem, str]],
    policy: PolicyConfig,
    *,
    steps: int,
    batch: int,
    learning_rate: float,
    seed: int,
    every: int,
    watch: Callable,
    sight: Sight | None = None,
) -> tuple:
    """Train from random weights.

    Args:
        task: encodes the pairs.
        pairs: endless.
        policy: what is trained.
        steps: optimizer steps; the learning rate falls to a tenth over them.
        batch: pairs in a step.
        learning_rate: peak, after a twentieth of the steps as linear warm-up.
        seed: of the initial weights.
        every: steps between looks.
        watch: ``watch(params) -> str`` is what is printed then.
        sight: given where the pairs are of problems that show pictures.

    Returns:
        ``(graph, params, digest of the pairs)``.
    """
    console = Console()
    graph, params = nnx.split(Policy(policy, rngs=nnx.Rngs(seed)))
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, learning_rate, steps // 20, steps, learning_rate / 10
    )
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(schedule, b2=0.98, weight_decay=0.01)
    )
    state, step, digest = optimizer.init(params), make_step(graph, optimizer), hashlib.sha256()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        bar = progress.add_task("loss ?", total=steps)
        for done in range(1, steps + 1):
            prompts, responses = zip(*islice(pairs, batch), strict=True)
            names = tuple(getattr(prompt, "id", prompt) for prompt in prompts)
            digest.update("\n".join(names + responses).encode())
            answers = encode_responses(task, responses)
            if sight is None:
                rows = (*encode(task, prompts), *answers)
            else:
                tokens, mask, images = encode_seen(task, prompts, task.prompt_tokens, sight)
                rows = (tokens, mask, *answers, images)
            params, state, loss = step(params, state, rows)
            progress.update(bar, advance=1, description=f"loss {float(loss):.3f}")
            if done % every == 0 or done == steps:
                console.print(f"step {done} loss {float(loss):.3f} {watch(params)}")
    return graph, params, digest.hexdigest()


def tensors_sha256(path: Path) -> str:
    """Digest of a file's tensors in the order of their names; its header has no fixed order."""
    digest = hashlib.sha256()
    for name, array in sorted(load_file(path).items()):
        digest.update(name.encode() + array.tobytes())
    return digest.hexdigest()
