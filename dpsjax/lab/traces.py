"""A replay of any selector against recorded rollouts, without a model.

The file format is that of :mod:`dpsjax.tasks.traces`, whose names are here too.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from dpsjax import checks
from dpsjax.lab.students import Student, graded
from dpsjax.tasks.traces import COLUMNS, FORMAT, VERSION, Trace, make_trace, read_trace, write_trace
from dpsjax.types import Array, Int

__all__ = [
    "COLUMNS",
    "FORMAT",
    "VERSION",
    "Trace",
    "make_trace",
    "read_trace",
    "recorded",
    "write_trace",
]


class _Recording(NamedTuple):
    passes: Int[Array, "S N"]
    trials: Int[Array, "S N"]
    lag: Int[Array, "S N"]
    step: Int[Array, ""]


def recorded(trace: Trace) -> Student:
    """A student that answers from a full-pool trace and learns nothing from being asked.

    With it, :func:`dpsjax.lab.simulate.simulate` replays a selector without a model; the setting's
    pool must be the trace's, its rollouts at least the trace's, its steps at most. Effective ratio,
    coverage and calibration mean what they do elsewhere; abilities are pass rates of the recorded
    policy, and held-out ability is that of the whole pool. A group whose policy was n steps old
    is observed n steps after it was chosen. For selectors that want to know something beforehand,
    the difficulty of a prompt is the share of failures in its first group, and all prompts are of
    one topic.

    Args:
        trace: with a group of every prompt at every step.

    Returns:
        the student.

    Raises:
        TypeError: if ``trace`` is something else.
        ValueError: if a group is missing; the message names the first.
    """
    checks.require_type(Trace, "of read_trace or make_trace", trace=trace)
    steps = int(trace.step.max()) + 1 if trace.step.size else 0
    seen = trace.trials > 0
    places = np.sort(trace.step[seen].astype(np.int64) * trace.num_prompts + trace.prompt[seen])
    # Looked for before the table is made: a trace may claim any pool and any step.
    gap = np.flatnonzero(places != np.arange(places.size))
    if not steps or gap.size or places.size != steps * trace.num_prompts:
        step, prompt = divmod(int(gap[0]) if gap.size else places.size, trace.num_prompts)
        raise ValueError(
            f"a replay needs a group of every prompt at every step: step {step} has none of "
            f"prompt {prompt} in this trace; record the full pool"
        )
    trials = np.zeros((steps, trace.num_prompts), np.int32)
    passes, lag = np.zeros_like(trials), np.zeros_like(trials)
    trials[trace.step, trace.prompt] = trace.trials
    passes[trace.step, trace.prompt] = trace.passes
    lag[trace.step, trace.prompt] = trace.step - trace.policy
    tapes = jnp.asarray(passes), jnp.asarray(trials), jnp.asarray(lag)

    def now(state):
        at = jnp.minimum(state.step, steps - 1)
        return state.passes[at], state.trials[at]

    def rate(state):
        done, tried = now(state)
        return done.astype(jnp.float32) / tried.astype(jnp.float32)

    def outcome(state, group):
        del group
        done, tried = now(state)
        mixed = (done > 0) & (done < tried)
        return jnp.stack([done == 0, mixed, done == tried]).astype(jnp.float32)

    def answer(uniforms, state, index):
        del uniforms
        done, tried = now(state)
        source, real = jnp.maximum(index, 0), (index >= 0).astype(jnp.int32)
        return done[source] * real, tried[source] * real

    def init(key, num_prompts):
        del key
        if num_prompts != trace.num_prompts:
            raise ValueError(f"pool must be the trace's {trace.num_prompts}, got {num_prompts}")
        return _Recording(*tapes, jnp.zeros((), jnp.int32))

    def data(state):
        first = state.passes[0].astype(jnp.float32) / state.trials[0].astype(jnp.float32)
        same = jnp.zeros(trace.num_prompts, jnp.int32)
        return {**graded(1.0 - first), "source": same, "topic": same}

    def late_by(state, index):
        return state.lag[jnp.minimum(state.step, steps - 1)][jnp.maximum(index, 0)]

    return Student(
        init=init,
        pass_rate=rate,
        held_out=rate,
        outcome=outcome,
        answer=answer,
        learn=lambda state, *groups: state._replace(step=state.step + 1),
        data=data,
        lag=late_by,
        longest_lag=int(lag.max()),
    )
