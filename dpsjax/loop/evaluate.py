"""Held-out accuracy: the same problems and the same random keys, every time.

Reinforcement learning may only sharpen: a policy that was right now and then is right more often,
and no problem is solved that a lower temperature had not solved. So every evaluation also takes
the likeliest response, and the policy is tried at several temperatures before it learns.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from dpsjax.grpo.mesh import batch_sharding, replicated
from dpsjax.loop.groups import cut_off
from dpsjax.loop.prompts import Sight, gather, gather_images, tokenize
from dpsjax.loop.responses import Response
from dpsjax.loop.rollout import score_rollouts
from dpsjax.tasks.base import Problem, Task, stop_ids
from dpsjax.types import Key, PyTree

# The slice does not depend on the run's seed: runs that are compared answer the same problems.
SLICE_SEED = 0
# At which a policy is tried before it learns, beside 0 and the temperature of the evaluations.
TEMPERATURES = (0.25, 0.5, 0.75)


class Accuracy(NamedTuple):
    """Share of correct responses.

    Attributes:
        mean: over all problems, sampled.
        by_source: over those of each source, sampled.
        greedy: over all problems, the likeliest response to each.
        unscored: responses on which the verifier gave no verdict; they count as wrong.
        truncated: responses without an end within their limit.
        responses: of this process, by problem; the last of each problem's is the likeliest.
    """

    mean: float
    by_source: dict[str, float]
    greedy: float
    unscored: int
    truncated: int = 0
    responses: Sequence[Response] = ()


class _Answers(NamedTuple):
    """To all problems: whether right and scored, bool[N, G]; how many cut off; this process's."""

    correct: np.ndarray
    valid: np.ndarray
    truncated: int
    responses: list[Response]


class Evaluation(NamedTuple):
    """Of :func:`make_evaluate`. Both are one compilation together.

    Attributes:
        accuracy: ``accuracy(params) -> Accuracy``.
        by_temperature: ``by_temperature(params)``: the accuracy at each of :data:`TEMPERATURES`.
    """

    accuracy: Callable[[PyTree], Accuracy]
    by_temperature: Callable[[PyTree], dict[float, float]]


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
    task: Task,
    problems: Sequence[Problem],
    generate: Callable,
    temperatures: Sequence[float],
    rows: int,
    mesh: Mesh,
    key: Key,
    sight: Sight | None = None,
) -> Evaluation:
    """Build the evaluation.

    Args:
        task: decodes and scores.
        problems: the slice.
        generate: of :func:`dpsjax.loop.stages.make_generate`, with a group of one more than the
            ``temperatures``; one compilation.
        temperatures: of the sampled responses to a problem; one more is the likeliest.
        rows: problems answered at a time, a multiple of the devices that share a batch.
        mesh: the devices.
        key: the same for every evaluation.
        sight: of the pictures, if the task shows some.

    Returns:
        the evaluation.
    """
    count = -(-len(problems) // rows)
    found = tokenize(problems, task.tokenizer, task.prompt_tokens, sight=sight)
    prompts = jax.tree.map(jnp.asarray, found)
    index = np.full(count * rows, -1, np.int32)
    index[: len(problems)] = np.arange(len(problems))
    split = batch_sharding(mesh)
    chunks = []
    for ids in index.reshape(count, rows):
        ids = jnp.asarray(ids)
        shown = () if sight is None else (gather_images(prompts, ids),)
        chunks.append(jax.device_put((ids, *gather(prompts, ids), *shown), split))
    whole = jax.jit(lambda values: values, out_shardings=replicated(mesh))
    stops = stop_ids(task.tokenizer)
    truncated = jax.jit(lambda ids, made: cut_off(ids, made, stops), out_shardings=replicated(mesh))

    def answer(params: PyTree, of_group: Sequence[float]) -> _Answers:
        """The responses at these temperatures."""
        correct, valid, cut, responses = [], [], [], []
        for number, (ids, prompt, mask, *shown) in enumerate(chunks):
            own = jax.random.fold_in(key, number)
            heat = np.asarray(of_group, np.float32)
            rollouts = generate(params, own, prompt, mask, heat, *shown)
            judged = score_rollouts(task, problems, ids, rollouts)
            correct.append(np.asarray(whole(judged.groups.correct)))
            valid.append(np.asarray(whole(judged.groups.valid)))
            cut.append(int(truncated(ids, rollouts)))
            responses += judged.responses
        size = len(problems)
        found = np.concatenate(correct)[:size], np.concatenate(valid)[:size]
        return _Answers(*found, sum(cut), responses)

    def accuracy(params: PyTree) -> Accuracy:
        correct, valid, cut, responses = answer(params, (*temperatures, 0.0))
        rates = correct[:, :-1].mean(axis=1)
        by_source = _by_source(problems, rates)
        greedy = float(correct[:, -1].mean())
        unscored = int((~valid).sum())
        return Accuracy(float(rates.mean()), by_source, greedy, unscored, cut, responses)

    def by_temperature(params: PyTree) -> dict[float, float]:
        group = len(temperatures) + 1
        turns = -(-len(TEMPERATURES) // group)
        tried = np.resize(TEMPERATURES, turns * group)  # some twice, to fill the last turn
        correct = [answer(params, turn).correct for turn in tried.reshape(turns, group).tolist()]
        rates = np.concatenate(correct, axis=1).mean(axis=0)
        return {value: float(rates[tried == value].mean()) for value in TEMPERATURES}

    return Evaluation(accuracy, by_temperature)


def _by_source(problems: Sequence[Problem], rates: np.ndarray) -> dict[str, float]:
    groups = defaultdict(list)
    for problem, rate in zip(problems, rates, strict=True):
        groups[problem.source].append(rate)
    return {source: float(np.mean(groups[source])) for source in sorted(groups)}
