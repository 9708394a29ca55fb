"""A task for a language model from a checkpoint folder: its tokenizer, its chat template.

The small policies that ship with dpsjax read ``3 25 7=46:`` and answer with an expression. A model
that was trained on language is asked in words and answers in words; what counts is between its last
``<answer>`` tags, or the whole response where it has none.
"""

import dataclasses
import datetime
import hashlib
import itertools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import SupportsIndex

from dpsjax.policy import ChatTokenizer, load_tokenizer
from dpsjax.tasks.base import Problem, Score, Task

# For templates that write the date (Llama 3's own default): prompts must not change overnight.
_TODAY = datetime.date(2024, 7, 26)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


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
        """The text up to the first stop token; ids that the tokenizer does not know are left out.

        A model's embedding may be larger than its vocabulary, so such ids can be sampled.
        """
        tokens = (raw.__index__() for raw in ids)
        return self.chat.decode(
            list(itertools.takewhile(lambda token: token not in self.chat.stop_ids, tokens))
        )


def is_checkpoint_folder(init: str) -> bool:
    """Whether ``--model`` names a checkpoint folder, not a file or a word."""
    return init not in ("base", "random") and Path(init).is_dir()


def for_language_model(task: Task, folder: Path) -> Task:
    """The same problems for a model of a checkpoint folder.

    Args:
        task: with a chat template, its ``question`` is asked.
        folder: with ``tokenizer.json``.

    Returns:
        a task with other prompts, tokenizer and scoring.

    Raises:
        FileNotFoundError: there is no tokenizer in the folder.
        ValueError: its stop tokens or its template are not usable.
        ImportError: the extra ``hf`` is not installed.
    """
    chat = load_tokenizer(folder)
    tokenizer = ResponseTokenizer(chat)

    def ask(problem: Problem) -> Problem:
        if not chat.template:
            return problem
        content = problem.prompt if task.question is None else task.question(problem)
        prompt = chat.chat([{"role": "user", "content": content}], today=_TODAY)
        return dataclasses.replace(problem, prompt=prompt)

    train, test = (tuple(map(ask, problems)) for problems in (task.train, task.test))

    def score(problems: Sequence[Problem], responses: Sequence[str]) -> list[Score]:
        return task.score(problems, [final_answer(response) for response in responses])

    return dataclasses.replace(
        task,
        train=train,
        test=test,
        score=score,
        tokenizer=tokenizer,
        prompt_tokens=max(len(tokenizer.encode(p.prompt)) for p in (*train, *test)),
    )


def final_answer(response: str) -> str:
    """What is between the last pair of ``<answer>`` tags, or all of it.

    >>> final_answer("<think>1+2</think> <answer> 2+1 </answer>")
    '2+1'
    >>> final_answer(" 1+2")
    '1+2'
    """
    found = _ANSWER.findall(response)
    return (found[-1] if found else response).strip()


def folder_digest(folder: Path) -> str:
    """SHA-256 over the weights, settings and tokenizer of a checkpoint folder."""
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".jinja", ".safetensors"):
            with path.open("rb") as stream:
                part = hashlib.file_digest(stream, "sha256").hexdigest()
            total.update(f"{path.name} {part}\n".encode())
    return total.hexdigest()
