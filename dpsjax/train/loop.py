"""The training loop: ``state = step(state)`` until the steps are done, and a record of each."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import jax

from dpsjax.train import metrics, processes
from dpsjax.train.metrics import Record
from dpsjax.train.rollout import score_rollouts
from dpsjax.train.setup import Run
from dpsjax.train.stages import GENERATE, Draw, Groups, step_key
from dpsjax.train.state import TrainState


class Clock:
    """Seconds by phase of one step; a phase ends when its results are ready."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str):
        """Add the time spent inside to phase ``name``."""
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def total(self) -> dict[str, float]:
        """All phases, and ``step``: everything since the clock was made."""
        return {**self.seconds, "step": time.perf_counter() - self.start}


class Step(NamedTuple):
    """What a step was made of, beside its record.

    Attributes:
        draw: its prompts.
        groups: its scored rollouts.
        errors: what the verifier failed with.
    """

    draw: Draw
    groups: Groups
    errors: list[str]


def train_step(run: Run, state: TrainState) -> tuple[TrainState, Record, Step]:
    """One step: select, generate, score, update.

    Args:
        run: of :func:`dpsjax.train.setup.prepare`.
        state: before the step; its buffers are donated, do not use it again.

    Returns:
        ``(state, record, step)``.
    """
    clock = Clock()
    group = run.config.grpo.rollouts_per_prompt
    with jax.set_mesh(run.mesh):
        with clock.phase("select"):
            draw, belief = run.select(state.selector, state.key, state.step, run.prompts)
            state = jax.block_until_ready(state._replace(selector=belief))
        with clock.phase("generate"):
            key = step_key(state.key, state.step, GENERATE)
            rollouts = run.generate(state.params, key, draw.prompt, draw.prompt_mask)
            jax.block_until_ready(rollouts)
        with clock.phase("score"):
            groups, own = score_rollouts(run.task, run.task.train, draw.index, rollouts)
            errors = processes.gather_errors(own)
        with clock.phase("update"):
            state, report = run.update(state, draw, groups, run.reference)
            state = jax.block_until_ready(state)
    done, rollouts_so_far = int(state.step), int(state.position) * group
    record = metrics.step_record(done, rollouts_so_far, report, clock.total())
    metrics.add_faults(record, group, run.config.rollout.prompts, errors)
    return state, record, Step(draw, groups, errors)


def train(
    run: Run, state: TrainState, elapsed: float = 0.0
) -> Iterator[tuple[TrainState, Record, Step]]:
    """Train to the end, evaluating on the way.

    Args:
        run: of :func:`dpsjax.train.setup.prepare`.
        state: of a new run, or of one to continue; donated.
        elapsed: seconds of training before this call.

    Yields:
        after every step, what :func:`train_step` returns. The next step donates the state.
    """
    started = time.perf_counter() - elapsed
    evaluation = run.config.evaluation
    before = _evaluate(run, state) if int(state.step) == 0 else None
    while int(state.step) < run.config.steps:
        state, record, step = train_step(run, state)
        if before is not None:
            metrics.add_held_out(record, before, "held_out_before")
            before = None
        if record["step"] % evaluation.every == 0 or record["step"] == run.config.steps:
            clock = Clock()
            metrics.add_held_out(record, _evaluate(run, state))
            record["seconds"]["evaluate"] = round(clock.total()["step"], 4)
        record["seconds"]["elapsed"] = round(time.perf_counter() - started, 4)
        yield state, record, step


def _evaluate(run: Run, state: TrainState):
    with jax.set_mesh(run.mesh):
        return run.evaluate(state.params)
