"""A real policy as a student: what it is asked, and its pass rates, exactly.

Where each problem has one right response, the probability of that response is the pass rate: one
forward pass tells it of every problem, and no evaluation samples anything.
"""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from dpsjax import checks
from dpsjax.loop.prompts import Prompts, gather, tokenize
from dpsjax.policy import Sampling, abstract_policy, load_weights, token_log_probs
from dpsjax.tasks.base import Problem, Task
from dpsjax.tasks.features import prompt_features
from dpsjax.types import Array, Bool, Float, Int, PyTree

_COLD = 1e-4  # a temperature at which only the most likely tokens have a probability


class Problems(NamedTuple):
    """Problems with one right response each, as arrays."""

    prompts: Prompts  # int32[N, P], int32[N]
    answer: Int[Array, "N T"]  # with the end of sequence
    mask: Bool[Array, "N T"]


class PolicyStudent(NamedTuple):
    """A policy, what it is asked, and how it answers."""

    graph: nnx.GraphDef
    params: PyTree
    pool: Problems
    held_out: Problems
    sampling: Sampling
    features: Float[Array, "N F"]  # of the pool, for selectors: what the prompts' texts are made of


def problems_of(task: Task, problems: tuple[Problem, ...]) -> Problems:
    """Problems as arrays.

    Args:
        task: its ``answer`` to each problem is the one right response, a text.
        problems: of the task.

    Raises:
        TypeError: an answer is no text.
        ValueError: a prompt or an answer is too long.
    """
    checks.require_type(Task, "a Task", task=task)
    checks.require_items(Problem, "a Problem", problems=problems)
    answers = [problem.answer for problem in problems]
    checks.require_items(str, "the one right response, a text", answers=answers)
    if any(problem.images for problem in problems):
        raise ValueError("problems show pictures, and policies of the laboratory see none")
    size = task.response_tokens
    tokens = np.full((len(problems), size), task.tokenizer.pad_id, np.int32)
    length = np.zeros((len(problems), 1), np.int32)
    for row, answer in enumerate(answers):
        ids = [*task.tokenizer.encode(answer), task.tokenizer.eos_id]
        if len(ids) > size:
            raise ValueError(f"answer {answer!r} has {len(ids)} tokens, and {size} are allowed")
        tokens[row, : len(ids)], length[row] = ids, len(ids)
    prompts = tokenize(problems, task.tokenizer, task.prompt_tokens)
    mask = jnp.asarray(np.arange(size) < length)
    return Problems(jax.tree.map(jnp.asarray, prompts), jnp.asarray(tokens), mask)


def policy_student(task: Task, weights: Path | str, temperature: float = 1.0) -> PolicyStudent:
    """A policy on a task.

    Args:
        task: one whose problems have one right response each.
        weights: safetensors, made for the task's tokenizer.
        temperature: of the rollouts; pass rates are at this temperature.

    Returns:
        the student.

    Raises:
        ValueError: the weights are for another vocabulary.
    """
    checks.require_type(Task, "a Task", task=task)
    checks.require_real(temperature=temperature)
    checks.require_setting(temperature > 0, "temperature", temperature, "above 0")
    policy, params = load_weights(Path(weights))
    if policy.vocab_size != task.tokenizer.vocab_size:
        raise ValueError(
            f"weights={str(weights)!r} have a vocabulary of {policy.vocab_size} tokens, and the "
            f"task has {task.tokenizer.vocab_size}: use weights made for this task"
        )
    sampling = Sampling(
        max_tokens=task.response_tokens,
        temperature=temperature,
        stop_ids=(task.tokenizer.eos_id,),
        pad_id=task.tokenizer.pad_id,
    )
    return PolicyStudent(
        abstract_policy(policy)[0],
        params,
        problems_of(task, task.train),
        problems_of(task, task.test),
        sampling,
        jnp.asarray(prompt_features(task.train)),
    )


def exact_rates(
    student: PolicyStudent, params: PyTree, problems: Problems, temperature: float | None = None
) -> Float[Array, "N"]:
    """The pass rate of every problem: the probability of its one right response.

    Args:
        student: the architecture.
        params: of the policy.
        problems: what is asked.
        temperature: of the rollouts; the student's own if not given.

    Returns:
        float32[N].
    """
    rows = jnp.arange(problems.answer.shape[0], dtype=jnp.int32)
    prompt, prompt_mask = gather(problems.prompts, rows)
    log_probs, _ = token_log_probs(
        nnx.merge(student.graph, params),
        prompt,
        prompt_mask,
        problems.answer,
        problems.mask,
        temperature=student.sampling.temperature if temperature is None else temperature,
    )
    return jnp.clip(jnp.exp(log_probs.sum(axis=1)), 0.0, 1.0)


def solves(
    problems: Problems, index: Int[Array, "B"], tokens: Int[Array, "B G T"]
) -> Bool[Array, "B G"]:
    """The verifier: whether a response is the right one, to its end of sequence.

    Args:
        problems: what was asked.
        index: of the problem of each row; -1 is padding.
        tokens: responses.

    Returns:
        bool[B, G].
    """
    rows = jnp.maximum(index, 0)
    answer, mask = problems.answer[rows][:, None], problems.mask[rows][:, None]
    return ((tokens == answer) | ~mask).all(axis=-1)


def greedy_accuracy(student: PolicyStudent, params: PyTree, problems: Problems) -> Float[Array, ""]:
    """Share of problems whose right response consists of the most likely tokens."""
    return (exact_rates(student, params, problems, _COLD) > 0.5).astype(jnp.float32).mean()
