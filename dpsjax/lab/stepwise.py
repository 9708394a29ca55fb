"""The same run of a policy step by step: what does not depend on the selector is compiled once.

Compiling a whole run (:mod:`dpsjax.lab.finetune`) takes longer than the run itself. Where many
selectors are compared, the programs of the policy are shared here, and each selector adds small
ones of its own.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dpsjax import checks, selectors
from dpsjax.grpo import RolloutBatch
from dpsjax.grpo.mesh import make_mesh
from dpsjax.lab.contenders import Contender
from dpsjax.lab.finetune import (
    PolicySetting,
    Program,
    answer,
    draw,
    make_program,
    start,
    update,
)
from dpsjax.lab.looks import Looks, PolicyRun, Steps, judge, measure, nothing, round_line
from dpsjax.lab.policies import PolicyStudent
from dpsjax.loop.collect import learn, rollout_batch
from dpsjax.loop.compilation import compiler_options
from dpsjax.loop.groups import Draw, Groups
from dpsjax.loop.stages import round_key, without_policy
from dpsjax.loop.state import TrainState
from dpsjax.selectors import uniform
from dpsjax.types import Array, PyTree


class Shared(NamedTuple):
    """Programs of the policy, for all contenders."""

    answer: Callable
    update: Callable
    measure: Callable


class _Own(NamedTuple):
    """Programs of one contender."""

    draw: Callable
    offer: Callable
    take: Callable
    judge: Callable


def share(student: PolicyStudent, setting: PolicySetting) -> Shared:
    """The programs that all contenders share; compiled when they are first called.

    Args:
        student: the policy.
        setting: sizes.

    Returns:
        the programs.
    """
    program = make_program(Contender(uniform()), student, setting)
    group = setting.grpo.rollouts_per_prompt
    return Shared(
        _jit(lambda params, key, step, drawn: answer(student, group, params, key, step, drawn)),
        _jit(lambda params, opt_state, batch: update(program, params, opt_state, batch)),
        _jit(lambda params: measure(student, params, group)),
    )


def _own(program: Program) -> _Own:
    selector, grpo = program.contender.selector, program.setting.grpo

    def offer(state: TrainState, last: Array, drawn: Draw, groups: Groups):
        state, offered, report = learn(selector, state, drawn, groups)
        line, last = round_line(report, last, state.step)
        pending = program.collector.offer(state.pending, offered)
        return state._replace(pending=pending), last, line, report.index

    def take(state: TrainState) -> tuple[TrainState, RolloutBatch]:
        taken, pending = program.collector.take(state.pending, program.collector.batch_size)
        batch = rollout_batch(taken, grpo.loss.advantage_function, None, selector, state.selector)
        belief = selectors.advance(selector, state.selector)
        return state._replace(pending=pending, selector=belief, step=state.step + 1), batch

    return _Own(
        _jit(lambda belief, params, key, step: draw(program, belief, params, key, step)),
        _jit(offer),
        _jit(take),
        _jit(lambda belief, truth: judge(selector, belief, truth, grpo.rollouts_per_prompt)),
    )


def stepwise(
    contender: Contender,
    student: PolicyStudent,
    setting: PolicySetting,
    shared: Shared,
    oracle_every: int = 1,
) -> Callable[[int], PolicyRun]:
    """A contender's run, as :func:`dpsjax.lab.finetune.compile_run` gives it.

    Args:
        contender: the selector and how it is used.
        student: the policy.
        setting: sizes.
        shared: of :func:`share`, for the same student and setting.
        oracle_every: steps for which an oracle's knowledge stays what it was; 1: it is never old.

    Returns:
        ``run(seed)``, NumPy arrays; equal to the compiled whole but for rounding.
    """
    checks.require_counts(oracle_every=oracle_every)
    program = make_program(contender, student, setting)
    own = _own(program)

    def run(seed: int) -> PolicyRun:
        state, last = start(program, jax.random.key(seed))
        params, opt_state, state = state.params, state.opt_state, without_policy(state)
        known = params  # by an oracle
        lines: list[Steps] = []
        chosen: list[Array] = []
        looks: list[Looks] = []
        while len(lines) < setting.steps:
            if len(lines) % setting.every == 0:
                looks.append(_look(own, shared, params, state.selector))
            if setting.budget is not None and int(state.rollouts) >= setting.budget:
                covered = jnp.asarray((state.visits > 0).sum(), jnp.int32)
                lines.append(nothing()._replace(covered=covered))
                chosen.append(jnp.full(setting.batch, -1, jnp.int32))
                continue
            if len(lines) % oracle_every == 0:
                known = params
            policies = params, known
            state, last, line, index = _collect(program, own, shared, policies, state, last)
            state, batch = own.take(state)
            params, opt_state, trained = shared.update(params, opt_state, batch)
            covered = (state.visits > 0).sum(dtype=jnp.int32)
            lines.append(line._replace(trained=trained, covered=covered))
            chosen.append(index)
        looks.append(_look(own, shared, params, state.selector))
        curves, seen = jax.tree.map(_stacked, *lines), jax.tree.map(_stacked, *looks)
        found = PolicyRun(curves, seen, state.visits, _stacked(*chosen), params)
        return jax.tree.map(np.asarray, found)

    return run


def _stacked(*leaves: Array) -> Any:
    return np.stack([np.asarray(leaf) for leaf in leaves])


def _look(own: _Own, shared: Shared, params: PyTree, belief: PyTree) -> Looks:
    looks, truth = shared.measure(params)
    return looks._replace(calibration=own.judge(belief, truth))


def _collect(
    program: Program,
    own: _Own,
    shared: Shared,
    policies: tuple[PyTree, PyTree],
    state: TrainState,
    last: Array,
) -> tuple[TrainState, Array, Steps, Array]:
    """Rounds until a batch is ready; of two policies, one answers and an oracle knows the other."""
    params, known = policies
    line, index, waiting, rounds = nothing(), jnp.zeros(0, jnp.int32), 0, 0
    while not program.collector.ready(waiting, rounds):
        key = round_key(state.key, rounds)
        drawn, belief = own.draw(state.selector, known, key, state.step)
        groups = shared.answer(params, key, state.step, drawn)
        state = state._replace(selector=belief)
        state, last, now, index = own.offer(state, last, drawn, groups)
        line, rounds = jax.tree.map(jnp.add, line, now), rounds + 1
        waiting = int(state.pending.size) if program.collector.waits else 0
    return state, last, line, index


def _jit(run: Callable) -> Callable:
    options = compiler_options(make_mesh(devices=jax.devices()[:1]))
    return jax.jit(run, compiler_options=options)
