r"""Where the answer of a response stands: in tags, in ``\boxed{}``, or after "final answer"."""

import re

from dpsjax import checks

_OPEN, _CLOSE = "<answer>", "</answer>"
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*(?=[{\s])")
_FINAL = re.compile(r"final\s+answer(?:\s+is|\s*:)[\s:*]*", re.IGNORECASE)
# An answer is short; more is somebody's attempt to keep the grader busy.
MAX_CHARACTERS = 2000


def between_tags(text: str) -> str | None:
    """What stands between the last opening tag before the last closing one, and that closing tag.

    Args:
        text: a response.

    Returns:
        the answer, without spaces at its ends; None where there are no such tags.

    >>> between_tags("<answer>1</answer> no, <answer> <answer> 2+1 </answer> <answer>")
    '2+1'
    >>> between_tags("</answer> 3 <answer>") is None
    True
    """
    checks.require_type(str, "the text of a response", text=text)
    end = text.rfind(_CLOSE)
    start = text.rfind(_OPEN, 0, max(end, 0))
    return None if start < 0 else text[start + len(_OPEN) : end].strip()


def tagged(text: str) -> str:
    """What is between the answer tags, or all of it where there are none.

    >>> tagged("<think>1+2</think> <answer> 2+1 </answer>"), tagged(" 1+2")
    ('2+1', '1+2')
    """
    found = between_tags(text)
    return text.strip() if found is None else found


def strictly_tagged(text: str) -> str:
    """What is between the answer tags, or nothing.

    >>> strictly_tagged("<answer>2</answer>"), strictly_tagged("2")
    ('2', '')
    """
    return between_tags(text) or ""


def boxed(text: str) -> str | None:
    r"""What is in the last ``\boxed{}`` that is closed.

    Args:
        text: a response.

    Returns:
        the contents, braces balanced; None where there is none. ``\boxed 5`` holds one word.

    >>> boxed(r"so \boxed{1} or \boxed{\frac{1}{2}}."), boxed(r"\boxed{1")
    ('\\frac{1}{2}', None)
    """
    checks.require_type(str, "the text of a response", text=text)
    for found in reversed([match.end() for match in _BOXED.finditer(text)][-16:]):
        if text[found : found + 1] == "{":
            end = _closing(text, found)
            if end is not None:
                return text[found + 1 : end].strip()
        elif word := re.match(r"\s*([^\s$]+)", text[found : found + 100]):
            return word[1]
    return None


def _closing(text: str, start: int) -> int | None:
    """Where the brace that opens at ``start`` is closed; escaped ones do not count."""
    depth, place = 0, start
    while place < min(len(text), start + MAX_CHARACTERS):
        if text[place] == "\\":
            place += 2
            continue
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return place
        place += 1
    return None


def final_answer(text: str) -> str | None:
    r"""The answer of a solution in words: the last ``\boxed{}``, else what follows "final answer".

    Args:
        text: a response.

    Returns:
        the answer; None where there is none.

    >>> final_answer("The final answer is: $x=5$. I hope it is correct.")
    'x=5'
    >>> final_answer("Final answer: 1,000"), final_answer("It is 7.")
    ('1,000', None)
    """
    found = boxed(text)
    if found is not None:
        return found or None
    places = [match.end() for match in _FINAL.finditer(text)]
    if not places:
        return None
    rest = text[places[-1] : places[-1] + MAX_CHARACTERS]
    if rest.startswith("$") and (end := rest.find("$", 1)) > 0:
        return rest[1:end].strip() or None
    line = rest.split("\n", 1)[0]
    sentence = re.split(r"\.(?:\s|$)", line, maxsplit=1)[0]
    return sentence.strip().strip("$*").strip() or None
