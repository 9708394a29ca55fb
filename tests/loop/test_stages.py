import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpsjax import observe, select, selectors
from dpsjax.grpo.advantages import denoised, group_normalized
from dpsjax.loop.collect import learn, rollout_batch
from dpsjax.loop.groups import Draw, Groups
from dpsjax.loop.prompts import gather, tokenize
from dpsjax.loop.watched import watched
from dpsjax.policy import Rollouts
from dpsjax.tasks.base import Problem
from dpsjax.tasks.tokenizer import CharTokenizer
from tests.oracles import selectors as oracle

TOKENIZER = CharTokenizer("0123456789=:")


def problems(*prompts):
    return [Problem(prompt, None, "") for prompt in prompts]


def test_a_selector_without_a_belief_gets_a_tracker_that_changes_no_draw(key):
    alone, tracked = selectors.uniform(), watched(selectors.uniform())
    a, b = alone.init(50), tracked.init(50)
    for number in range(3):
        step = jax.random.fold_in(key, number)
        batch, a = select(alone, step, a, 8)
        again, b = select(tracked, step, b, 8)
        assert batch.index.tolist() == again.index.tolist()
        passes = batch.index % 3
        _, b = observe(tracked, b, again.index, passes, jnp.full(8, 2, jnp.int32))
    outcome = selectors.inspect(tracked, b, 2).outcome
    assert outcome.shape == (3, 50)
    assert np.allclose(outcome.sum(0), 1) and not np.allclose(outcome, 1 / 3)


def test_a_selector_with_a_belief_stays_as_it_is():
    selector = selectors.dps(num_states=5)
    assert watched(selector) is selector
    assert selectors.inspect(selector, selector.init(4)).outcome.shape == (3, 4)


def test_prompts_are_left_padded_and_rows_filled_up():
    pool = tokenize(problems("12=", "3"), TOKENIZER, 4, rows=3)
    one, two, three, equals = (TOKENIZER.encode(c)[0] for c in "123=")
    assert pool.tokens.tolist() == [[0, one, two, equals], [0, 0, 0, three], [0, one, two, equals]]
    assert pool.length.tolist() == [3, 1, 3]
    tokens, mask = gather(jax.tree.map(jnp.asarray, pool), jnp.array([1, -1], jnp.int32))
    assert tokens.tolist() == [[0, 0, 0, three], [0, one, two, equals]]
    assert mask.tolist() == [[False, False, False, True], [False, True, True, True]]


def test_responses_without_an_end_leave_the_loss_and_nothing_else(prepared):
    """Of two tokens, where 7 ends a response: the first of each group has no end."""
    _, state = prepared
    tokens = jnp.array([[[5, 5], [5, 7], [7, 0], [5, 7]]] * 2, jnp.int32)
    mask = jnp.array([[[True, True], [True, True], [True, False], [True, True]]] * 2)
    rewards = jnp.array([[0, 1, 1, 1], [1, 1, 1, 1]], jnp.float32)
    rollouts = Rollouts(tokens, mask, jnp.zeros(tokens.shape, jnp.float32), jnp.int32(2))
    index = jnp.array([3, 5], jnp.int32)
    prompt, third = jnp.ones((2, 2), jnp.int32), jnp.full((3, 2), 1 / 3, jnp.float32)
    draw = Draw(index, jnp.ones(2, jnp.float32), prompt, prompt > 0, third, third[:, 0])
    groups = Groups(rollouts, rewards, rewards > 0, jnp.ones((2, 4), bool))
    selector = selectors.dps()
    state = state._replace(selector=selector.init(32))
    new, offered, report = learn(selector, state, draw, groups, (7,))
    plain, masked = (
        rollout_batch(offered, group_normalized, None, selector, new.selector, stops)
        for stops in (None, (7,))
    )
    assert int(report.truncated) == 2 and plain.mask.tolist() == mask.tolist()
    assert masked.mask.any(axis=2).tolist() == [[False, True, True, True]] * 2
    assert masked.mask[:, 1:].tolist() == mask[:, 1:].tolist()
    assert masked.advantages.tolist() == plain.advantages.tolist()  # its reward counts in the group
    assert masked.informative.tolist() == [True, False]


def test_keeping_a_part_of_each_group_takes_the_most_different_rollouts(prepared):
    """PODS: of 4 rollouts with one right, that one and a wrong one, as the release has them."""
    _, state = prepared
    rewards = jnp.array([[0, 0, 1, 0], [1, 1, 0, 1], [0, 0, 0, 0]], jnp.float32)
    shape = (3, 4, 2)
    rollouts = Rollouts(
        jnp.ones(shape, jnp.int32),
        jnp.ones(shape, bool),
        jnp.zeros(shape, jnp.float32),
        jnp.int32(2),
    )
    index = jnp.array([3, 5, -1], jnp.int32)
    prompt = jnp.ones((3, 2), jnp.int32)
    third = jnp.full((3, 3), 1 / 3, jnp.float32)
    draw = Draw(index, jnp.ones(3, jnp.float32), prompt, prompt > 0, third, third[:, 0])
    groups = Groups(rollouts, rewards, rewards > 0, jnp.ones((3, 4), bool))
    selector = selectors.dps()
    state = state._replace(selector=selector.init(32))
    new, offered, report = learn(selector, state, draw, groups)
    batch = rollout_batch(offered, group_normalized, 2, selector, new.selector)
    assert batch.mask.any(axis=2).tolist() == [
        [False, False, True, True],
        [True, False, True, False],
        [False] * 4,
    ]
    values = np.asarray(batch.advantages)
    assert values[0, 2] > 0 > values[0, 3] and values[1, 0] > 0 > values[1, 2]
    assert np.allclose(np.abs(values[0, [2, 3]]), values[0, 2])  # one right, one wrong
    assert report.passes.tolist() == [1, 3, 0] and report.trials.tolist() == [4, 4, 0]
    assert int(report.tokens) == 16 and report.length.tolist() == [2.0, 2.0, 0.0]
    assert int(new.position) == 2


def test_denoised_advantages_come_from_the_belief_that_saw_the_group(prepared):
    """MaPP's, also for selectors without a Beta belief and for groups that all agree."""
    _, state = prepared
    correct = jnp.array([[0, 0, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]], bool)
    valid = jnp.array([[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]], bool)
    ones = jnp.ones((3, 4, 2), jnp.int32)
    rollouts = Rollouts(ones, ones > 0, jnp.zeros((3, 4, 2), jnp.float32), jnp.int32(2))
    index = jnp.array([3, 5, 7], jnp.int32)
    third = jnp.full((3, 3), 1 / 3, jnp.float32)
    draw = Draw(index, jnp.ones(3, jnp.float32), ones[:, 0], ones[:, 0] > 0, third, third[:, 0])
    groups = Groups(rollouts, 0.1 + 0.9 * correct.astype(jnp.float32), correct, valid)
    for selector, decay in ((selectors.dps(), 0.5), (selectors.mopps(decay=0.8), 0.8)):
        selector = watched(selector, counts=True)
        before = observe(selector, selector.init(32), index, *jnp.array([[1, 2, 0], [2, 2, 2]]))[1]
        new, offered, _ = learn(selector, state._replace(selector=before), draw, groups)
        batch = rollout_batch(offered, denoised, None, selector, new.selector)
        loop = oracle.BetaLoop(8, decay)
        loop.step({3: (1, 2), 5: (2, 2), 7: (0, 2)})
        loop.step({3: (1, 3), 5: (4, 4), 7: (0, 1)})
        a, b = np.stack(loop.counts)[[3, 5, 7]].T
        expected = oracle.denoised_advantages(np.asarray(correct), np.asarray(valid), a, b)
        assert np.allclose(batch.advantages, expected, atol=1e-5)
        assert batch.informative.tolist() == [True, True, False]  # one rollout compares nothing
        assert (expected[1] > 0).all()


def test_weights_of_a_visit_count_the_rollouts_that_they_weigh(prepared):
    _, state = prepared
    selector = watched(selectors.lppo())
    index, trials = jnp.array([3, 5, -1], jnp.int32), jnp.array([4, 4, 0], jnp.int32)
    before = observe(selector, selector.init(32), index, jnp.array([2, 2, 0]), trials)[1]
    ones = jnp.ones((3, 4, 2), jnp.int32)
    correct = jnp.array([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 0]], bool)
    rollouts = Rollouts(ones, ones > 0, jnp.zeros((3, 4, 2), jnp.float32), jnp.int32(2))
    third = jnp.full((3, 3), 1 / 3, jnp.float32)
    weight = jnp.array([1, 1, 0], jnp.float32)
    draw = Draw(index, weight, ones[:, 0], ones[:, 0] > 0, third, third[:, 0])
    groups = Groups(rollouts, correct.astype(jnp.float32), correct, jnp.ones((3, 4), bool))
    batch = learn(selector, state._replace(selector=before), draw, groups)[1]
    rise = 0.2 * 0.5  # the average moves a fifth of the way from 1/2 to 1
    assert np.allclose(batch.weight, [1 / (1 + np.exp(-8 * rise)) + 0.5, 1, 0], atol=1e-6)


@pytest.mark.parametrize("prompt", ["", "12345"])
def test_prompts_that_do_not_fit_are_refused(prompt):
    with pytest.raises(ValueError, match=r"prompts\[1\] (is empty|has 5 tokens, more than size=4)"):
        tokenize(problems("1", prompt), TOKENIZER, 4)
