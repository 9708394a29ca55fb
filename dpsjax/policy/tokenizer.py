"""Tokenizers and chat templates of checkpoint folders (extra ``hf``: tokenizers and jinja2)."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dpsjax import checks

__all__ = ["ChatTokenizer", "load_tokenizer"]


def _need(module: str) -> ImportError:
    return ImportError(f"{module} is not installed; install it with: pip install 'dpsjax[hf]'")


@dataclasses.dataclass(frozen=True)
class ChatTokenizer:
    """A checkpoint's tokenizer.

    Attributes:
        backend: the ``tokenizers.Tokenizer``.
        vocab_size: size of the tokenizer; a model's embedding may be larger.
        pad_id: fills rows; the first stop token where the checkpoint names none.
        stop_ids: tokens that end a response, from ``generation_config.json``.
        special: text of the special tokens by role (``bos_token`` ...), for the template.
        template: jinja2 source of the chat template, or "".
    """

    backend: Any
    vocab_size: int
    pad_id: int
    stop_ids: tuple[int, ...]
    special: Mapping[str, str]
    template: str = ""

    @property
    def eos_id(self) -> int:
        """The token that ends a response."""
        return self.stop_ids[0]

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens added around it."""
        return self.backend.encode(text, add_special_tokens=False).ids

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of token ids, special tokens left out."""
        return self.backend.decode(list(map(int, tokens)), skip_special_tokens=True)

    def chat(
        self, messages: Sequence[Mapping[str, Any]], *, answer: bool = True, **settings: Any
    ) -> str:
        """Render a conversation with the checkpoint's own template, in jinja2's sandbox.

        Args:
            messages: mappings with ``role`` and ``content``.
            answer: open the assistant's turn at the end.
            **settings: further names of the template, such as ``enable_thinking``.

        Raises:
            ValueError: the checkpoint has no template, or the template rejects the conversation.
        """
        if not self.template:
            raise ValueError("this checkpoint has no chat template; encode plain text instead")
        return _render(
            self.template,
            {**self.special, "messages": list(messages), "add_generation_prompt": answer}
            | settings,
        )


def _render(template: str, names: Mapping[str, Any]) -> str:
    try:
        import jinja2
        from jinja2.ext import loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError as error:
        raise _need("jinja2") from error

    def reject(message: str) -> None:
        raise ValueError(f"chat template: {message}")

    def to_json(value: Any, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)  # jinja2's own escapes HTML

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = reject
    try:
        return environment.from_string(template).render(**names)
    except (jinja2.TemplateError, ArithmeticError, LookupError, MemoryError, TypeError) as error:
        raise ValueError(f"chat template: {error}") from error


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.is_file() else {}


def _template(folder: Path, settings: Mapping[str, Any]) -> str:
    """Chat template from its own file or from ``tokenizer_config.json``."""
    own = folder / "chat_template.jinja"
    if own.is_file():
        return own.read_text()
    found = _json(folder / "chat_template.json").get("chat_template")
    found = found or settings.get("chat_template") or ""
    if isinstance(found, list):  # several named ones
        found = {entry["name"]: entry["template"] for entry in found}.get("default", "")
    return found


def load_tokenizer(folder: str | Path) -> ChatTokenizer:
    """Read the tokenizer, stop tokens and chat template of a checkpoint folder.

    Args:
        folder: with ``tokenizer.json``; ``tokenizer_config.json``, ``generation_config.json`` and a
            chat template are read where they exist.

    Raises:
        TypeError: ``folder`` is no path.
        FileNotFoundError: there is no ``tokenizer.json``.
        ValueError: no file names an end-of-sequence token, or the tokenizer does not know it.
        ImportError: ``tokenizers`` is not installed.
    """
    checks.require_type((str, Path), "a folder", folder=folder)
    try:
        import tokenizers
    except ImportError as error:
        raise _need("tokenizers") from error
    folder = Path(folder)
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    backend = tokenizers.Tokenizer.from_file(str(path))
    settings = _json(folder / "tokenizer_config.json")
    special = {}
    for role in ("bos_token", "eos_token", "pad_token", "unk_token"):
        token = settings.get(role)
        token = token.get("content") if isinstance(token, dict) else token
        if token:
            special[role] = token

    def number(role: str) -> int | None:
        if role not in special:
            return None
        found = backend.token_to_id(special[role])
        if found is None:
            raise ValueError(f"{folder}: {role} {special[role]!r} is not in tokenizer.json")
        return found

    generation = _json(folder / "generation_config.json")
    stops = generation.get("eos_token_id", _json(folder / "config.json").get("eos_token_id"))
    stops = stops if isinstance(stops, list) else [stops]
    # the order matters: the first one is what eos_id names
    ids = [stop for stop in (*stops, number("eos_token")) if stop is not None]
    if not ids:
        raise ValueError(f"{folder}: no file names an end-of-sequence token (eos_token_id)")
    pad = number("pad_token")
    return ChatTokenizer(
        backend=backend,
        vocab_size=backend.get_vocab_size(with_added_tokens=True),
        pad_id=ids[0] if pad is None else pad,
        stop_ids=tuple(dict.fromkeys(ids)),
        special=special,
        template=_template(folder, settings),
    )
