"""Many responses to every problem, written down as they are made, and what they come to."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from dpsjax.grpo.batch import round_up
from dpsjax.grpo.mesh import batch_sharding
from dpsjax.loop import build
from dpsjax.loop.prompts import gather, gather_images, longest, sight_of, tokenize
from dpsjax.loop.responses import line_of
from dpsjax.loop.rollout import score_rollouts
from dpsjax.policy import Compute, PolicyConfig, Sampling
from dpsjax.report.at_k import interval, maj_at_k, pass_at_k
from dpsjax.report.pool_file import read_lines
from dpsjax.report.response_file import append_responses
from dpsjax.tasks.base import Problem, Task
from dpsjax.types import PyTree

Line = dict[str, Any]


class Asked(NamedTuple):
    """A policy and what it is asked.

    Attributes:
        policy: Architecture.
        compute: How it is computed.
        params: Its parameters, on the mesh.
        mesh: The devices.
        task: Decodes and scores.
        problems: Each gets ``samples`` responses.
        sampling: How they are drawn.
        samples: G.
        rows: Problems at a time.
        seed: Of all randomness.
        step: That the policy had made, for the lines.
        characters: Of a text that is written down.
    """

    policy: PolicyConfig
    compute: Compute
    params: PyTree
    mesh: Mesh
    task: Task
    problems: Sequence[Problem]
    sampling: Sampling
    samples: int
    rows: int
    seed: int
    step: int
    characters: int


def answer(asked: Asked, path: Path, report: Callable[[int, list[Line]], None]) -> list[Line]:
    """Have all problems answered; what the file holds already is not asked again.

    The responses to some problems are a function of the settings and of their place, so one that
    was stopped goes on as if it had not been.

    Args:
        asked: of one process.
        path: of the responses, a line each; it need not exist.
        report: called with the number of problems that are done and all lines so far.

    Returns:
        a line for each response, those to a problem one after the other.

    Raises:
        OSError: the file cannot be written.
    """
    rows = round_up(asked.rows, asked.mesh.shape["data"] * asked.mesh.shape["fsdp"])
    each = rows * asked.samples
    lines = read_lines(path) if path.exists() else []
    total = len(asked.problems) * asked.samples
    lines = lines[: len(lines) if len(lines) == total else len(lines) // each * each]
    with path.open("w", encoding="utf-8") as stream:
        append_responses(stream, lines)
        report(len(lines) // asked.samples, lines)
        for new in _answers(asked, rows, len(lines) // each if len(lines) < total else -1):
            append_responses(stream, new)
            lines += new
            report(len(lines) // asked.samples, lines)
    return lines


def _answers(asked: Asked, rows: int, first: int) -> Iterator[list[Line]]:
    """The lines of turn after turn, from the first that is missing; -1: none is."""
    if first < 0:
        return
    task, problems, split = asked.task, asked.problems, batch_sharding(asked.mesh)
    turns = -(-len(problems) // rows)
    index = np.full(turns * rows, -1, np.int32)
    index[: len(problems)] = np.arange(len(problems))
    key = jax.random.key(asked.seed)
    with jax.set_mesh(asked.mesh):
        sight = sight_of(task, asked.policy.vision)
        size = task.prompt_tokens
        if sight is not None:
            size = longest(task, asked.policy.vision)
        found = tokenize(problems, task.tokenizer, size, sight=sight)
        prompts = jax.tree.map(jnp.asarray, found)
        heat = np.full(asked.samples, asked.sampling.temperature, np.float32)
        generate = build.generation(
            asked.policy, asked.compute, asked.sampling, asked.samples, asked.mesh
        )
        for turn in range(first, turns):
            ids = jnp.asarray(index[turn * rows : (turn + 1) * rows])
            shown = () if sight is None else (gather_images(prompts, ids),)
            ids, *rest = jax.device_put((ids, *gather(prompts, ids), *shown), split)
            own = jax.random.fold_in(key, turn)
            rollouts = generate(asked.params, own, *rest[:2], heat, *rest[2:])
            made = score_rollouts(task, problems, ids, rollouts).responses
            yield [
                {"id": problems[r.prompt].id}
                | line_of(asked.step, "held-out", problems[r.prompt], r, asked.characters)
                for r in made
            ]


def measures(lines: Sequence[Line], samples: int, ks: Sequence[int]) -> dict[str, Any]:
    """What the responses come to, of all problems and of those of each source.

    Args:
        lines: of :func:`answer`.
        samples: G, the lines of a problem.
        ks: for pass@k and maj@k.

    Returns:
        JSON-serialisable: ``all`` and ``sources``, each with ``problems`` and ``measures``, by
        name, with ``value``, ``low`` and ``high`` of the 95 % interval (problems are the clusters).
        Responses without a verdict count as wrong, and are counted.
    """
    correct = np.array([row["correct"] is True for row in lines]).reshape(-1, samples)
    answers = [row["answer"] or "" for row in lines]
    answers = [answers[start : start + samples] for start in range(0, len(answers), samples)]
    columns = {f"pass@{k}": pass_at_k(correct, k) for k in ks}
    columns |= {f"maj@{k}": maj_at_k(correct, answers, k) for k in ks if k > 1}
    sources = np.array([row["source"] for row in lines[::samples]])

    def of(rows: np.ndarray) -> dict[str, Any]:
        found = {}
        for name, values in columns.items():
            low, high = interval(np.clip(values[rows], 0, 1), samples)
            found[name] = {"value": float(values[rows].mean()), "low": low, "high": high}
        return {"problems": int(rows.sum()), "measures": found}

    return {
        "all": of(np.ones(len(sources), bool)),
        "sources": {str(source): of(sources == source) for source in sorted(set(sources))},
        "samples": samples,
        "unscored": sum(row["correct"] is None for row in lines),
        "truncated": sum(row["truncated"] for row in lines),
        "tokens": sum(row["tokens"] for row in lines) / len(lines),
    }


class Progress:
    """Lines of progress: how many problems, how many right, and when it will end.

    Args:
        problems: of all.
        samples: G.
        say: called with a line, at most every few seconds.
    """

    def __init__(self, problems: int, samples: int, say: Callable[[str], None]) -> None:
        self.problems, self.samples, self.say = problems, samples, say
        self.begun = self.said = time.monotonic()
        self.first: tuple[int, float] | None = None
        self.turns = 0

    def __call__(self, done: int, lines: Sequence[Line]) -> None:
        """Tell, if it is time."""
        now = time.monotonic()
        if self.first is None:
            self.first = (done, now)
            if done:
                self.say(f"{done} of {self.problems} problems are answered already")
            return
        self.turns += 1
        start, since = self.first
        left = (now - since) / (done - start) * (self.problems - done)
        if self.turns == 1:  # it compiled: the estimate goes on without it
            self.first = (done, now)
        if now - self.said < 5 and done < self.problems:
            return
        self.said = now
        right = sum(row["correct"] is True for row in lines) / len(lines)
        self.say(
            f"{done}/{self.problems} problems  pass@1 {right:.3f}  {now - self.begun:.0f} s  "
            f"ETA {left:.0f} s"
        )
