"""A real policy in the laboratory: exact measures, and the same run as dpsjax train makes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dpsjax import selectors
from dpsjax.grpo import GRPOConfig
from dpsjax.lab.contenders import Contender, contender
from dpsjax.lab.finetune import PolicySetting, compile_run, run_policy
from dpsjax.lab.looks import as_run
from dpsjax.lab.measures import summarize
from dpsjax.lab.policies import exact_rates, greedy_accuracy, policy_student
from dpsjax.lab.stepwise import share, stepwise
from dpsjax.loop.prompts import gather
from dpsjax.loop.step import train_step
from dpsjax.policy import generate
from dpsjax.run.config import EvaluationConfig, MeshConfig, RolloutConfig, TrainConfig
from dpsjax.run.selector_settings import settings
from dpsjax.run.setup import prepare
from dpsjax.tasks.operators import OperatorsConfig, base_path, operator_chains

GROUP, BATCH = 4, 6
GRPO = GRPOConfig(rollouts_per_prompt=GROUP, learning_rate=1e-3)
SETTING = PolicySetting(steps=4, batch=BATCH, every=2, grpo=GRPO)


@pytest.fixture(scope="module")
def student():
    return policy_student(operator_chains(60, 24), base_path())


def rollouts(student, problems, sampling, group):
    rows = jnp.arange(problems.answer.shape[0], dtype=jnp.int32)
    prompt, mask = gather(problems.prompts, rows)
    model = nnx.merge(student.graph, student.params)
    return generate(model, jax.random.key(3), prompt, mask, sampling, group)


def decoded(task, problems, found):
    """Whether each response is right, by the task's own verifier on texts."""
    group = found.tokens.shape[1]
    texts = [task.tokenizer.decode(row) for row in np.asarray(found.tokens).reshape(-1, 6)]
    asked = [problem for problem in problems for _ in range(group)]
    return np.reshape([score.correct for score in task.score(asked, texts)], (-1, group))


def test_exact_rates_are_the_frequencies_of_right_responses(student):
    task, group = operator_chains(60, 24), 512
    found = jax.jit(lambda: rollouts(student, student.held_out, student.sampling, group))()
    seen = decoded(task, task.test, found).mean(axis=1)
    rate = np.asarray(exact_rates(student, student.params, student.held_out))
    assert rate.min() < 0.05 and rate.max() > 0.9
    error = np.sqrt(np.maximum(rate * (1 - rate), 1 / group) / group)
    assert np.all(np.abs(seen - rate) < 5 * error)


def test_greedy_accuracy_is_that_of_greedy_decoding(student):
    task = operator_chains(60, 24)
    greedy = dataclasses.replace(student.sampling, temperature=0.0)
    found = jax.jit(lambda: rollouts(student, student.held_out, greedy, 1))()
    accuracy = greedy_accuracy(student, student.params, student.held_out)
    assert accuracy == pytest.approx(decoded(task, task.test, found).mean())


@pytest.fixture(scope="module")
def finished(student):
    """Three steps' worth of rollouts, of four steps."""
    setting = dataclasses.replace(SETTING, budget=3 * BATCH * GROUP)
    return compile_run(contender("dps", GROUP), student, setting)(0)


def test_curves_agree_with_each_other(student, finished):
    steps, looks = finished.steps, finished.looks
    assert steps.rollouts.tolist() == [BATCH * GROUP] * 3 + [0]
    assert steps.groups.sum() == finished.visits.sum() == 3 * BATCH
    assert np.all(steps.trained == steps.effective) and steps.effective.sum() > 0
    assert steps.covered[-1] == (finished.visits > 0).sum() == 3 * BATCH - steps.repeats.sum()
    assert np.all(finished.first[-1] == -1) and np.all(finished.first[:3] >= 0)
    params = jax.tree.map(jnp.asarray, finished.params)
    rate = exact_rates(student, params, student.held_out)
    assert looks.held_out[-1] == pytest.approx(float(rate.mean()), abs=1e-6)
    start = exact_rates(student, student.params, student.pool)
    assert looks.pool[0] == pytest.approx(float(start.mean()), abs=1e-6)
    mixed = 1 - start**GROUP - (1 - start) ** GROUP
    assert looks.mixed[0] == pytest.approx(float(mixed.mean()), abs=1e-6)
    # before anything is seen DPS believes 1/3 of every prompt
    expected = float((mixed * (1 - mixed) + (mixed - 1 / 3) ** 2).sum())
    assert looks.calibration.brier[0] == pytest.approx(expected, rel=1e-4)


def test_a_comparison_takes_the_runs(finished):
    run = as_run([finished, finished], SETTING.every)
    found = summarize(run)
    assert found["ability_held_out"] == pytest.approx([finished.looks.held_out[-1]] * 2)
    assert run.steps.ability_held_out[0, 1] == pytest.approx(finished.looks.held_out[1])
    assert found["coverage"] == pytest.approx([(finished.visits > 0).mean()] * 2)
    assert run.steps.updated.tolist() == [[True, True, True, False]] * 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mopps", "dynamic-sampling"])
def test_the_run_is_that_of_training(student, name):
    config = TrainConfig(
        steps=4,
        seed=5,
        rollout=RolloutConfig(prompts=BATCH),
        selector=settings(name),
        task=OperatorsConfig(problems=60, held_out=24),
        grpo=GRPO,
        evaluation=EvaluationConfig(problems=24, samples=1),
        mesh=MeshConfig(data=1),
    )
    loop, state = prepare(config)
    chosen = []
    for _ in range(config.steps):
        state, _, step = train_step(loop, state)
        chosen.append(np.asarray(step.batch.index))
    whole = compile_run(contender(name, GROUP), student, SETTING)(config.seed)
    if name == "mopps":
        assert np.array_equal(whole.first, chosen)
    assert np.array_equal(whole.visits, np.asarray(state.visits)[:60])
    assert whole.steps.rollouts.sum() == int(state.rollouts)
    ours, theirs = jax.tree.leaves(whole.params), jax.tree.leaves(state.params)
    moved = jax.tree.leaves(student.params)
    assert len(ours) == len(theirs) > 0
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, np.asarray(other), atol=1e-5)
    assert any(np.abs(a - np.asarray(b)).max() > 1e-3 for a, b in zip(ours, moved, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["arcus", "dynamic-sampling"])
def test_step_by_step_it_is_the_same_run(student, name):
    setting = dataclasses.replace(SETTING, budget=5 * BATCH * GROUP)
    whole = compile_run(contender(name, GROUP), student, setting)(2)
    parts = stepwise(contender(name, GROUP), student, setting, share(student, setting))(2)
    exact = whole._replace(params=(), looks=()), parts._replace(params=(), looks=())
    for mine, other in zip(*map(jax.tree.leaves, exact), strict=True):
        assert np.array_equal(mine, other)
    for mine, other in zip(*map(jax.tree.leaves, (whole, parts)), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_the_oracle_takes_the_highest_true_chances(student):
    setting = dataclasses.replace(SETTING, steps=1, every=1)
    run = compile_run(Contender(selectors.uniform(), oracle=True), student, setting)(0)
    rate = np.asarray(exact_rates(student, student.params, student.pool), np.float64)
    mixed = 1 - rate**GROUP - (1 - rate) ** GROUP
    assert sorted(mixed[run.first[0]]) == pytest.approx(sorted(mixed)[-BATCH:], abs=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"contender": contender("speed")}, "the same rollouts, all at once"),
        ({"setting": PolicySetting(batch=61)}, "must not exceed the pool of 60"),
    ],
)
def test_what_does_not_fit_is_refused(student, change, message):
    given = {"contender": contender("dps"), "student": student, "key": jax.random.key(0)}
    with pytest.raises(ValueError, match=message):
        run_policy(**{**given, "setting": SETTING, **change})


def test_weights_of_another_task_are_refused():
    with pytest.raises(ValueError, match="use weights made for this task"):
        policy_student(operator_chains(10, 10, values=8), base_path())
    with pytest.raises(ValueError, match="must divide steps=5"):
        PolicySetting(steps=5, every=2)
