"""Tasks whose prompts are texts of any kind."""

from typing import Any

from dpsjax.tasks.base import Problem, Scorer, Task
from dpsjax.tasks.tokenizer import ByteTokenizer


def text_task(
    name: str,
    pools: tuple[tuple[Problem, ...], tuple[Problem, ...]],
    score: Scorer,
    response_tokens: int,
    **others: Any,
) -> Task:
    """A task in bytes of UTF-8; a checkpoint folder brings its own tokenizer.

    Args:
        name: of the task.
        pools: ``(train, test)``.
        score: the verifier.
        response_tokens: longest response.
        **others: further attributes of the task.

    Returns:
        the task; ``prompt_tokens`` is the length of the longest prompt.

    >>> problem = Problem("1+1?", "2", "sums")
    >>> text_task("sums", ((problem,), ()), lambda problems, responses: [], 8).prompt_tokens
    4
    """
    train, test = pools
    tokenizer = ByteTokenizer()
    return Task(
        name=name,
        train=train,
        test=test,
        score=score,
        tokenizer=tokenizer,
        prompt_tokens=max(len(tokenizer.encode(p.text())) for p in (*train, *test)),
        response_tokens=response_tokens,
        **others,
    )
