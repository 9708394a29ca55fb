"""The object in all kinds of loops: late, out of order, in parts, never; and its messages."""

import threading

import jax
import numpy as np
import pytest

import dpsjax
from dpsjax import Curriculum, selectors
from dpsjax.selectors import cool_down
from tests.curriculum.play import B, G, N, flat, in_parts, rewards_of, same_state, train

DPS = selectors.dps()  # one object, so that its programs are shared


def make(selector=DPS, **options):
    return Curriculum(selector, N, B, **options)


def test_no_more_programs_after_the_first_two_steps(tmp_path):
    compiled = []

    def listen(event, *_, **__):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    curriculum = make(selectors.dps(), group=G)
    train(curriculum, 2)
    curriculum.save(tmp_path / "saved")
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for step in range(2, 5):
            in_parts(
                curriculum, curriculum.ask(), rewards_of([0, 1, 2, 3], step)
            ) if False else None
            index = curriculum.ask()
            in_parts(curriculum, index, rewards_of(index, step))
            curriculum.metrics()
        again = make(curriculum.selector, group=G)
        again.load(tmp_path / "saved")
        train(again, 4, 2)
    finally:
        jax.monitoring.clear_event_listeners()
    assert not compiled


def test_the_belief_lives_on_the_cpu():
    state = make().state
    assert {d.platform for leaf in jax.tree.leaves(state) for d in leaf.devices()} == {"cpu"}


@pytest.mark.parametrize("lag", [1, 3])
def test_asked_ahead_and_killed_it_goes_on_as_it_would_have(lag, tmp_path):
    """A pipeline: what is out when it is killed is rolled out once more."""

    def run(curriculum, steps, start=0, kill=None):
        queue, asked = [], []
        for step in range(start, steps):
            while len(queue) <= lag:
                queue.append(curriculum.ask_ticket())
                asked.append(queue[-1][1].tolist())
            ticket, index = queue.pop(0)
            curriculum.tell(ticket, rewards_of(index, step))
            if step == kill:
                curriculum.save(tmp_path / "saved")
        return asked

    whole, again = make(), make()
    asked = run(whole, 8, kill=3)
    again.load(tmp_path / "saved")
    assert len(again.pending) == lag
    assert run(again, 8, start=4) == asked[4:]
    same_state(again, whole)


def test_out_of_order_late_and_never():
    """Each batch counts once, in whatever order the tickets come back."""
    curriculum = make(group=G)
    out = [curriculum.ask_ticket() for _ in range(4)]
    for ticket, index in (out[2], out[0]):
        curriculum.tell(ticket, rewards_of(index, ticket))
    ticket, index = curriculum.ask_ticket()
    curriculum.tell(out[1][0], flat(out[1][1], rewards_of(out[1][1], 1))[1])  # late
    assert curriculum.pending == [3, 4]
    curriculum.drop(3)  # never
    assert curriculum.pending == [4]
    table = curriculum.table()
    assert table["rollouts"].sum() == 3 * B * G
    assert table["asked"].sum() == 5 * B
    assert curriculum.metrics()["step"] == 4


def test_prompts_that_are_out_are_not_barred():
    """With as many places as prompts, a second batch must hold those of the first."""
    curriculum = Curriculum(selectors.uniform(), 4, 4)
    first, second = curriculum.ask(), curriculum.ask()
    assert sorted(first) == sorted(second) == [0, 1, 2, 3]


def test_rows_in_order_go_to_the_oldest_batch_that_waits():
    curriculum = Curriculum(selectors.uniform(), 4, 4, group=2)
    for _ in range(2):
        curriculum.ask()
    ids = np.repeat(np.arange(4), 3)  # a group and a half of each
    curriculum.tell(ids, np.ones(12))
    assert curriculum.pending == [1]
    with pytest.raises(ValueError, match=r"told already: \[0\]"):
        curriculum.tell([0, 0], [1, 1])
    curriculum.tell(np.arange(4), np.zeros(4))
    assert curriculum.pending == []
    assert curriculum.metrics()["effective_ratio"] == 0.5


def test_a_batch_that_is_passed_over_is_not_handed_out_again():
    curriculum = make()
    curriculum.ask()
    index = curriculum.ask()
    curriculum.tell(index, rewards_of(index, 1))
    assert curriculum.pending == []


def test_too_many_batches_out_give_up_the_oldest():
    curriculum = make(outstanding=2)
    out = [curriculum.ask_ticket() for _ in range(3)]
    curriculum.tell(*out[0], np.ones((B, G)))
    found = curriculum.metrics()
    assert (found["given_up"], found["dropped_rollouts"]) == (1, B * G)
    assert curriculum.table()["rollouts"].sum() == 0


def test_a_group_in_pieces_is_learned_whole():
    """Four passes and then four failures of a prompt are a mixed group."""
    curriculum = make(group=8)
    ticket, index = curriculum.ask_ticket()
    curriculum.tell(ticket, index, np.ones((B, 4)))
    before = curriculum.table()
    assert before["rollouts"].sum() == 0
    curriculum.ask()
    curriculum.tell(ticket, index, np.zeros((B, 4)))
    assert curriculum.metrics()["effective_ratio"] == 1.0
    assert (curriculum.table()["rollouts"][index] == 8).all()


def test_a_killed_half_told_batch_counts_the_told_half_once(tmp_path):
    """What was learned of it before it is handed out again is not learned twice."""
    whole, again = make(group=G), make(group=G)
    ticket, index = whole.ask_ticket()
    whole.tell(ticket, index[:2], rewards_of(index, 0)[:2])
    whole.ask_ticket()  # learns the half
    whole.save(tmp_path / "saved")
    again.load(tmp_path / "saved")
    whole.tell(ticket, index[2:], rewards_of(index, 0)[2:])
    assert again.ask_ticket()[0] == ticket
    again.tell(ticket, rewards_of(index, 0))
    again.ask_ticket()  # the second batch
    same_state(again, whole)


def test_no_verdict_is_no_failure():
    curriculum = make()
    index = curriculum.ask()
    curriculum.tell(index, [[None, 1.0], [float("nan"), float("nan")], [0, None], [True, False]])
    found = curriculum.metrics()
    assert found["no_verdict"] == 0.5
    assert found["effective_ratio"] == 1 / 3
    assert found["all_right"] == found["all_wrong"] == 1 / 3
    assert curriculum.pending == []
    alike = make()
    told = index[[0, 2, 3, 3]]
    alike.ask()
    alike.tell(told, [1, 0, 1, 0])
    jax.tree.map(np.testing.assert_array_equal, curriculum.state, alike.state)


def test_metrics_are_plain_floats():
    curriculum = make()
    train(curriculum, 2)
    assert {type(value) for value in curriculum.metrics().values()} == {float}
    assert np.isnan(make().metrics()["pass_rate"])


def test_a_short_pool_is_an_error_and_changes_nothing():
    selector = dpsjax.chain(selectors.uniform(), cool_down(9))
    curriculum = Curriculum(selector, 6, 4)
    train(curriculum, 1)
    before = curriculum.metrics()
    for _ in range(2):
        with pytest.raises(ValueError, match="offers 2 prompts, and batch_size=4"):
            curriculum.ask()
    assert curriculum.metrics() == before


def test_a_refill_lets_no_time_pass():
    """Two batches of one step are one `advance`, as with the pure functions."""
    curriculum = make()
    key = jax.random.key(0, impl="threefry2x32")
    first = curriculum.ask()
    curriculum.tell(first, rewards_of(first, 0))
    second = curriculum.ask(same_step=True)
    curriculum.tell(second, rewards_of(second, 1))
    state = DPS.init(N)
    for place, index, advance in ((0, first, False), (1, second, True)):
        batch, state = dpsjax.select(DPS, jax.random.fold_in(key, place), state, B)
        np.testing.assert_array_equal(batch.index, index)
        passes = rewards_of(index, place).sum(1).astype(np.int32)
        _, state = dpsjax.observe(DPS, state, index, passes, [G] * B, advance=advance)
    jax.tree.map(np.testing.assert_array_equal, curriculum.state, state)
    assert curriculum.metrics()["total_groups"] == 2 * B


def test_feedback_and_batch_are_those_of_the_pure_functions():
    selector = dpsjax.chain(DPS, selectors.accept_mixed())
    curriculum = make(selector)
    ticket, index = curriculum.ask_ticket()
    assert not curriculum.feedback(ticket).accept.any()
    curriculum.tell(ticket, index[1:], [[0, 1], [1, 1], [0, 0]])
    assert curriculum.feedback().accept.tolist() == [False, True, False, False]
    assert curriculum.feedback().weight.tolist() == [0, 1, 1, 1]
    np.testing.assert_array_equal(curriculum.batch(ticket).index, index)
    curriculum.ask()
    assert curriculum.feedback(ticket).accept.tolist() == [False, True, False, False]


def test_rollouts_wanted_of_each_are_waited_for():
    """A selector that divides the rollouts: its groups are whole when they have its numbers."""
    curriculum, told = make(selectors.knapsack(lowest=1, most=8, group=4), group=4), 0
    for _ in range(2):
        ticket, index = curriculum.ask_ticket()
        wanted = np.asarray(curriculum.batch(ticket).trials)
        wanted = np.where(wanted > 0, wanted, 4)
        rows = np.repeat(index, wanted)
        told += rows.size
        curriculum.tell(ticket, rows[:-1], rows[:-1] % 2)
        assert curriculum.pending == [ticket]
        curriculum.tell(ticket, rows[-1:], [0])
        assert curriculum.pending == []
    assert curriculum.metrics()["total_rollouts"] == told


def test_rollouts_made_elsewhere():
    curriculum = make()
    curriculum.tell(np.repeat(np.arange(10), 2), [0, 1] * 10, asked=False)
    assert curriculum.table()["rollouts"].tolist() == [2] * 10 + [0] * (N - 10)
    with pytest.raises(ValueError, match="were not handed out"):
        curriculum.tell([0], [1])


def test_several_threads():
    """Workers that ask and tell at once: nothing is lost, nothing counted twice."""
    curriculum, wrong = make(group=G), []

    def work():
        try:
            for _ in range(5):
                ticket, index = curriculum.ask_ticket()
                curriculum.tell(ticket, rewards_of(index, ticket))
        except Exception as error:
            wrong.append(error)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
    assert curriculum.metrics()["total_rollouts"] == 20 * B * G


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda c: c.tell([N], [1]), ValueError, "index must lie in"),
        (lambda c: c.tell([0.5], [1]), TypeError, "index must hold integers"),
        (lambda c: c.tell([[0]], [1]), ValueError, "index must be a vector"),
        (lambda c: c.tell([0, 1], [1]), ValueError, "np.repeat"),
        (lambda c: c.tell([0], ["yes"]), TypeError, "rewards"),
        (lambda c: c.tell([0], np.ones((1, 1, 1))), ValueError, "rewards must be"),
        (lambda c: c.tell([0]), TypeError, "tell takes"),
        (lambda c: c.tell(7, np.ones(B)), ValueError, "ticket 7 is not out"),
        (lambda c: c.tell("a", [0], [1]), TypeError, "ticket='a'"),
        (lambda c: c.tell(0, np.ones(B + 1)), ValueError, "rewards must be"),
        (lambda c: c.drop(True), TypeError, "ticket=True"),
        (lambda c: c.feedback(5), ValueError, "ticket 5 is not out"),
        (lambda c: c.table(0), ValueError, "group"),
        (lambda c: make(group=0), ValueError, "group"),
        (lambda c: make(seed=-1), ValueError, "seed"),
        (lambda c: make(solved="half"), TypeError, "solved"),
        (lambda c: make(fingerprint=3), TypeError, "fingerprint"),
        (lambda c: make(outstanding=0), ValueError, "outstanding"),
        (lambda c: make(selectors.sec()), ValueError, "source"),
        (lambda c: Curriculum(DPS, 3, 4), ValueError, "batch_size=4"),
    ],
)
def test_wrong_arguments_are_named_and_change_nothing(call, error, message):
    curriculum = make()
    curriculum.ask()
    before = curriculum.metrics()
    with pytest.raises(error, match=message):
        call(curriculum)
    np.testing.assert_equal(curriculum.metrics(), before)
    assert curriculum.pending == [0]
