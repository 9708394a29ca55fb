"""Mathematics: what is equal, what is not, hostile answers, and the real files where they are."""

import json
import random
from pathlib import Path

import pytest

from dpsjax.tasks.answers import final_answer
from dpsjax.tasks.base import LostScores, Problem
from dpsjax.tasks.math import MathConfig, grade, references, score
from dpsjax.tasks.workers import ScoringWorkers
from tests.tasks.attacks import BOMBS, attack

pytest.importorskip("math_verify", reason="needs the extra: math")

DATA = Path(__file__).parents[3] / "shared" / "data" / "math"
EQUAL = [
    ("0.5", r"\frac{1}{2}"),
    (r"\frac12", "1/2"),
    (r"\dfrac{14}{3}", r"\frac{14}{3}"),
    (r"50\%", "0.5"),
    (r"5\text{ cm}", "5"),
    ("(1, 2]", "(1,2]"),
    (r"\{2, 1\}", r"\{1,2\}"),
    (r"\begin{bmatrix}1\\2\end{bmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    ("Evelyn", r"\text{Evelyn}"),
    ("x=5", "5"),
    ("1000", "1,000"),
    ("q-p", "-p + q"),
    (r"(3, \pi/2)", r"\left( 3, \frac{\pi}{2} \right)"),
    (r"7\times 10^{37}", "7e37"),
    ("142", "142.0"),
    ("870000000", r"8.7 \times 10^{8}"),
    (r"1.60\cdot10^{-19}", "1.6e-19"),
    ("3.1415927", "3.14159265"),
    ("June 20", r"\text{June 20}"),
    ("12_5", "12_{5}"),
    ("111_2", "12_5"),
    ("x_{1}", "x_1"),
    ("12", "12_5"),
    (".5", "0.5"),
    (r"\varnothing", r"\emptyset"),
]
OTHER = [
    ("4", "3"),
    ("0.333", "1/3"),
    ("(1,2)", "(1,2]"),
    (r"\{1,2,3\}", r"\{1,2\}"),
    (r"\text{Angela}", r"\text{Evelyn}"),
    ("p+q", "p-q"),
    ("7e36", "7e37"),
    ("1.7e-19", "1.6e-19"),
    ("0.00000002", "0.00000001"),
    ("1000000001", "1000000000"),
    (".0000673", ".0000672"),
    (r"\frac{1}{2^{99}}", r"\frac{1}{2^{98}}"),
    ("12_6", "12_5"),
    ("40_0", "40_9"),
    ("52_5", "52_8"),
    ("June 21", r"\text{June 20}"),
    ("", "0"),
    ("__import__('os')", "0"),
]


@pytest.mark.parametrize(("answer", "reference"), EQUAL)
def test_equal_forms(answer, reference):
    assert grade(answer, reference)[:3] == (1.0, True, "")


@pytest.mark.parametrize(("answer", "reference"), OTHER)
def test_other_values(answer, reference):
    found = grade(answer, reference)
    assert not found.correct and found.reward == 0 and found.reason and found.answer == answer


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        (142.0, ["142"]),
        (0.5, ["0.5"]),
        (["$2$."], ["2"]),
        (["2", "3\n", "2"], ["2", "3"]),
        (r"a \boxed{3} b", ["3"]),
        ("", []),
        ([], []),
    ],
)
def test_references(value, texts):
    assert references(value) == texts


def fuzz(count, seed):
    """Responses graded in workers: (how many have a verdict, errors, rewards of any)."""
    rng = random.Random(seed)
    problems = [Problem("", {"references": ["12"]}, "", str(n // 50)) for n in range(count)]
    problems = [problems[n - n % 50] for n in range(count)]
    responses = [attack(rng, bombs=False) for _ in range(count)]
    workers = ScoringWorkers(score, 2, 10.0, one_by_one=True)
    try:
        return workers(problems, responses), []
    except LostScores as lost:
        return lost.scores, lost.errors
    finally:
        workers.close()


@pytest.mark.parametrize(
    ("count", "most_lost"), [(60, 0.1), pytest.param(100_000, 0.01, marks=pytest.mark.slow)]
)
def test_hostile_responses_get_no_reward(count, most_lost):
    scores, errors = fuzz(count, seed=0)
    assert len(scores) == count and len(errors) <= most_lost * count
    assert sum(score is None for score in scores) == len(errors)
    assert not any(score.reward or score.correct for score in scores if score)
    assert all(score.reason for score in scores if score)


@pytest.mark.slow
def test_what_symbolic_algebra_cannot_do_is_an_error_or_wrong():
    problem = Problem("", {"references": ["12"]}, "")
    workers = ScoringWorkers(score, 1, 5.0, one_by_one=True)
    for bomb in BOMBS:
        try:
            found = workers([problem] * 2, [f"\\boxed{{{bomb}}}", r"\boxed{12}"])
        except LostScores as lost:
            found = lost.scores
        assert found[0] is None or not (found[0].reward or found[0].correct), bomb
        assert found[1].correct, bomb
    workers.close()


def test_a_monster_costs_its_deadline_and_is_an_error():
    problem = Problem("", {"references": ["12"]}, "")
    workers = ScoringWorkers(score, 1, 5.0, one_by_one=True)
    texts = [
        r"\boxed{12}",
        r"\boxed{9^{9^{9^{9}}}}",
        r"\boxed{12}",
        r"\boxed{(10^{9})!}",
        r"\boxed{13}",
    ]
    try:
        found, errors = workers([problem] * 5, texts), []
    except LostScores as lost:
        found, errors = lost.scores, lost.errors
    workers.close()
    assert [bool(s and s.correct) for s in found] == [True, False, True, False, False]
    assert found[4] is not None and len(errors) == sum(s is None for s in found)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["train_math", "test_math", "test_aime", "test_amc", "test_minerva", "test_olympiad_bench"],
)
def test_every_reference_of_the_real_files_is_equal_to_itself(name):
    path = DATA / f"{name}.json"
    if not path.exists():
        pytest.skip(f"no real data at {path}")
    rows = json.loads(path.read_text(encoding="utf-8"))[:1000]
    given = [row.get("answer", row.get("final_answer")) for row in rows]
    for reference in [text for value in given if value is not None for text in references(value)]:
        assert grade(final_answer(f"\\boxed{{{reference}}}"), reference).correct, reference


@pytest.mark.skipif(not DATA.exists(), reason=f"no real data at {DATA}")
def test_the_task_of_real_files():
    names = ("test_aime", "test_amc", "test_minerva", "test_olympiad_bench")
    task = MathConfig(
        train=(DATA / "test_math.json",), test=tuple(DATA / f"{name}.json" for name in names)
    ).build()
    assert len(task.train) == 500 and len(task.test) == 30 + 83 + 272 + 675
    assert {problem.source for problem in task.test} == set(names)
    assert task.train[0].text().endswith("output the final answer within \\boxed{}.")
    assert task.train[0].id == "test_math/test/precalculus/807.json" and task.isolated


def test_files_of_other_makers_are_known_by_their_columns(tmp_path):
    deepscaler = {"problem": "1+1?", "answer": "2", "solution": r"So \boxed{2}."}
    verl = {
        "data_source": "DeepScaleR",
        "prompt": [{"role": "user", "content": "1+2?"}],
        "reward_model": {"style": "rule", "ground_truth": "3"},
        "extra_info": {"split": "train", "index": 7},
    }
    solved = {"question": "2+2?", "solution": r"It is $\boxed{4}$."}
    path = tmp_path / "mixed.json"
    path.write_text(json.dumps([deepscaler, verl, solved]))
    train = MathConfig(train=(path,), test=(path,)).build().train
    assert [p.answer["references"] for p in train] == [["2"], ["3"], ["4"]]
    assert train[1].source == "DeepScaleR" and train[1].id == "mixed/7"
    assert all(p.text().endswith("within \\boxed{}.") for p in train)


def test_rows_without_an_answer_are_named(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"problem": "1?", "id": 1}\n{"problem": "2?", "answer": "2"}\n')
    message = r"1 of 1 problems have no answer, the first is 'a/1' with the columns problem, id"
    with pytest.raises(ValueError, match=message):
        MathConfig(train=(path,), held_out=1).build()
    path.write_text('{"problem": "1?"}\n{"problem": "2?", "answer": "2"}\n' * 2)
    skipped = MathConfig(train=(path,), test=(path,), unanswered="skip").build()
    assert [p.text()[:2] for p in (*skipped.train, *skipped.test)] == ["2?"] * 4
