"""A whole GRPO run of a real policy as one compiled program, whose selector is compared.

The policy generates, is scored on the device and learns by the functions that ``dpsjax train``
calls step by step, with the same keys: the two make the same run.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from dpsjax import checks, selectors
from dpsjax.belief.filter import group_outcome
from dpsjax.grpo import GRPOConfig, RolloutBatch, UpdateFunction, make_optimizer, make_update
from dpsjax.grpo.mesh import make_mesh
from dpsjax.lab.contenders import Contender
from dpsjax.lab.looks import (
    RECENT,
    Looks,
    PolicyRun,
    Steps,
    judge,
    measure,
    nothing,
    round_line,
)
from dpsjax.lab.policies import PolicyStudent, exact_rates, solves
from dpsjax.loop.collect import Collector, RoundReport, learn, rollout_batch, rounds_of
from dpsjax.loop.compilation import compiler_options
from dpsjax.loop.groups import Collected, Draw, Groups
from dpsjax.loop.prompts import gather
from dpsjax.loop.stages import GENERATE, SELECT, log_prob_function, step_key
from dpsjax.loop.state import TrainState, initial_state
from dpsjax.policy import generate
from dpsjax.selectors import Batch, Selector
from dpsjax.tasks.operators import LEARNING_RATE
from dpsjax.types import Array, Int, Key, PyTree

_STEPS = 1  # what the key of a seed is folded with for the steps, as in a run of dpsjax train


def _default_grpo() -> GRPOConfig:
    return GRPOConfig(learning_rate=LEARNING_RATE)


@dataclasses.dataclass(frozen=True)
class PolicySetting:
    """What every contender of a comparison on a real policy shares."""

    steps: int = 200
    """Updates."""
    batch: int = 32
    """B, prompts of an update."""
    every: int = 20
    """Steps between evaluations; must divide the steps."""
    budget: int | None = None
    """Rollouts after which nothing happens any more, for runs of equal rollouts; all steps are
    made without it."""
    grpo: GRPOConfig = dataclasses.field(default_factory=_default_grpo)
    """G and how rollouts become an update."""

    def __post_init__(self):
        checks.require_counts(steps=self.steps, batch=self.batch, every=self.every)
        checks.require_counts(**checks.given(budget=self.budget))
        checks.require_type(GRPOConfig, "a GRPOConfig", grpo=self.grpo)
        if self.steps % self.every:
            raise ValueError(f"every={self.every} must divide steps={self.steps}")


class Carry(NamedTuple):
    """What a step hands on."""

    state: TrainState
    last: Int[Array, "N"]  # step of a prompt's last rollouts, long ago if none


class Program(NamedTuple):
    """What does not change during a run."""

    contender: Contender
    student: PolicyStudent
    setting: PolicySetting
    collector: Collector
    update: UpdateFunction


def _choose(
    program: Program, belief: PyTree, params: PyTree, key: Key, step: Array
) -> tuple[Batch, PyTree]:
    """The prompts of a round; the oracle's scores start at the true chances of the policy."""
    selector = program.contender.selector
    key, size = step_key(key, step, SELECT), program.setting.batch
    if not program.contender.oracle:
        return selectors.select(selector, key, belief, size)
    rate = exact_rates(program.student, params, program.student.pool)
    truth = group_outcome(rate, program.setting.grpo.rollouts_per_prompt)[1]
    ranked = selectors.stateless(lambda key, proposal: proposal.replace(score=truth))
    both = selectors.ChainState(belief.active, ((), belief))
    batch, after = selectors.select(selectors.chain(ranked, selector), key, both, size)
    return batch, after.parts[1]


def draw(
    program: Program, belief: PyTree, params: PyTree, key: Key, step: Array
) -> tuple[Draw, PyTree]:
    """The prompts of a round, with their tokens.

    Args:
        program: what does not change.
        belief: state of the selector.
        params: of the policy; the oracle alone looks at them.
        key: of the round.
        step: steps so far.

    Returns:
        ``(draw, belief)``.
    """
    batch, belief = _choose(program, belief, params, key, step)
    prompt, mask = gather(program.student.pool.prompts, batch.index)
    unseen = jnp.zeros((3, batch.index.shape[0]), jnp.float32)  # the looks judge the belief
    return Draw(batch.index, batch.weight, prompt, mask, unseen, unseen[:, 0]), belief


def answer(
    student: PolicyStudent, group: int, params: PyTree, key: Key, step: Array, drawn: Draw
) -> Groups:
    """Rollouts of a round, scored.

    Args:
        student: architecture, pool and sampling.
        group: G.
        params: of the policy.
        key: of the round.
        step: steps so far.
        drawn: the prompts.
    """
    model, use = nnx.merge(student.graph, params), step_key(key, step, GENERATE)
    rollouts = generate(model, use, drawn.prompt, drawn.prompt_mask, student.sampling, group)
    correct = solves(student.pool, drawn.index, rollouts.tokens)
    return Groups(rollouts, correct.astype(jnp.float32), correct, jnp.ones_like(correct))


def _round(
    program: Program, state: TrainState, key: Key
) -> tuple[TrainState, Collected, RoundReport]:
    """Choose, generate, score, and let the belief learn."""
    drawn, belief = draw(program, state.selector, state.params, key, state.step)
    group = program.setting.grpo.rollouts_per_prompt
    groups = answer(program.student, group, state.params, key, state.step, drawn)
    return learn(program.contender.selector, state._replace(selector=belief), drawn, groups)


def _collect(program: Program, carry: Carry) -> tuple[Carry, Collected, Steps, Array]:
    """The groups of an update: those of one round, or of as many as it takes (DAPO)."""
    collector, key = program.collector, carry.state.key
    if not collector.waits:
        state, taken, report = _round(program, carry.state, key)
        line, last = round_line(report, carry.last, carry.state.step)
        return Carry(state, last), taken, line, report.index

    def missing(loop) -> Array:
        carry, _, _, number = loop
        return (carry.state.pending.size < collector.batch_size) & (number < collector.max_rounds)

    def go_on(loop):
        carry, line, _, number = loop
        data = jax.random.key_data  # the first round has the step's own key, as in round_key
        chosen = jnp.where(number == 0, data(key), data(jax.random.fold_in(key, number)))
        state, offered, report = _round(program, carry.state, jax.random.wrap_key_data(chosen))
        now, last = round_line(report, carry.last, carry.state.step)
        state = state._replace(pending=collector.offer(state.pending, offered))
        return Carry(state, last), jax.tree.map(jnp.add, line, now), report.index, number + 1

    none = jnp.full(collector.batch_size, -1, jnp.int32)
    start = (carry, nothing(), none, jnp.zeros((), jnp.int32))
    carry, line, index, _ = jax.lax.while_loop(missing, go_on, start)
    taken, pending = collector.take(carry.state.pending, collector.batch_size)
    return carry._replace(state=carry.state._replace(pending=pending)), taken, line, index


def _step(program: Program, carry: Carry, _) -> tuple[Carry, tuple[Steps, Array]]:
    """One update, as long as there are rollouts for it."""
    budget = program.setting.budget
    if budget is None:
        return _update(program, carry)

    def rest(carry: Carry) -> tuple[Carry, tuple[Steps, Array]]:
        covered = (carry.state.visits > 0).sum(dtype=jnp.int32)
        none = jnp.full(program.setting.batch, -1, jnp.int32)
        return carry, (nothing()._replace(covered=covered), none)

    go_on = functools.partial(_update, program)
    return jax.lax.cond(carry.state.rollouts < budget, go_on, rest, carry)


def update(
    program: Program, params: PyTree, opt_state: PyTree, batch: RolloutBatch
) -> tuple[PyTree, PyTree, Int[Array, ""]]:
    """The policy learns from a batch: parameters, optimizer state, groups in the loss.

    Args:
        program: what does not change.
        params: of the policy.
        opt_state: of the optimizer.
        batch: of :func:`dpsjax.loop.collect.rollout_batch`.
    """
    reference = program.student.params if program.setting.grpo.loss.kl_coefficient else None
    params, opt_state, metrics = program.update(params, opt_state, batch, reference)
    return params, opt_state, metrics.groups.astype(jnp.int32)


def _update(program: Program, carry: Carry) -> tuple[Carry, tuple[Steps, Array]]:
    selector, loss = program.contender.selector, program.setting.grpo.loss
    carry, taken, line, index = _collect(program, carry)
    state = carry.state
    batch = rollout_batch(taken, loss.advantage_function, None, selector, state.selector)
    learned = update(program, state.params, state.opt_state, batch)
    state = state._replace(
        params=learned[0],
        opt_state=learned[1],
        selector=selectors.advance(selector, state.selector),
        step=state.step + 1,
    )
    line = line._replace(
        trained=learned[2],
        covered=(state.visits > 0).sum(dtype=jnp.int32),
    )
    return carry._replace(state=state), (line, index)


def _look(program: Program, state: TrainState) -> Looks:
    group = program.setting.grpo.rollouts_per_prompt
    looks, truth = measure(program.student, state.params, group)
    calibration = judge(program.contender.selector, state.selector, truth, group)
    return looks._replace(calibration=calibration)


def make_program(contender: Contender, student: PolicyStudent, setting: PolicySetting) -> Program:
    """What does not change during a run.

    Args:
        contender: the selector and how it is used.
        student: the policy.
        setting: sizes.

    Raises:
        TypeError: an argument is something else.
        ValueError: the contender screens or allocates, or the pool is smaller than a batch.
    """
    _check(contender, student, setting)
    rounds = rounds_of(contender.rounds, setting.batch, student.pool.answer.shape[0])
    log_probs = log_prob_function(student.graph, student.sampling.temperature)
    learns = make_update(setting.grpo, log_probs, make_optimizer(setting.grpo))
    return Program(contender, student, setting, Collector(setting.batch, rounds), learns)


def start(program: Program, key: Key) -> Carry:
    """Everything before the first step.

    Args:
        program: what does not change.
        key: of the run.
    """
    checks.require_key(key=key)
    student, pool = program.student, program.student.pool.answer.shape[0]
    state = initial_state(
        student.params,
        make_optimizer(program.setting.grpo).init(student.params),
        program.contender.selector.init(pool, {"features": student.features}),
        jax.random.fold_in(key, _STEPS),
        pool,
    )
    tokens = student.pool.prompts.tokens.shape[1], student.pool.answer.shape[1]
    waiting = program.collector.empty(program.setting.grpo.rollouts_per_prompt, *tokens)
    return Carry(state._replace(pending=waiting), jnp.full(pool, -RECENT - 1, jnp.int32))


def run_policy(
    contender: Contender, student: PolicyStudent, key: Key, setting: PolicySetting
) -> PolicyRun:
    """One run. Pure: jit it, with everything but the key and the parameters static.

    Args:
        contender: the selector and how it is used; those that screen or allocate are for
            :func:`dpsjax.lab.simulate.simulate` alone.
        student: the policy; it is not changed.
        key: of the run, as ``jax.random.key(seed)`` of ``dpsjax train``.
        setting: sizes.

    Returns:
        curves, measures, visits and the parameters at the end.

    Raises:
        TypeError: an argument is something else.
        ValueError: the contender screens or allocates, or the pool is smaller than a batch.
    """
    program = make_program(contender, student, setting)
    carry = start(program, key)
    blocks = setting.steps // setting.every

    def train(carry: Carry) -> tuple[Carry, tuple[Steps, Array]]:
        return jax.lax.scan(functools.partial(_step, program), carry, None, length=setting.every)

    # The last block only looks: so each program stands once in the compiled whole.
    idle = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(train, carry)[1])

    def block(carry: Carry, number: Array):
        look = _look(program, carry.state)
        carry, lines = jax.lax.cond(number < blocks, train, lambda carry: (carry, idle), carry)
        return carry, (lines, look)

    carry, (found, looks) = jax.lax.scan(block, carry, jnp.arange(blocks + 1, dtype=jnp.int32))
    lines, index = jax.tree.map(lambda x: x[:-1].reshape(-1, *x.shape[2:]), found)
    return PolicyRun(lines, looks, carry.state.visits, index, carry.state.params)


def _check(contender: Contender, student: PolicyStudent, setting: PolicySetting) -> None:
    checks.require_type(Contender, "a Contender", contender=contender)
    checks.require_type(Selector, "a Contender of a selector", contender=contender.selector)
    checks.require_type(PolicyStudent, "a PolicyStudent", student=student)
    checks.require_type(PolicySetting, "a PolicySetting", setting=setting)
    if contender.screen is not None or contender.most is not None:
        raise ValueError("contender must give all prompts the same rollouts, all at once")
    pool = student.pool.answer.shape[0]
    if pool < setting.batch:
        raise ValueError(f"batch={setting.batch} must not exceed the pool of {pool} prompts")


def compile_run(
    contender: Contender, student: PolicyStudent, setting: PolicySetting
) -> Callable[[int], PolicyRun]:
    """A contender's program, compiled at its first call: ``run(seed)``, NumPy arrays."""

    def program(params: PyTree, key: Key) -> PolicyRun:
        return run_policy(contender, student._replace(params=params), key, setting)

    options = compiler_options(make_mesh(devices=jax.devices()[:1]))
    compiled = jax.jit(program, compiler_options=options)

    def run(seed: int) -> PolicyRun:
        return jax.tree.map(np.asarray, compiled(student.params, jax.random.key(seed)))

    return run
