"""The training loop: ``state = step(state)`` until the steps are done, and a record of each."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import jax

from dpsjax.grpo.batch import RolloutBatch
from dpsjax.train import metrics, processes
from dpsjax.train.buckets import cut_prompts, cut_responses
from dpsjax.train.metrics import Record
from dpsjax.train.rollout import score_rollouts
from dpsjax.train.rounds import Draw, Groups, RoundReport
from dpsjax.train.setup import Run
from dpsjax.train.stages import GENERATE, round_key, step_key
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
        batch: what the policy learned from.
        errors: what the verifier failed with.
    """

    batch: RolloutBatch
    errors: list[str]


def train_step(run: Run, state: TrainState) -> tuple[TrainState, Record, Step]:
    """One step: select, generate, score, update; the first three again where groups are missing.

    Args:
        run: of :func:`dpsjax.train.setup.prepare`.
        state: before the step; its buffers are donated, do not use it again.

    Returns:
        ``(state, record, step)``.
    """
    clock = Clock()
    group, asked = run.config.grpo.rollouts_per_prompt, run.config.rollout.prompts
    buckets = run.config.rollout.buckets
    rounds: list[RoundReport] = []
    errors: list[str] = []
    more = True
    with jax.set_mesh(run.mesh):
        while more:
            state, draw, groups, failed = _roll_out(run, state, len(rounds), clock)
            errors += failed
            with clock.phase("update"):
                if run.refill is None:
                    short = cut_prompts(draw, buckets, run.mesh)
                    shorter = cut_responses(groups, buckets, run.mesh)
                    state, report, update, batch = run.update(state, short, shorter, run.reference)
                    more = False
                else:
                    state, report = run.refill.collect(state, draw, groups)
                    more = run.refill.wants_more(len(rounds) + 1, int(report.waiting))
                    if not more:
                        state, update, batch = run.refill.update(state, run.reference)
                state = jax.block_until_ready(state)
            rounds.append(report)
    done, rollouts_so_far = int(state.step), int(state.position) * group
    record = metrics.step_record(done, rollouts_so_far, group, rounds, update, clock.total())
    record["groups_waiting"] = 0 if run.refill is None else int(state.pending.size)
    metrics.add_faults(record, group, asked * len(rounds), errors)
    return state, record, Step(batch, errors)


def _roll_out(
    run: Run, state: TrainState, number: int, clock: Clock
) -> tuple[TrainState, Draw, Groups, list[str]]:
    """One round: select, generate, score. The last are the errors of the verifier."""
    key = round_key(state.key, number)
    with clock.phase("select"):
        draw, belief = run.select(state.selector, key, state.step, run.prompts)
        state = jax.block_until_ready(state._replace(selector=belief))
    with clock.phase("generate"):
        short = cut_prompts(draw, run.config.rollout.buckets, run.mesh)
        rollouts = run.generate(
            state.params, step_key(key, state.step, GENERATE), short.prompt, short.prompt_mask
        )
        jax.block_until_ready(rollouts)
    with clock.phase("score"):
        groups, own = score_rollouts(run.task, run.task.train, draw.index, rollouts)
        errors = processes.gather_errors(own)
    return state, draw, groups, errors


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
