"""A run's steps until they are done, evaluating on the way."""

import time
from collections.abc import Iterator
from typing import Any

import jax

from dpsjax.loop import metrics
from dpsjax.loop.evaluate import Accuracy
from dpsjax.loop.metrics import Record
from dpsjax.loop.responses import choose, line_of
from dpsjax.loop.state import TrainState
from dpsjax.loop.step import Step, train_step
from dpsjax.run.setup import Run


def train(
    run: Run, state: TrainState, elapsed: float = 0.0
) -> Iterator[tuple[TrainState, Record, Step]]:
    """Train to the end, evaluating on the way.

    Args:
        run: of :func:`dpsjax.run.setup.prepare`.
        state: of a new run, or of one to continue; donated.
        elapsed: seconds of training before this call.

    Yields:
        after every step, what :func:`dpsjax.loop.step.train_step` returns, with the kept responses
        of the evaluations around it. The next step donates the state.
    """
    started = time.perf_counter() - elapsed
    evaluation = run.config.evaluation
    before = _before(run, state) if int(state.step) == 0 else None
    while int(state.step) < run.config.steps:
        state, record, step = train_step(run, state)
        if before is not None:
            metrics.add_before(record, *before)
            step = step._replace(responses=[*_kept(run, 0, before[0]), *step.responses])
            before = None
        if record["step"] % evaluation.every == 0 or record["step"] == run.config.steps:
            begun = time.perf_counter()
            found = _evaluate(run, state)
            metrics.add_held_out(record, found)
            kept = _kept(run, record["step"], found)
            step = step._replace(responses=[*step.responses, *kept])
            record["seconds"]["evaluate"] = round(time.perf_counter() - begun, 4)
        record["seconds"]["elapsed"] = round(time.perf_counter() - started, 4)
        yield state, record, step


def _evaluate(run: Run, state: TrainState) -> Accuracy:
    with jax.set_mesh(run.mesh):
        return run.evaluation.accuracy(run.whole(state.params))


def _kept(run: Run, step: int, found: Accuracy) -> list[dict[str, Any]]:
    """The responses of an evaluation that are kept; the last to a problem is the likeliest."""
    group = run.config.evaluation.samples + 1
    lines = []
    for split, places in (("held-out", range(group - 1)), ("held-out greedy", (group - 1,))):
        made = [r for place, r in enumerate(found.responses) if place % group in places]
        lines += [
            line_of(step, split, run.held_out[r.prompt], r, run.sample.characters)
            for r in choose(made, run.sample)
        ]
    return lines


def _before(run: Run, state: TrainState) -> tuple[Accuracy, dict[float, float]]:
    """What the policy can before it learns, also at other temperatures."""
    with jax.set_mesh(run.mesh):
        found = run.evaluation.by_temperature(run.whole(state.params))
    return _evaluate(run, state), found
