"""What a task is: problems, a verifier, and the tokenizer that both sides speak.

Plain Python, no arrays: a policy turns tokens into text, a task turns text into rewards. A task of
one's own is a :class:`TaskSettings` with a ``build``; its fields are options of ``dpsjax train``.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple, Protocol, SupportsIndex, runtime_checkable

from dpsjax import checks
from dpsjax.tasks.tokenizer import IMAGE as IMAGE


@dataclass(frozen=True)
class Problem:
    """One prompt and what its verifier needs.

    Attributes:
        prompt: what the policy reads: a text, or the messages of a conversation, each a mapping
            with ``role`` and ``content``, for models of checkpoint folders.
        answer: private to the task, JSON-serialisable.
        source: the group it is reported under, for example ``"4 numbers"``.
        id: stable, and no other problem of the same pool has it; made of the rest if not given.
        images: contents of picture files that the prompt shows, each where it says ``<image>``.
    """

    prompt: str | Sequence[Mapping[str, Any]]
    answer: Any
    source: str
    id: str = ""
    images: tuple[bytes, ...] = ()

    def __post_init__(self):
        checks.require_items(bytes, "the content of a picture file", images=self.images)
        checks.require_type(str, "a text", source=self.source, id=self.id)
        if not isinstance(self.prompt, str):
            checks.require_items(Mapping, "a message", prompt=self.prompt)
            if not self.prompt or any({"role", "content"} - set(m) for m in self.prompt):
                raise ValueError("prompt must hold messages, each with a role and content")
        if not self.id:
            row = [self.source, self.prompt, self.answer, *self.image_digests()]
            text = json.dumps(row, sort_keys=True, default=repr)
            object.__setattr__(self, "id", hashlib.sha256(text.encode()).hexdigest()[:16])

    def image_digests(self) -> list[str]:
        """What identifies the pictures."""
        return [hashlib.sha256(image).hexdigest() for image in self.images]

    def text(self) -> str:
        """The prompt as one text: of messages, their contents."""
        if isinstance(self.prompt, str):
            return self.prompt
        return "\n\n".join(str(message["content"]) for message in self.prompt)


class Score(NamedTuple):
    """The verdict on one response.

    Attributes:
        reward: what the policy is trained on.
        correct: what is counted as solved. What is believed of prompts, and so the choice of the
            next, rests on this alone: a reward for form makes no prompt look partially solved.
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


def score_each(
    judge: Callable[[Problem, str], Score], problems: Sequence[Problem], responses: Sequence[str]
) -> list[Score]:
    """A scorer made of a verdict on one response.

    Args:
        judge: the verdict.
        problems: one for each response.
        responses: decoded.

    Raises:
        TypeError: something is no problem, or no text.
        ValueError: the lengths differ.
    """
    checks.require_callable(judge=judge)
    checks.require_items(Problem, "a Problem", problems=problems)
    checks.require_items(str, "a text", responses=responses)
    if len(problems) != len(responses):
        raise ValueError(
            f"problems are {len(problems)}, responses are {len(responses)}: give one each"
        )
    return [judge(*pair) for pair in zip(problems, responses, strict=True)]


class Words(NamedTuple):
    """How a task whose prompts are no sentences is put to a model of language, and understood.

    Attributes:
        question: a problem in words; a text, or messages.
        answer: what the verifier is given of a response in words.
        frame: what a model without a chat template reads, around ``{question}``.
    """

    question: Callable[[Problem], str | Sequence[Mapping[str, Any]]]
    answer: Callable[[str], str]
    frame: str = "{question}"


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
        words: for models of language; None where the prompt is the question, and the verifier
            reads whole responses.
        isolated: score in processes of its own, one response at a time: for verifiers that may
            hang or die of what a policy writes.
        inputs: further inputs that decide the rewards, by name, with a digest of their content; a
            run is repeated with the same only.
    """

    name: str
    train: tuple[Problem, ...]
    test: tuple[Problem, ...]
    score: Scorer
    tokenizer: Tokenizer
    prompt_tokens: int
    response_tokens: int
    words: Words | None = None
    isolated: bool = False
    inputs: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self):
        checks.require_items(Problem, "a Problem", train=self.train, test=self.test)
        require_distinct(train=self.train, test=self.test)
        checks.require_callable(score=self.score)
        checks.require_type(str, "a short name", name=self.name)
        checks.require_type(Tokenizer, "a Tokenizer", tokenizer=self.tokenizer)
        checks.require_counts(
            prompt_tokens=self.prompt_tokens, response_tokens=self.response_tokens
        )

    def fingerprint(self) -> str:
        """Sha256 over all problems in their order: equal exactly when the data are equal.

        Ids are no part of it: they name a problem, and change none.
        """
        digest = hashlib.sha256()
        for split, problems in (("train", self.train), ("test", self.test)):
            for problem in problems:
                row = [split, problem.prompt, problem.answer, problem.source]
                row += problem.image_digests()
                digest.update(json.dumps(row, sort_keys=True, default=repr).encode() + b"\n")
        return digest.hexdigest()


def require_distinct(**pools: Sequence[Problem]) -> None:
    """Demand that no two problems of a pool have the same id.

    Args:
        **pools: by name.

    Raises:
        ValueError: two have; the message names the id and both places.
    """
    for name, problems in pools.items():
        places: dict[str, int] = {}
        for place, problem in enumerate(problems):
            first = places.setdefault(problem.id, place)
            if first != place:
                raise ValueError(
                    f"{name} holds the id {problem.id!r} twice, at {first} and at {place}: what "
                    "is believed of a prompt needs a name of its own; give each problem another "
                    "id, or leave out the copy"
                )


@dataclass(frozen=True)
class TaskSettings:
    """The settings of a task: a frozen dataclass below this one, whose fields are its options.

    Field types are what a command line and JSON can say: bool, int, float, str, Path, Literal,
    tuples of them, and None. The text below a field is its help.
    """

    def build(self) -> Task:
        """The task.

        Raises:
            ValueError: a setting is out of range, or does not fit the data.
            OSError: data cannot be read.
        """
        raise NotImplementedError(f"{type(self).__name__} must define build() -> Task")

    def base(self) -> Path:
        """The weights that ``--init base`` means.

        Raises:
            ValueError: there are none.
        """
        raise ValueError(
            "init='base': no weights come with this task; give --model DIR, a folder of a Qwen or "
            "Llama checkpoint, or --init random for a small policy that reads bytes"
        )
