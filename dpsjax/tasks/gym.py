"""Procedural tasks of reasoning-gym (extra ``gym``), by name, with its knobs and its verifiers.

Some of its generators walk over sets of texts, whose order Python draws anew in every process: so
problems are drawn in a process of their own, where it is fixed. Its verifiers run in workers, for
some may hang; and what they would hand to ``eval`` is looked at before.
"""

import concurrent.futures
import functools
import hashlib
import importlib.util
import json
import multiprocessing
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from dpsjax import checks
from dpsjax.tasks.answers import strictly_tagged
from dpsjax.tasks.base import Problem, Score, Task, Words, score_each
from dpsjax.tasks.data.texts import text_task
from dpsjax.tasks.drawn import DrawnSettings
from dpsjax.tasks.shares import split_of

# After each question for a model of language.
SUFFIX = (
    "\n\nThink first. Then give the final answer, and nothing else, between <answer> and </answer>."
)
# Of sixteen shares of all problems: how many are held out, and how many are for training.
_TEST_SHARES, _TRAIN_SHARES = 3, 13
# After so many draws in a row without a new problem, they count as used up.
_MAX_DRAWS = 1000
_MAX_CHARACTERS = 20_000  # of an answer: some are boards
_SLACK = 1e-9  # of scores that are sums


def gym(
    num_train: int,
    num_test: int,
    seed: int,
    *,
    dataset: str,
    knobs: Sequence[str] = (),
    level: int | None = None,
    threshold: float = 1.0,
    response_tokens: int = 1024,
) -> Task:
    """A task of reasoning-gym: the same arguments give the same problems.

    Args:
        num_train: number of training problems, all different.
        num_test: number of held-out problems, all different, never a training problem.
        seed: seed of the draw.
        dataset: name of the task.
        knobs: settings of the task, ``name=JSON`` each.
        level: of the task's own curriculum; None for its defaults.
        threshold: a response with at least this score is correct.
        response_tokens: longest response.

    Raises:
        ImportError: the extra ``gym`` is not installed.
        ValueError: there is no such task or knob, or there are not that many different problems.
    """
    if importlib.util.find_spec("reasoning_gym") is None:
        raise ImportError("these tasks need reasoning-gym: pip install 'dpsjax[gym]'")
    source = {
        "name": dataset,
        "knobs": checks.named_values(knobs=knobs),
        "level": level,
        "seed": seed,
    }
    with _fixed_hashing() as others:
        found = others.submit(draw, source, num_train, num_test).result()
    pools = (
        tuple(_problem(entry, source) for entry in found[0]),
        tuple(_problem(entry, source) for entry in found[1]),
    )
    return text_task(
        "gym",
        pools,
        functools.partial(score, threshold=threshold),
        response_tokens,
        words=Words(lambda problem: problem.text() + SUFFIX, strictly_tagged),
        isolated=True,
    )


@dataclass(frozen=True)
class GymConfig(DrawnSettings):
    """Procedural tasks of reasoning-gym, by name."""

    problems: int = 500
    """Prompts in the training pool that the selector chooses from."""
    held_out: int = 100
    """Held-out problems, none of which is a training problem."""
    dataset: Annotated[str, tyro.conf.arg(name="name")] = "countdown"
    """Task of reasoning-gym: countdown, chain_sum, sudoku, zebra_puzzles, ..."""
    knobs: tuple[str, ...] = ()
    """Its settings, NAME=JSON each, such as max_numbers=4; a wrong name tells all there are."""
    level: int | None = None
    """Level of its curriculum, from 0, which the knobs then change; by default its own settings."""
    threshold: float = 1.0
    """A response with at least this score is correct; its verifiers also give parts of 1."""
    response_tokens: int = 1024
    """Longest response."""

    draw = staticmethod(gym)

    def __post_init__(self):
        super().__post_init__()
        checks.require_type(str, "the name of a task", dataset=self.dataset)
        checks.named_values(knobs=self.knobs)
        checks.require_integers(**checks.given(level=self.level))
        checks.require_real(threshold=self.threshold)
        good = self.level is None or self.level >= 0
        checks.require_setting(good, "level", self.level, "0 or more")
        checks.require_setting(0 < self.threshold <= 1, "threshold", self.threshold, "in (0, 1]")
        checks.require_counts(response_tokens=self.response_tokens)


def score(
    problems: Sequence[Problem], responses: Sequence[str], *, threshold: float = 1.0
) -> list[Score]:
    """What the task's own verifier says; in workers, for it may not come back.

    Args:
        problems: of :func:`gym`.
        responses: the answers.
        threshold: a response with at least this score is correct.

    Raises:
        TypeError: something is no problem, or no text.
        ValueError: the lengths differ.
        ImportError: the extra ``gym`` is not installed.
    """
    import reasoning_gym  # noqa: F401 - a worker that has not got it must fail at its start

    return score_each(functools.partial(_judge, threshold=threshold), problems, responses)


def draw(source: Mapping[str, Any], num_train: int, num_test: int) -> tuple[list[dict], list[dict]]:
    """Entries of reasoning-gym, all different, divided for ever by their questions.

    Args:
        source: ``name``, ``knobs``, ``level`` and ``seed``.
        num_train: how many to train on.
        num_test: how many to hold out.

    Returns:
        ``(train, test)``.

    Raises:
        ValueError: there is no such task or knob, or there are not that many different entries.
    """
    wanted = {"train": num_train, "test": num_test}
    found: dict[str, list[dict]] = {"train": [], "test": []}
    for entry in _distinct(source, size=20 * (num_train + 8 * num_test) + _MAX_DRAWS):
        split = split_of(entry["question"], _TEST_SHARES, _TRAIN_SHARES)
        if len(found[split]) < wanted[split]:
            found[split].append(entry)
        if all(len(found[name]) == count for name, count in wanted.items()):
            return found["train"], found["test"]
    have = " and ".join(
        f"{len(found[name])} of {count} for {name}" for name, count in wanted.items()
    )
    raise ValueError(
        f"{source['name']} with knobs={source['knobs']} has too few different problems ({have}): "
        "ask for fewer, or give it other knobs"
    )


def _distinct(source: Mapping[str, Any], size: int) -> Iterator[dict]:
    """Different entries, until no new ones come."""
    dataset = _dataset(json.dumps({**source, "size": size}))
    seen: set[str] = set()
    idle = 0
    for index in range(size):
        entry = dataset[index]
        idle += 1
        if entry["question"] not in seen:
            seen.add(entry["question"])
            idle = 0
            yield entry
        if idle >= _MAX_DRAWS:
            return


@functools.lru_cache(maxsize=8)
def _dataset(source: str) -> Any:
    """The task of reasoning-gym that some JSON describes."""
    from reasoning_gym import factory

    given = json.loads(source)
    name = given["name"]
    if name not in factory.DATASETS or name == "composite":
        known = ", ".join(sorted(set(factory.DATASETS) - {"composite"}))
        raise ValueError(f"task.name={name!r} is no task of reasoning-gym: use one of {known}")
    kind = factory.DATASETS[name][1]
    settings = _settings_at(name, given["level"]) | given["knobs"]
    if unknown := set(settings) - set(kind.__dataclass_fields__):
        known = ", ".join(sorted(set(kind.__dataclass_fields__) - {"seed", "size"}))
        raise ValueError(f"task.knobs: {name} has no {', '.join(unknown)}, but {known}")
    settings |= {"seed": given["seed"], "size": given["size"]}
    try:
        return factory.create_dataset(name, **settings)
    except Exception as error:  # its checks are of all kinds
        raise ValueError(
            f"task.knobs={given['knobs']}: {name} refuses them ({type(error).__name__}: {error})"
        ) from None


def _settings_at(name: str, level: int | None) -> dict[str, Any]:
    """What the task's curriculum says of a level."""
    from reasoning_gym import factory

    if level is None:
        return {}
    if not factory.has_curriculum(name):
        raise ValueError(f"task.level={level}: {name} has no levels; use --task.knobs")
    curriculum = factory.create_curriculum(name)
    for attribute in curriculum.attributes.values():
        most = len(attribute.levels) - 1
        curriculum.set_attr_level(attribute.name, min(level, most))
    return dict(vars(curriculum.generate_configuration()))


def _problem(entry: Mapping[str, Any], source: Mapping[str, Any]) -> Problem:
    """A problem, whose id is that of its question, whatever the seed and the knobs."""
    name = source["name"]
    digest = hashlib.sha256(entry["question"].encode()).hexdigest()[:16]
    answer = {"entry": dict(entry), "source": dict(source)}
    return Problem(entry["question"], answer, name, f"{name}/{digest}")


def _judge(problem: Problem, response: str, threshold: float) -> Score:
    source = problem.answer["source"]
    if not response:
        return Score(0.0, False, "no answer")
    if len(response) > _MAX_CHARACTERS:
        return Score(0.0, False, "answer too long", response[:100])
    if not _FORMS.get(source["name"], _any)(response):
        return Score(0.0, False, "an answer of another form", response)
    verifier = _dataset(json.dumps({**source, "size": 1}))
    try:
        found = float(verifier.score_answer(response, problem.answer["entry"]))
    except MemoryError:
        raise  # no verdict: it is counted as an error
    except Exception as error:  # of whatever a verifier does on what it did not expect
        return Score(0.0, False, f"cannot be verified ({type(error).__name__})", response)
    correct = found >= threshold - _SLACK
    return Score(found, correct, "" if correct else f"score {found:g}", response)


def _any(text: str) -> bool:
    return True


def _no_call(text: str) -> bool:
    """Without parentheses nothing is called, whatever else it evaluates to."""
    return "(" not in text


_FUNCTIONS = r"(?:a?(?:sin|cos|tan)h?|sec|csc|cot|exp|log|ln|sqrt|pi|Integral)"


def _symbolic(text: str) -> bool:
    """Numbers, letters and functions of mathematics: no attribute, no text, no other name."""
    if not re.fullmatch(r"[\w\s.,+*/^()=-]*", text, re.ASCII) or re.search(r"\.\s*[A-Za-z_]", text):
        return False
    names = re.findall(r"[A-Za-z_]\w*", text)
    return all(len(name) == 1 or re.fullmatch(_FUNCTIONS, name) for name in names)


def _truth(text: str) -> bool:
    """This verifier takes all that does not say True for False."""
    return text in ("True", "False")


# By task: what an answer must look like before a verifier sees it that would evaluate it.
_FORMS: Mapping[str, Callable[[str], bool]] = {
    **dict.fromkeys(("binary_matrix", "n_queens", "spiral_matrix", "string_insertion"), _no_call),
    **dict.fromkeys(
        (
            "countdown",
            "intermediate_integration",
            "polynomial_multiplication",
            "puzzle24",
            "simple_integration",
        ),
        _symbolic,
    ),
    "game_of_life_halting": _truth,
}


def _fixed_hashing() -> concurrent.futures.ProcessPoolExecutor:
    """A process in which sets of texts have the same order every time."""
    before = os.environ.get("PYTHONHASHSEED")
    os.environ["PYTHONHASHSEED"] = "0"
    try:
        pool = concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        pool.submit(int).result()  # it starts now
    finally:
        if before is None:
            del os.environ["PYTHONHASHSEED"]
        else:
            os.environ["PYTHONHASHSEED"] = before
    return pool
