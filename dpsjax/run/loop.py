"""The training loop: ``state = step(state)`` until the steps are done, and a record of each."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import jax

from dpsjax.grpo.batch import RolloutBatch
from dpsjax.grpo.update import UpdateMetrics
from dpsjax.loop import metrics
from dpsjax.loop.buckets import cut_prompts, cut_responses
from dpsjax.loop.metrics import Record
from dpsjax.loop.refill import Refill
from dpsjax.loop.rollout import score_rollouts
from dpsjax.loop.rounds import Draw, Groups, RoundReport
from dpsjax.loop.screening import Screening
from dpsjax.loop.stages import CONTINUE, GENERATE, round_key, step_key
from dpsjax.loop.state import TrainState
from dpsjax.run import processes
from dpsjax.run.setup import Run
from dpsjax.types import Key


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
        batch: what the policy learned from.
        errors: what the verifier failed with.
    """

    batch: RolloutBatch
    errors: list[str]


def train_step(run: Run, state: TrainState) -> tuple[TrainState, Record, Step]:
    """One step: select, generate, score, update; the first three again where groups are missing.

    Args:
        run: of :func:`dpsjax.run.setup.prepare`.
        state: before the step; its buffers are donated, do not use it again.

    Returns:
        ``(state, record, step)``.
    """
    clock = Clock()
    with jax.set_mesh(run.mesh):
        if run.screening is not None:
            done = _screened(run, run.screening, state, clock)
        elif run.refill is not None:
            done = _refilled(run, run.refill, state, clock)
        else:
            done = _single(run, state, clock)
    state, asked = done.state, done.rounds[: done.selections]
    rollouts = int(state.rollouts)
    record = metrics.step_record(int(state.step), rollouts, done.rounds, done.update, clock.total())
    record["groups_waiting"] = int(state.pending.size) if state.pending else 0
    wanted = run.config.rollout.prompts * len(asked)
    metrics.add_faults(record, asked, wanted, done.errors)
    return state, record, Step(done.batch, done.errors)


class _Done(NamedTuple):
    """A step that is done; ``selections`` of its rounds, the first ones, chose prompts."""

    state: TrainState
    rounds: list[RoundReport]
    selections: int
    update: UpdateMetrics
    batch: RolloutBatch
    errors: list[str]


def _single(run: Run, state: TrainState, clock: Clock) -> _Done:
    """One round, and the update."""
    buckets = run.config.rollout.buckets
    state, draw, groups, errors = _roll_out(run, state, 0, clock)
    with clock.phase("update"):
        short = cut_prompts(draw, buckets, run.mesh)
        shorter = cut_responses(groups, buckets, run.mesh)
        state, report, update, batch = run.update(state, short, shorter, run.reference)
        state = jax.block_until_ready(state)
    return _Done(state, [report], 1, update, batch, errors)


def _refilled(run: Run, refill: Refill, state: TrainState, clock: Clock) -> _Done:
    """Rounds until enough groups are accepted, and the update."""
    state, rounds, errors = _collect(run, refill, state, clock)
    with clock.phase("update"):
        state, update, batch = refill.update(state, run.reference)
        state = jax.block_until_ready(state)
    return _Done(state, rounds, len(rounds), update, batch, errors)


def _screened(run: Run, screening: Screening, state: TrainState, clock: Clock) -> _Done:
    """Rounds until enough prompts passed, the rest of their rollouts, and the update."""
    state, rounds, errors = _collect(run, screening, state, clock)
    state, draw, held = screening.release(state)
    groups, failed = _generate(run, screening.generate, state, state.key, CONTINUE, draw, clock)
    with clock.phase("update"):
        state, report, update, batch = screening.update(state, draw, held, groups, run.reference)
        state = jax.block_until_ready(state)
    return _Done(state, [*rounds, report], len(rounds), update, batch, errors + failed)


def _collect(
    run: Run, filling: Refill | Screening, state: TrainState, clock: Clock
) -> tuple[TrainState, list[RoundReport], list[str]]:
    """Rounds until enough wait."""
    rounds: list[RoundReport] = []
    errors: list[str] = []
    waiting = 0
    while waiting < filling.batch_size and len(rounds) < filling.max_rounds:
        state, draw, groups, failed = _roll_out(run, state, len(rounds), clock)
        errors += failed
        with clock.phase("update"):
            state, report = filling.collect(state, draw, groups)
            rounds.append(report)
            waiting = int(report.waiting)
            state = jax.block_until_ready(state)
    return state, rounds, errors


def _roll_out(
    run: Run, state: TrainState, number: int, clock: Clock
) -> tuple[TrainState, Draw, Groups, list[str]]:
    """One round: select, generate, score. The last are the errors of the verifier."""
    key = round_key(state.key, number)
    with clock.phase("select"):
        draw, belief = run.select(state.selector, key, state.step, run.prompts)
        state = jax.block_until_ready(state._replace(selector=belief))
    groups, errors = _generate(run, run.generate, state, key, GENERATE, draw, clock)
    return state, draw, groups, errors


def _generate(
    run: Run, generate: Callable, state: TrainState, key: Key, use: int, draw: Draw, clock: Clock
) -> tuple[Groups, list[str]]:
    """Responses to a draw, scored, and the errors of the verifier."""
    with clock.phase("generate"):
        short = cut_prompts(draw, run.config.rollout.buckets, run.mesh)
        rollouts = generate(
            state.params, step_key(key, state.step, use), short.prompt, short.prompt_mask
        )
        jax.block_until_ready(rollouts)
    with clock.phase("score"):
        groups, own = score_rollouts(run.task, run.task.train, draw.index, rollouts)
        return groups, processes.gather_errors(own)


def train(
    run: Run, state: TrainState, elapsed: float = 0.0
) -> Iterator[tuple[TrainState, Record, Step]]:
    """Train to the end, evaluating on the way.

    Args:
        run: of :func:`dpsjax.run.setup.prepare`.
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
