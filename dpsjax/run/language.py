"""A task for a language model from a checkpoint folder: its tokenizer, its chat template.

The small policies that ship with dpsjax read ``3 25 7=46:`` and answer with an expression. A model
that was trained on language is asked in words and answers in words: a task says how
(:class:`dpsjax.tasks.base.Words`).
"""

import dataclasses
import datetime
import hashlib
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, SupportsIndex

from dpsjax.policy import ChatTokenizer, load_tokenizer
from dpsjax.tasks.base import IMAGE, Problem, Score, Task, Tokenizer

# For templates that write the date (Llama 3's own default): prompts must not change overnight.
_TODAY = datetime.date(2024, 7, 26)
UNKNOWN = "\N{REPLACEMENT CHARACTER}"
# What Qwen2.5-VL's own template writes for a picture.
_PAD = "<|image_pad|>"
_PICTURE = f"<|vision_start|>{_PAD}<|vision_end|>"


@dataclasses.dataclass(frozen=True)
class ResponseTokenizer:
    """A checkpoint's tokenizer as a task uses it: responses end at the first stop token.

    Attributes:
        chat: of :func:`dpsjax.policy.tokenizer.load_tokenizer`.
    """

    chat: ChatTokenizer

    @property
    def pad_id(self) -> int:
        """Id that fills unused positions."""
        return self.chat.pad_id

    @property
    def eos_id(self) -> int:
        """The first of the stop tokens."""
        return self.chat.eos_id

    @property
    def image_id(self) -> int | None:
        """Id in whose places pictures stand, of a Qwen2.5-VL's tokenizer."""
        return self.chat.backend.token_to_id(_PAD)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Every token that ends a response."""
        return self.chat.stop_ids

    @property
    def vocab_size(self) -> int:
        """Number of ids; the embedding of the model may be larger."""
        return self.chat.vocab_size

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt; without a chat template, after the checkpoint's own BOS."""
        return self.chat.encode(text)

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        """The text up to the first stop token, as a verifier must see it: nothing is left out.

        Special tokens are written as they are called, or ``1<|im_start|>2`` would be 12. Ids that
        the tokenizer does not know become U+FFFD: a model's embedding may be larger than its
        vocabulary, so they can be sampled.
        """
        tokens = (raw.__index__() for raw in ids)
        response = itertools.takewhile(lambda token: token not in self.chat.stop_ids, tokens)
        known = self.chat.backend.id_to_token
        text = ""
        for sound, run in itertools.groupby(response, lambda token: known(token) is not None):
            found = list(run)
            text += self.chat.decode(found, special=True) if sound else UNKNOWN * len(found)
        return text


def is_checkpoint_folder(init: str) -> bool:
    """Whether ``--model`` names a checkpoint folder, not a file or a word."""
    return init not in ("base", "random") and Path(init).is_dir()


def as_text(task: Task) -> Task:
    """The same problems with prompts that are texts; of messages, their contents."""
    if all(isinstance(problem.prompt, str) for problem in (*task.train, *task.test)):
        return task
    return _asked(task, Problem.text, task.tokenizer)


def for_language_model(task: Task, folder: Path, settings: Mapping[str, Any] | None = None) -> Task:
    """The same problems for a model of a checkpoint folder.

    Args:
        task: it is asked in its words, within its frame where there is no chat template.
        folder: with ``tokenizer.json``.
        settings: further names of the template, such as ``enable_thinking``.

    Returns:
        a task with other prompts, tokenizer and scoring.

    Raises:
        FileNotFoundError: there is no tokenizer in the folder.
        ValueError: its stop tokens or its template are not usable.
        ImportError: the extra ``hf`` is not installed.
    """
    chat = load_tokenizer(folder)
    tokenizer = ResponseTokenizer(chat)

    def ask(problem: Problem) -> str:
        asked = problem.prompt if task.words is None else task.words.question(problem)
        asked = _with_pictures(asked, len(problem.images))
        if not chat.template:
            frame = "{question}" if task.words is None else task.words.frame
            return frame.replace("{question}", dataclasses.replace(problem, prompt=asked).text())
        messages = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
        return chat.chat(messages, today=_TODAY, **(settings or {}))

    answer = None if task.words is None else task.words.answer
    if answer is None:
        return _asked(task, ask, tokenizer)

    def score(problems: Sequence[Problem], responses: Sequence[str]) -> list[Score]:
        return task.score(problems, [answer(response) for response in responses])

    return dataclasses.replace(_asked(task, ask, tokenizer), score=score)


def _with_pictures(
    asked: str | Sequence[Mapping[str, Any]], count: int
) -> str | Sequence[Mapping[str, Any]]:
    """A question with the tokens of its pictures where it says ``<image>``, or in front."""
    if not count:
        return asked
    if isinstance(asked, str):
        marked = asked if IMAGE in asked else IMAGE * count + asked
        return marked.replace(IMAGE, _PICTURE)
    marked = any(IMAGE in str(message["content"]) for message in asked)
    first = next((i for i, message in enumerate(asked) if message["role"] == "user"), 0)
    return [
        {
            **message,
            "content": ("" if marked or i != first else _PICTURE * count)
            + str(message["content"]).replace(IMAGE, _PICTURE),
        }
        for i, message in enumerate(asked)
    ]


def _asked(task: Task, ask: Callable[[Problem], str], tokenizer: Tokenizer) -> Task:
    """A task with its prompts as texts of a tokenizer."""
    train, test = (
        tuple(dataclasses.replace(problem, prompt=ask(problem)) for problem in problems)
        for problems in (task.train, task.test)
    )
    longest = max(len(tokenizer.encode(p.text())) for p in (*train, *test))
    return dataclasses.replace(
        task, train=train, test=test, tokenizer=tokenizer, prompt_tokens=longest
    )


def folder_digest(folder: Path) -> str:
    """SHA-256 over the weights, settings and tokenizer of a checkpoint folder."""
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".jinja", ".safetensors"):
            with path.open("rb") as stream:
                part = hashlib.file_digest(stream, "sha256").hexdigest()
            total.update(f"{path.name} {part}\n".encode())
    return total.hexdigest()
