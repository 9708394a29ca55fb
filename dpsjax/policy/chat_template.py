"""Chat templates as transformers renders them: the same names, tags and filters (needs jinja2)."""

import datetime
import functools
import json
from collections.abc import Mapping
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

__all__ = ["render"]


class _Generation(Extension):
    """``{% generation %}`` marks what the assistant wrote; its text is rendered as it stands."""

    tags = {"generation"}  # noqa: RUF012 (jinja2 declares it so)

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_inside"), [], [], body).set_lineno(line)

    def _inside(self, caller: Any) -> str:
        return caller()


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # jinja2's own filter escapes HTML
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _reject(message: str) -> None:
    raise jinja2.TemplateError(message)


@functools.lru_cache(maxsize=16)
def _compiled(template: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _reject
    return environment.from_string(template)


def render(template: str, names: Mapping[str, Any], today: datetime.date | None = None) -> str:
    """The text that a template makes of a conversation, in jinja2's sandbox.

    Args:
        template: jinja2 source.
        names: what it refers to: ``messages``, ``tools``, ``bos_token`` and so on.
        today: the date that ``strftime_now`` writes; None for the real one, with the time.

    Raises:
        ValueError: the template is damaged, forbidden, or rejects the conversation.
    """

    def strftime_now(form: str) -> str:
        return (datetime.datetime.now() if today is None else today).strftime(form)

    try:
        return _compiled(template).render({"strftime_now": strftime_now, **names})
    except (
        jinja2.TemplateError,
        ArithmeticError,
        LookupError,
        MemoryError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise ValueError(f"chat template: {error}") from error
