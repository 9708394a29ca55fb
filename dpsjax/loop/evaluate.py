"""Held-out accuracy: the same problems and the same random keys, every time."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from dpsjax.grpo.mesh import batch_sharding, replicated
from dpsjax.loop.prompts import gather, tokenize
from dpsjax.loop.rollout import score_rollouts
from dpsjax.tasks.base import Problem, Task
from dpsjax.types import Key, PyTree

# The slice does not depend on the run's seed: runs that are compared answer the same problems.
SLICE_SEED = 0


class Accuracy(NamedTuple):
    """Share of correct responses.

    Attributes:
        mean: over all problems.
        by_source: over those of each source.
        unscored: responses on which the verifier gave no verdict; they count as wrong.
    """

    mean: float
    by_source: dict[str, float]
    unscored: int = 0


def uniform_slice(problems: Sequence[Problem], size: int) -> tuple[Problem, ...]:
    """Distinct problems, each equally likely to be among them; always the same for a size.

    Args:
        problems: what to draw from.
        size: how many.

    Returns:
        the slice, in the order of ``problems``.

    Raises:
        ValueError: there are not that many problems.
    """
    if size > len(problems):
        raise ValueError(f"size={size} must not exceed the {len(problems)} problems there are")
    chosen = np.random.default_rng(SLICE_SEED).permutation(len(problems))[:size]
    return tuple(problems[i] for i in np.sort(chosen))


def make_evaluate(
    task: Task, problems: Sequence[Problem], generate: Callable, rows: int, mesh: Mesh, key: Key
) -> Callable[[PyTree], Accuracy]:
    """Build the evaluation.

    Args:
        task: decodes and scores.
        problems: the slice.
        generate: of :func:`dpsjax.loop.stages.make_generate`, one compilation.
        rows: problems answered at a time, a multiple of the devices that share a batch.
        mesh: the devices.
        key: the same for every evaluation.

    Returns:
        ``evaluate(params) -> Accuracy``.
    """
    count = -(-len(problems) // rows)
    prompts = jax.tree.map(jnp.asarray, tokenize(problems, task.tokenizer, task.prompt_tokens))
    index = np.full(count * rows, -1, np.int32)
    index[: len(problems)] = np.arange(len(problems))
    split = batch_sharding(mesh)
    chunks = []
    for ids in index.reshape(count, rows):
        ids = jnp.asarray(ids)
        chunks.append(jax.device_put((ids, *gather(prompts, ids)), split))
    whole = jax.jit(lambda values: values, out_shardings=replicated(mesh))

    def evaluate(params: PyTree) -> Accuracy:
        correct, valid = [], []
        for number, (ids, prompt, mask) in enumerate(chunks):
            rollouts = generate(params, jax.random.fold_in(key, number), prompt, mask)
            groups, _ = score_rollouts(task, problems, ids, rollouts)
            correct.append(np.asarray(whole(groups.correct)))
            valid.append(np.asarray(whole(groups.valid)))
        rates = np.concatenate(correct)[: len(problems)].mean(axis=1)
        unscored = int((~np.concatenate(valid)[: len(problems)]).sum())
        return _summarize(problems, rates)._replace(unscored=unscored)

    return evaluate


def _summarize(problems: Sequence[Problem], rates: np.ndarray) -> Accuracy:
    groups = defaultdict(list)
    for problem, rate in zip(problems, rates, strict=True):
        groups[problem.source].append(rate)
    means = {source: float(np.mean(groups[source])) for source in sorted(groups)}
    return Accuracy(float(rates.mean()), means)
