"""Held-out accuracy, sampled, greedy and at other temperatures, by one program."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpsjax.loop import stages
from dpsjax.loop.evaluate import make_evaluate, uniform_slice
from dpsjax.loop.prompts import tokenize
from dpsjax.policy import Rollouts, Sampling, abstract_policy
from dpsjax.tasks.base import Score


def test_greedy_is_the_accuracy_at_temperature_zero(prepared):
    run, state = prepared
    task = run.task
    problems = uniform_slice(task.test, run.config.evaluation.problems)
    graph = abstract_policy(run.policy, run.config.model.compute())[0]
    sampling = Sampling(
        max_tokens=task.response_tokens,
        temperature=0.0,
        stop_ids=(task.tokenizer.eos_id,),
        pad_id=task.tokenizer.pad_id,
    )
    tokens, length, _ = tokenize(problems, task.tokenizer, task.prompt_tokens)
    mask = np.arange(task.prompt_tokens) >= task.prompt_tokens - length[:, None]
    generate = stages.make_generate(graph, sampling, 1, run.mesh)
    rollouts = generate(state.params, jax.random.key(3), jnp.asarray(tokens), jnp.asarray(mask))
    texts = [task.tokenizer.decode(row) for row in np.asarray(rollouts.tokens)[:, 0]]

    own = stages.make_generate(graph, sampling, 3, run.mesh)
    evaluation = make_evaluate(task, problems, own, [1.0] * 2, 2, run.mesh, jax.random.key(0))
    want = np.mean([score.correct for score in task.score(problems, texts)])
    assert 0 < want < 1
    assert evaluation.accuracy(state.params).greedy == pytest.approx(want)


@pytest.mark.parametrize("samples", [1, 2, 5])
def test_every_temperature_is_tried_with_one_shape(prepared, samples):
    run, _ = prepared
    task, seen = run.task, []
    marks = task.tokenizer.encode("10")

    def generate(params, key, prompt, mask, temperatures):
        """Right on the first 4 t + 1 of six problems."""
        seen.append(temperatures)
        right = np.arange(6)[:, None] < 4 * temperatures[None] + 1
        shape = (6, temperatures.size, task.response_tokens)
        tokens = jnp.where(jnp.asarray(right)[..., None], *(jnp.int32(one) for one in marks))
        zeros = jnp.zeros(shape, jnp.float32)
        tokens = jnp.broadcast_to(tokens, shape)
        return Rollouts(tokens, jnp.ones(shape, bool), zeros, jnp.int32(1))

    def score(problems, responses):
        return [Score(0.0, text.startswith("1"), "") for text in responses]

    stand_in = dataclasses.replace(task, score=score)
    evaluation = make_evaluate(
        stand_in, task.test[:6], generate, [1.0] * samples, 6, run.mesh, jax.random.key(0)
    )
    accuracy = evaluation.accuracy({})
    assert (accuracy.mean, accuracy.greedy) == (pytest.approx(5 / 6), pytest.approx(1 / 6))
    assert evaluation.by_temperature({}) == pytest.approx({0.25: 2 / 6, 0.5: 3 / 6, 0.75: 4 / 6})
    assert {values.shape for values in seen} == {(samples + 1,)}
