"""One training step: ``state = step(state)``, and a record of what happened."""

import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from dpsjax.grpo.batch import RolloutBatch
from dpsjax.loop import metrics
from dpsjax.loop.buckets import cut, cut_prompts
from dpsjax.loop.build import Stages
from dpsjax.loop.collect import Collector, RoundReport
from dpsjax.loop.groups import Collected, Draw, Groups
from dpsjax.loop.metrics import Record
from dpsjax.loop.prompts import Prompts
from dpsjax.loop.responses import Response, Sample, choose, line_of
from dpsjax.loop.rollout import score_rollouts
from dpsjax.loop.scoring import Overlong, gather_errors
from dpsjax.loop.stages import CONTINUE, GENERATE, Updated, round_key, step_key, without_policy
from dpsjax.loop.state import TrainState
from dpsjax.tasks.base import Task
from dpsjax.types import Key, PyTree


@dataclass(frozen=True)
class Loop:
    """All that a step needs besides its state. Nothing in it changes during a run.

    Attributes:
        task: Problems and verifier.
        mesh: The devices.
        stages: The programs.
        collector: How groups come together for an update.
        prompts: The pool, on the devices.
        reference: What the update refers to: parameters, those below adapters, or None.
        buckets: Widths that a step may be padded to.
        sample: Which responses are kept to be read.
        overlong: What long responses lose of their rewards, if anything.
    """

    task: Task
    mesh: Mesh
    stages: Stages
    collector: Collector
    prompts: Prompts
    reference: PyTree
    buckets: int
    sample: Sample
    overlong: Overlong | None

    def whole(self, params: PyTree) -> PyTree:
        """Parameters of the policy, of those that are trained; the same but for adapters."""
        return params if self.stages.merge is None else self.stages.merge(self.reference, params)


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
        responses: the kept ones, of :func:`dpsjax.loop.responses.line_of`; of this process.
    """

    batch: RolloutBatch
    errors: list[str]
    responses: list[dict[str, Any]]


class _Notes(NamedTuple):
    """What the host side of a step gathers."""

    clock: Clock
    errors: list[str]
    responses: list[Response]


def train_step(loop: Loop, state: TrainState) -> tuple[TrainState, Record, Step]:
    """One step: rounds of select, generate, score and offer until a batch is ready; the update.

    Args:
        loop: what it needs.
        state: before the step; its buffers are donated, do not use it again.

    Returns:
        ``(state, record, step)``.
    """
    notes = _Notes(Clock(), [], [])
    with jax.set_mesh(loop.mesh):
        params = loop.whole(state.params)
        ledger, rounds = _collect(loop, params, without_policy(state), notes)
        ledger, taken, rest = _take(loop, params, ledger, notes)
        del params  # merged adapters need no room during the update
        whole = ledger._replace(params=state.params, opt_state=state.opt_state)
        state, done = _update(loop, whole, taken, rest, notes.clock)
    reports = rounds if done.report is None else [*rounds, done.report]
    counts = int(state.step), int(state.rollouts)
    record = metrics.step_record(*counts, reports, done.metrics, notes.clock.total())
    record["groups_waiting"] = int(state.pending.size) if loop.collector.waits else 0
    record["policy_age"] = int(done.age)
    wanted = loop.collector.batch_size * len(rounds)
    metrics.add_faults(record, rounds, wanted, notes.errors)
    kept = [
        line_of(counts[0], "train", loop.task.train[r.prompt], r, loop.sample.characters)
        for r in choose(notes.responses, loop.sample)
    ]
    return state, record, Step(done.batch, notes.errors, kept)


def _collect(
    loop: Loop, params: PyTree, ledger: TrainState, notes: _Notes
) -> tuple[TrainState, list[RoundReport]]:
    """Rounds until a batch is ready."""
    rounds: list[RoundReport] = []
    waiting = 0
    while not loop.collector.ready(waiting, len(rounds)):
        key = round_key(ledger.key, len(rounds))
        with notes.clock.phase("select"):
            select = loop.stages.select
            draw, belief = select(ledger.selector, key, ledger.step, loop.prompts)
            ledger = jax.block_until_ready(ledger._replace(selector=belief))
        key = step_key(key, ledger.step, GENERATE)
        groups = _roll_out(loop, loop.stages.generate, params, key, draw, notes)
        with notes.clock.phase("update"):
            ledger, report = loop.stages.offer(ledger, draw, groups)
            waiting = int(report.waiting)
        rounds.append(report)
    return ledger, rounds


def _take(
    loop: Loop, params: PyTree, ledger: TrainState, notes: _Notes
) -> tuple[TrainState, Collected, Groups | None]:
    """The groups of the update, and the rest of their rollouts after a screening."""
    ledger, taken = loop.stages.take(ledger)
    if loop.stages.rest is None:
        return ledger, taken, None
    key = step_key(ledger.key, ledger.step, CONTINUE)
    rest = _roll_out(loop, loop.stages.rest, params, key, taken, notes)
    return ledger, taken, rest


def _roll_out(
    loop: Loop,
    generate: Callable,
    params: PyTree,
    key: Key,
    rows: Draw | Collected,
    notes: _Notes,
) -> Groups:
    """Responses to prompts, scored; they and the verifier's errors are added to the notes."""
    with notes.clock.phase("generate"):
        short = cut_prompts(rows.prompt, rows.prompt_mask, loop.buckets, loop.mesh)
        shown = {} if rows.images is None else {"images": rows.images}
        rollouts = jax.block_until_ready(generate(params, key, *short, **shown))
    with notes.clock.phase("score"):
        task = loop.task
        judged = score_rollouts(task, task.train, rows.index, rollouts, loop.overlong)
    notes.errors.extend(gather_errors(judged.errors))
    notes.responses.extend(judged.responses)
    return judged.groups


def _update(
    loop: Loop, state: TrainState, taken: Collected, rest: Groups | None, clock: Clock
) -> tuple[TrainState, Updated]:
    with clock.phase("update"):
        taken, rest = cut(taken, rest, loop.buckets, loop.mesh)
        done = loop.stages.update(state, taken, rest, loop.reference)
        return jax.block_until_ready(done)
