"""A run's steps until they are done, evaluating on the way."""

import time
from collections.abc import Iterator

import jax

from dpsjax.loop import metrics
from dpsjax.loop.evaluate import Accuracy
from dpsjax.loop.metrics import Record
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
        after every step, what :func:`dpsjax.loop.step.train_step` returns. The next step donates
        the state.
    """
    started = time.perf_counter() - elapsed
    evaluation = run.config.evaluation
    before = _before(run, state) if int(state.step) == 0 else None
    while int(state.step) < run.config.steps:
        state, record, step = train_step(run, state)
        if before is not None:
            metrics.add_before(record, *before)
            before = None
        if record["step"] % evaluation.every == 0 or record["step"] == run.config.steps:
            begun = time.perf_counter()
            metrics.add_held_out(record, _evaluate(run, state))
            record["seconds"]["evaluate"] = round(time.perf_counter() - begun, 4)
        record["seconds"]["elapsed"] = round(time.perf_counter() - started, 4)
        yield state, record, step


def _evaluate(run: Run, state: TrainState) -> Accuracy:
    with jax.set_mesh(run.mesh):
        return run.evaluation.accuracy(run.whole(state.params))


def _before(run: Run, state: TrainState) -> tuple[Accuracy, dict[float, float]]:
    """What the policy can before it learns, also at other temperatures."""
    with jax.set_mesh(run.mesh):
        found = run.evaluation.by_temperature(run.whole(state.params))
    return _evaluate(run, state), found
