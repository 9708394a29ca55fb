"""Anybody's own data and rewards: ``dpsjax train jsonl --task.train FILE --task.reward mod:f``."""

from dataclasses import dataclass
from pathlib import Path

from dpsjax import checks
from dpsjax.tasks.base import Task, TaskSettings
from dpsjax.tasks.data.columns import Columns, held_out, problems_of
from dpsjax.tasks.data.texts import text_task
from dpsjax.tasks.rewards import RewardScorer


@dataclass(frozen=True)
class FileSettings(TaskSettings):
    """Settings of tasks whose problems are rows of files."""

    train: tuple[Path, ...] = ()
    """Files of training problems: .jsonl, .json, .parquet, or folders of datasets."""
    test: tuple[Path, ...] = ()
    """Files of held-out problems; without any, some of the training problems are held out."""
    held_out: int | None = None
    """How many of the training problems are held out where there is no other file, chosen for ever
    by their ids; by default a tenth, at most 500."""
    prompt_field: str = ""
    """Column of the question, a text or messages; by default prompt, question, problem or messages.
    A dot goes into a nested object, as in reward_model.ground_truth."""
    answer_field: str = ""
    """Column of the answer; by default answer, ground_truth, reward_model.ground_truth,
    final_answer or solution."""
    id_field: str = ""
    """Column of ids, unique in a file; by default id, unique_id or extra_info.index, else ids are
    made of the contents."""
    source_field: str = ""
    """Column of the group that a problem is reported under; by default source, data_source, type,
    subject or subfield, else the name of the file."""
    suffix: str = ""
    """Put after each question."""
    response_tokens: int = 1024
    """Longest response."""

    def __post_init__(self):
        checks.require_items(Path, "a file", train=self.train, test=self.test)
        checks.require_counts(response_tokens=self.response_tokens)
        checks.require_counts(**checks.given(held_out=self.held_out))
        texts = (self.prompt_field, self.answer_field, self.id_field, self.source_field)
        names = ("prompt_field", "answer_field", "id_field", "source_field")
        checks.require_type(str, "the name of a column", **dict(zip(names, texts, strict=True)))
        checks.require_type(str, "a text", suffix=self.suffix)

    def pools(self):
        """The problems, ``(train, test)``.

        Raises:
            ValueError: no file was given, or a row is wrong.
            OSError: a file cannot be read.
        """
        if not self.train:
            raise ValueError("task.train: give a file of problems, --task.train FILE")
        columns = Columns(self.prompt_field, self.answer_field, self.id_field, self.source_field)
        found = problems_of(self.train, columns, suffix=self.suffix)
        if not self.test:
            return held_out(found, self.held_out)
        several = len(self.test) > 1  # benchmarks are told apart
        test = problems_of(self.test, columns, split="test", suffix=self.suffix, by_file=several)
        return found, test


@dataclass(frozen=True)
class JsonlConfig(FileSettings):
    """Your own problems, from files, and your own reward functions."""

    reward: tuple[str, ...] = ()
    """Reward functions, module:function, called as f(prompts=, completions=, **columns), all lists,
    and returning a list of numbers; None or NaN is no verdict. The module is found in the current
    folder or on PYTHONPATH."""
    weights: tuple[float, ...] = ()
    """Weight of each reward function; 1 by default."""
    correct: str = ""
    """Function of the same form that says which responses are correct; by default those whose
    reward reaches the threshold. What is believed of prompts rests on this."""
    threshold: float = 1.0
    """A response with at least this reward is correct."""

    def build(self) -> Task:
        """The task.

        Raises:
            ValueError: a row or a setting is wrong, or a reward function fails on the first row.
            OSError: a file cannot be read.
            ImportError: an extra is not installed.
        """
        scorer = RewardScorer(self.reward, self.weights, self.correct, self.threshold)
        pools = self.pools()
        first = pools[0][0]
        scorer.probe(first, f"{first.id!r}")
        tokens, inputs = self.response_tokens, scorer.digests()
        return text_task("jsonl", pools, scorer, tokens, inputs=inputs)
