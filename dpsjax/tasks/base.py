"""What a task is: problems, a verifier, and the tokenizer that both sides speak.

Plain Python, no arrays: a policy turns tokens into text, a task turns text into rewards.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any, NamedTuple, Protocol, SupportsIndex, runtime_checkable

from dpsjax import checks


@dataclass(frozen=True)
class Problem:
    """One prompt and what its verifier needs.

    Attributes:
        prompt: the text shown to the policy.
        answer: private to the task, JSON-serialisable.
        source: the group it is reported under, for example ``"4 numbers"``.
    """

    prompt: str
    answer: Any
    source: str

    def __post_init__(self):
        checks.require_type(str, "a text", prompt=self.prompt, source=self.source)


class Score(NamedTuple):
    """The verdict on one response.

    Attributes:
        reward: what the policy is trained on.
        correct: what is counted as solved; the solve states are defined on this.
        reason: why the response is not correct, ``""`` when it is.
        answer: what was taken for the answer, ``""`` where none was found.
    """

    reward: float
    correct: bool
    reason: str
    answer: str = ""


class LostScores(Exception):
    """A scorer has verdicts on some responses, and none on others.

    Args:
        scores: one for each response; None where there is none.
        errors: what went wrong, a sentence for each lost group.
    """

    def __init__(self, scores: Sequence[Score | None], errors: Sequence[str]) -> None:
        checks.require_items((Score, NoneType), "a Score or None", scores=scores)
        checks.require_items(str, "a sentence", errors=errors)
        if not errors:
            raise ValueError("errors=() must hold a sentence for each lost group")
        super().__init__(f"{len(errors)} groups have no scores: {errors[0]}")
        self.scores, self.errors = list(scores), list(errors)


@runtime_checkable
class Tokenizer(Protocol):
    """Text to token ids and back; any tokenizer with these five names will do."""

    @property
    def pad_id(self) -> int:
        """Id that fills unused positions; masked everywhere."""
        ...

    @property
    def eos_id(self) -> int:
        """Id that ends a response."""
        ...

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        ...

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text``, with nothing added at either end."""
        ...

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        """The text of ``ids`` up to the first end-of-sequence id."""
        ...


def stop_ids(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Every token that ends a response; a language model's tokenizer may name several.

    Args:
        tokenizer: one that has a tuple ``stop_ids`` beside the five names ends responses at any of
            them, with ``eos_id`` among them.

    Raises:
        TypeError: ``tokenizer`` is none.
    """
    checks.require_type(Tokenizer, "a Tokenizer", tokenizer=tokenizer)
    found = getattr(tokenizer, "stop_ids", None)
    return (tokenizer.eos_id,) if found is None else tuple(found)


Scorer = Callable[[Sequence[Problem], Sequence[str]], list[Score]]


@dataclass(frozen=True)
class Task:
    """A pool of training problems, a held-out pool, and how to score responses to them.

    Attributes:
        name: short name, used in the outputs of a run.
        train: the pool that selectors choose from; a prompt id is a position in it.
        test: held-out problems, no overlap with ``train``.
        score: ``score(problems, responses)`` with one response per problem; never raises on
            the *content* of a response.
        tokenizer: encodes prompts, decodes responses.
        prompt_tokens: no prompt is longer than this.
        response_tokens: responses are cut after this many tokens, end of sequence included.
        question: a problem in words, for policies that are asked through a chat template; None
            where the prompt is the question.
    """

    name: str
    train: tuple[Problem, ...]
    test: tuple[Problem, ...]
    score: Scorer
    tokenizer: Tokenizer
    prompt_tokens: int
    response_tokens: int
    question: Callable[[Problem], str] | None = None

    def __post_init__(self):
        checks.require_items(Problem, "a Problem", train=self.train, test=self.test)
        checks.require_callable(score=self.score)
        checks.require_type(str, "a short name", name=self.name)
        checks.require_type(Tokenizer, "a Tokenizer", tokenizer=self.tokenizer)
        checks.require_counts(
            prompt_tokens=self.prompt_tokens, response_tokens=self.response_tokens
        )

    def fingerprint(self) -> str:
        """Sha256 over all problems in their order: equal exactly when the data are equal."""
        digest = hashlib.sha256()
        for split, problems in (("train", self.train), ("test", self.test)):
            for problem in problems:
                row = [split, problem.prompt, problem.answer, problem.source]
                digest.update(json.dumps(row, sort_keys=True).encode() + b"\n")
        return digest.hexdigest()
