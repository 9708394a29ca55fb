"""Tokenizers and chat templates of checkpoint folders (extra ``hf``: tokenizers and jinja2)."""

import dataclasses
import datetime
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dpsjax import checks
from dpsjax.files import read_json, read_text

__all__ = ["ChatTokenizer", "load_tokenizer"]

# The names under which transformers knows special tokens; a template may use them all.
_ROLES = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)


def _need(module: str) -> ImportError:
    return ImportError(f"{module} is not installed; install it with: pip install 'dpsjax[hf]'")


@dataclasses.dataclass(frozen=True)
class ChatTokenizer:
    """A checkpoint's tokenizer.

    Attributes:
        backend: the ``tokenizers.Tokenizer``, without the truncation and padding stored with it.
        vocab_size: one more than the largest id; a model's embedding may be larger.
        pad_id: fills rows; the first stop token where the checkpoint names none.
        stop_ids: tokens that end a response, from ``generation_config.json``.
        special: special tokens by role (``bos_token`` ...), for the template.
        template: jinja2 source of the chat template, or "".
        opening: tokens that the checkpoint puts before a plain text, such as its BOS.
    """

    backend: Any
    vocab_size: int
    pad_id: int
    stop_ids: tuple[int, ...]
    special: Mapping[str, str | list[str]]
    template: str = ""
    opening: tuple[int, ...] = ()

    @property
    def eos_id(self) -> int:
        """The token that ends a response."""
        return self.stop_ids[0]

    def encode(self, text: str, *, opening: bool | None = None) -> list[int]:
        """Token ids of a text; nothing is added after it.

        Args:
            text: plain, or of ``chat``.
            opening: put the checkpoint's opening tokens in front. None does where there is no chat
                template: a template writes them itself.
        """
        first = not self.template if opening is None else opening
        ids = self.backend.encode(text, add_special_tokens=False).ids
        return [*self.opening, *ids] if first else ids

    def decode(self, tokens: Sequence[int], *, special: bool = False) -> str:
        """Text of token ids; ids that stand for nothing are left out.

        Args:
            tokens: ids.
            special: write special tokens as they are called; else they are left out too.
        """
        return self.backend.decode(list(map(int, tokens)), skip_special_tokens=not special)

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        answer: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        today: datetime.date | None = None,
        **settings: Any,
    ) -> str:
        """Render a conversation with the checkpoint's own template, in jinja2's sandbox.

        Args:
            messages: mappings with ``role`` and ``content``.
            answer: open the assistant's turn at the end.
            tools: JSON schemas of functions that the model may call.
            documents: mappings with ``title`` and ``text``.
            today: for templates that write the date; None for today's.
            **settings: further names of the template, such as ``enable_thinking``.

        Raises:
            ValueError: the checkpoint has no template, or the template rejects the conversation.
            ImportError: ``jinja2`` is not installed.
        """
        if not self.template:
            raise ValueError("this checkpoint has no chat template; encode plain text instead")
        try:
            from dpsjax.policy.chat_template import render
        except ImportError as error:
            raise _need("jinja2") from error
        names = {
            **self.special,
            "messages": list(messages),
            "tools": tools,
            "documents": documents,
            "add_generation_prompt": answer,
        }
        return render(self.template, names | settings, today)


def _json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _template(folder: Path, settings: Mapping[str, Any]) -> str:
    """Chat template from its own file or from ``tokenizer_config.json``."""
    own = folder / "chat_template.jinja"
    if own.is_file():
        return read_text(own)
    found = _json(folder / "chat_template.json").get("chat_template")
    found = found or settings.get("chat_template") or ""
    if isinstance(found, list):  # several named ones
        try:
            named = {entry["name"]: entry["template"] for entry in found}
        except (KeyError, TypeError):
            raise _damaged(
                folder, "chat_template", found, "a list of names and templates"
            ) from None
        if "default" not in named:
            raise ValueError(
                f"{folder}: its chat templates are named {', '.join(map(str, named))}, and none is "
                "the default: write the one you want to chat_template.jinja"
            )
        found = named["default"]
    if not isinstance(found, str):
        raise _damaged(folder, "chat_template", found, "text")
    return found


def _damaged(folder: Path, name: str, value: Any, wanted: str) -> ValueError:
    return ValueError(f"{folder}: {name}={str(value)[:40]!r} must be {wanted}")


def _special(folder: Path, settings: Mapping[str, Any]) -> dict[str, str | list[str]]:
    """Special tokens by role; an older folder has them in a file of their own."""
    given = {**_json(folder / "special_tokens_map.json"), **settings}

    def text(role: str, token: Any) -> str:
        token = token.get("content") if isinstance(token, Mapping) else token
        if not isinstance(token, str):
            raise _damaged(folder, role, token, "a token's text")
        return token

    special: dict[str, str | list[str]] = {
        role: text(role, given[role]) for role in _ROLES if given.get(role)
    }
    name = "additional_special_tokens"
    if more := given.get(name):
        if not isinstance(more, list):
            raise _damaged(folder, name, more, "a list of tokens")
        special[name] = [text(name, token) for token in more]
    return special


def _stops(folder: Path) -> list[int]:
    """Ids of the tokens that end a response, of the files that state them as numbers."""
    generation = _json(folder / "generation_config.json")
    stops = generation.get("eos_token_id", _json(folder / "config.json").get("eos_token_id"))
    stops = stops if isinstance(stops, list) else [stops]
    stops = [stop for stop in stops if stop is not None]
    if not all(type(stop) is int and stop >= 0 for stop in stops):
        raise _damaged(folder, "eos_token_id", stops, "token ids")
    return stops


def _load_backend(path: Path) -> Any:
    """The tokenizer in a file, with nothing switched on that would change a text's tokens."""
    try:
        import tokenizers
    except ImportError as error:
        raise _need("tokenizers") from error
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises no narrower class
        raise ValueError(f"{path}: not a tokenizer: {error}") from error
    # kept from its training; they would cut, fill or draw the tokens of every prompt
    backend.no_truncation()
    backend.no_padding()
    if getattr(backend.model, "dropout", None):
        backend.model.dropout = None
    return backend


def _opening(backend: Any, settings: Mapping[str, Any], bos: int | None) -> tuple[int, ...]:
    """Tokens before a plain text: as ``add_bos_token`` says, else as the post-processor does."""
    wanted = settings.get("add_bos_token")
    if isinstance(wanted, bool):
        return (bos,) if wanted and bos is not None else ()
    encoded = backend.encode("a", add_special_tokens=True)
    added = itertools.takewhile(
        lambda pair: pair[1] == 1, zip(encoded.ids, encoded.special_tokens_mask, strict=True)
    )
    found = tuple(token for token, _ in added)
    return found if len(found) < len(encoded.ids) else ()


def load_tokenizer(folder: str | Path) -> ChatTokenizer:
    """Read the tokenizer, stop tokens and chat template of a checkpoint folder.

    Args:
        folder: with ``tokenizer.json``; ``tokenizer_config.json``, ``generation_config.json`` and a
            chat template are read where they exist.

    Raises:
        TypeError: ``folder`` is no path.
        FileNotFoundError: there is no ``tokenizer.json``.
        ValueError: a file is damaged; none names an end-of-sequence token, or the tokenizer does
            not know it; none of several chat templates is the default.
        ImportError: ``tokenizers`` is not installed.
    """
    checks.require_type((str, Path), "a folder", folder=folder)
    folder = Path(folder)
    backend = _load_backend(folder / "tokenizer.json")
    settings = _json(folder / "tokenizer_config.json")
    special = _special(folder, settings)

    def number(role: str) -> int | None:
        if role not in special:
            return None
        found = backend.token_to_id(special[role])
        if found is None:
            raise ValueError(f"{folder}: {role} {special[role]!r} is not in tokenizer.json")
        return found

    # the order matters: the first one is what eos_id names
    ids = [stop for stop in (*_stops(folder), number("eos_token")) if stop is not None]
    if not ids:
        raise ValueError(f"{folder}: no file names an end-of-sequence token (eos_token_id)")
    pad = number("pad_token")
    return ChatTokenizer(
        backend=backend,
        # not the number of tokens: ids may have holes
        vocab_size=max(backend.get_vocab(with_added_tokens=True).values()) + 1,
        pad_id=ids[0] if pad is None else pad,
        stop_ids=tuple(dict.fromkeys(ids)),
        special=special,
        template=_template(folder, settings),
        opening=_opening(backend, settings, number("bos_token")),
    )
