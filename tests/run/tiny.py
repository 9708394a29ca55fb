"""A run small enough for tests, on a task that an untrained policy sometimes solves."""

import dataclasses

import jax
import jax.numpy as jnp
from rich.console import Console

from dpsjax.grpo import GRPOConfig, LossConfig
from dpsjax.loop.step import train_step
from dpsjax.run import resume
from dpsjax.run.config import (
    EvaluationConfig,
    MeshConfig,
    ModelConfig,
    RolloutConfig,
    TrainConfig,
)
from dpsjax.run.run import Started, finish
from dpsjax.run.selector_settings import settings
from dpsjax.run.setup import prepare
from dpsjax.tasks.base import Score
from dpsjax.tasks.countdown import CountdownConfig

TASK = CountdownConfig(
    problems=32,
    held_out=16,
    sizes=(2,),
    weights=(1.0,),
    numbers=(1, 20),
    targets=(1, 40),
    response_tokens=8,
)
MODEL = ModelConfig(
    init="random", width=32, mlp_width=64, layers=1, heads=4, kv_heads=2, head_dim=8
)
GROUP = 4


def grpo(**loss) -> GRPOConfig:
    """GRPO with these settings of the loss."""
    return GRPOConfig(rollouts_per_prompt=GROUP, learning_rate=3e-3, loss=LossConfig(**loss))


def config(**changes) -> TrainConfig:
    """Two steps of 4 prompts x 4 rollouts on one device."""
    values = {
        "steps": 2,
        "rollout": RolloutConfig(prompts=4),
        "selector": settings("dps"),
        "model": MODEL,
        "task": TASK,
        "grpo": grpo(),
        "evaluation": EvaluationConfig(every=1, problems=6, samples=2),
        "mesh": MeshConfig(data=1),
    }
    return TrainConfig(**{**values, **changes})


def easy_score(problems, responses):
    """Right if the first character is early enough in the alphabet: how early, by problem."""
    alphabet = "0123456789+-*/() =:"
    scores = []
    for problem, response in zip(problems, responses, strict=True):
        allowed = alphabet[: sum(problem.answer["numbers"]) % 19]
        correct = bool(response) and response[0] in allowed
        scores.append(Score(float(correct), correct, "" if correct else "late"))
    return scores


def easy_run(settings: TrainConfig):
    """A prepared run whose verifier is :func:`easy_score`, and its first state."""
    run, state = prepare(settings)
    return dataclasses.replace(run, task=dataclasses.replace(run.task, score=easy_score)), state


def with_stages(run, **changes):
    """The same run with other programs."""
    return dataclasses.replace(run, stages=run.stages._replace(**changes))


def steps(run, state, count: int):
    """``count`` steps from a copy of ``state``: the new state and the records."""
    state = jax.tree.map(jnp.copy, state)
    records = []
    for _ in range(count):
        state, record, _ = train_step(run, state)
        records.append(record)
    return state, records


def timeless(record: dict) -> dict:
    """A record without what depends on the clock."""
    return {name: value for name, value in record.items() if name != "seconds"}


class Killed(Exception):
    """The process is gone."""


def complete(run, state, folder, generate=None):
    """Train to the end in a folder, from what it holds of the run: the summary."""
    run = dataclasses.replace(run, config=dataclasses.replace(run.config, out=folder))
    run = with_stages(run, generate=generate or run.stages.generate)
    folder.mkdir(parents=True, exist_ok=True)
    found = resume.resume(run, jax.tree.map(jnp.copy, state), folder)
    return finish(Started(run, found.state, found.position, finished=False), Console())


def die_in_call(function, number):
    """``function`` until its call of this number, from 1, in which the process dies."""
    calls = []

    def failing(*arguments):
        calls.append(1)
        if len(calls) == number:
            raise Killed
        return function(*arguments)

    return failing
