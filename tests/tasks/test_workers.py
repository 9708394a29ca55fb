"""Verifiers that hang, die and lie, in real processes."""

import os
import subprocess
import sys
import time

import pytest

from dpsjax.tasks.base import LostScores, Problem, Score
from dpsjax.tasks.workers import ScoringWorkers

GROUP = 2


def obey(problems, responses):
    """A verifier that does what the problem says."""
    what = problems[0].answer
    if what == "hang":
        time.sleep(1000)
    if what == "die":
        os._exit(7)
    if what == "raise":
        raise RuntimeError("no such number")
    if what == "short":
        return [Score(1.0, True, "")]
    if what == "junk":
        return "abc"
    reason = f"{os.environ['JAX_PLATFORMS']} {os.getpid()}"
    return [Score(float(response), True, reason) for response in responses]


def asked(*words):
    problems = [Problem(word, word, "") for word in words]
    each = [problem for problem in problems for _ in range(GROUP)]
    return each, [str(number) for number in range(len(each))]


@pytest.fixture
def workers(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "tpu")  # what the parent trains on is not theirs to touch
    made = ScoringWorkers(obey, count=2, seconds=2.0)
    yield made
    made.close()


def test_scores_come_back_in_order_from_other_processes(workers):
    first = workers(*asked("a", "b", "c"))
    assert [score.reward for score in first] == [0, 1, 2, 3, 4, 5]
    platforms, numbers = zip(*(score.reason.split() for score in first), strict=True)
    assert set(platforms) == {"cpu"} and os.environ["JAX_PLATFORMS"] == "tpu"
    assert str(os.getpid()) not in numbers and len(set(numbers)) <= 2
    again = workers(*asked("d"))
    assert again[0].reason.split()[1] in numbers  # no process is started twice
    assert workers([], []) == []


def test_only_what_hangs_or_dies_is_lost(workers):
    with pytest.raises(LostScores) as caught:
        workers(*asked("a", "hang", "raise", "die", "short", "junk", "b"))
    lost = caught.value
    rewards = [None if score is None else score.reward for score in lost.scores]
    assert rewards == [0, 1, *[None] * 10, 12, 13]
    text = "\n".join(sorted(lost.errors))
    assert len(lost.errors) == 5
    for part in (
        "no answer within 2.0 seconds, the worker was killed",
        "RuntimeError: no such number",
        "a worker ended with code 7",
        "1 scores came back for 2 responses",
        "AttributeError: 'str' object has no attribute 'reward'",
    ):
        assert part in text
    assert [score.reward for score in workers(*asked("a"))] == [0, 1]  # replaced


def test_a_verifier_that_always_dies_is_given_up(workers):
    with pytest.raises(LostScores, match="ended with code 7") as caught:
        workers(*asked(*["die"] * 9))
    assert caught.value.scores == [None] * 18 and len(caught.value.errors) == 9
    assert any(error.startswith("given up: ") for error in caught.value.errors)


def test_a_worker_that_was_killed_while_idle_is_replaced(workers):
    workers(*asked("a"))
    for worker in workers._idle:
        worker.process.kill()
        worker.process.join()
    assert [score.reward for score in workers(*asked("a"))] == [0, 1]


def obey_each(problems, responses):
    """A verifier that does what the response says."""
    if not problems:
        return []
    (response,) = responses
    if response == "eat":
        return [Score(float(len(bytearray(8 << 30))), True, "")]
    if response in {"hang", "die", "raise", "short", "junk"}:
        return obey([Problem("", response, "")], responses)
    return [Score(float(response), True, "", "seen")]


def test_one_by_one_a_response_that_hangs_or_dies_costs_itself_alone():
    workers = ScoringWorkers(obey_each, count=2, seconds=2.0, one_by_one=True)
    texts = ["0", "hang", "2", "die", "4", "eat", "6", "raise", "8", "short", "die", "11"]
    problems = [Problem("", number // 6, "") for number in range(12)]
    with pytest.raises(LostScores) as caught:
        workers(problems, texts)
    workers.close()
    rewards = [None if score is None else score.reward for score in caught.value.scores]
    # "short" returns as many as were asked for, one: a reward of 1.
    assert rewards == [0, None, 2, None, 4, None, 6, None, 8, 1, None, 11]
    assert len(caught.value.errors) == 5
    text = "\n".join(caught.value.errors)
    for part in ("no answer within", "code 7", "MemoryError", "RuntimeError: no such number"):
        assert part in text
    assert {score.answer for score in caught.value.scores if score and score.reward != 1} == {
        "seen"
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((lambda problems, responses: [], 1), "score=.*cannot be sent.*top level of a module"),
        ((obey, 0), "count=0 must be at least 1"),
        ((obey, 1, 0.0), "seconds=0.0 must be above 0"),
        ((obey, 1, float("nan")), "seconds=nan must be above 0"),
    ],
)
def test_what_cannot_work_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ScoringWorkers(*arguments)


def test_workers_that_can_never_start_are_an_error_before_any_rollout(tmp_path):
    """A script without a main guard starts itself again in every worker, and that ends it."""
    script = tmp_path / "train.py"
    script.write_text(
        "from dpsjax.tasks.workers import ScoringWorkers\n"
        "def score(problems, responses): return []\n"
        "ScoringWorkers(score, 1).start()\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode != 0
    assert "ended with code 1 at its start" in done.stderr and "__main__" in done.stderr


def test_started_workers_are_used(workers):
    workers.start()
    assert len(workers(*asked("a"))) == GROUP
