"""A character tokenizer for tasks with a small alphabet."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import SupportsIndex

from dpsjax import checks

IMAGE = "<image>"  # where a picture stands in a text
UNKNOWN = "\N{REPLACEMENT CHARACTER}"
_NUM_SPECIAL = 3


@dataclass(frozen=True)
class CharTokenizer:
    """One token per character of ``alphabet``, after three special ids.

    Ids are fixed by the alphabet alone: padding 0, end of sequence 1, beginning of sequence 2,
    then the characters in order.

    >>> tokenizer = CharTokenizer("0123456789+")
    >>> tokenizer.encode("1+2")
    [4, 13, 5]
    >>> tokenizer.decode([4, 13, 5, tokenizer.eos_id, 4])
    '1+2'
    """

    alphabet: str

    pad_id: int = field(default=0, init=False)
    eos_id: int = field(default=1, init=False)
    bos_id: int = field(default=2, init=False)

    def __post_init__(self):
        checks.require_type(str, "a string", alphabet=self.alphabet)
        if len(set(self.alphabet)) != len(self.alphabet) or not self.alphabet:
            raise ValueError(
                f"alphabet must hold at least one character and none twice, got {self.alphabet!r}"
            )

    @property
    def vocab_size(self) -> int:
        """Number of ids, the special ones included."""
        return _NUM_SPECIAL + len(self.alphabet)

    def encode(self, text: str) -> list[int]:
        """Ids of the characters of ``text``; no special id is added.

        Raises:
            TypeError: ``text`` is no string.
            ValueError: a character is not in the alphabet.
        """
        checks.require_type(str, "a string", text=text)
        ids = [self.alphabet.find(character) for character in text]
        if -1 in ids:
            position = ids.index(-1)
            raise ValueError(
                f"text has {text[position]!r} at position {position}, which is not in the "
                f"tokenizer's alphabet {self.alphabet!r}; remove it or use a larger alphabet"
            )
        return [index + _NUM_SPECIAL for index in ids]

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        """Text of ``ids`` up to the first end of sequence; never raises on their values.

        Padding and beginning-of-sequence ids are dropped in front (prompts are left padded).
        Anywhere else they become U+FFFD, as do ids outside the vocabulary, so that a verifier
        sees that something else than text was sampled.

        Raises:
            TypeError: ``ids`` is no sequence of integers.
        """
        checks.require_type(Iterable, "a sequence of integers", ids=ids)
        characters: list[str] = []
        for raw in ids:
            checks.require_type(SupportsIndex, "a sequence of integers", ids=raw)
            index = raw.__index__()
            if index == self.eos_id:
                break
            if _NUM_SPECIAL <= index < self.vocab_size:
                characters.append(self.alphabet[index - _NUM_SPECIAL])
            elif characters or index not in (self.pad_id, self.bos_id):
                characters.append(UNKNOWN)
        return "".join(characters)


@dataclass(frozen=True)
class PictureTokenizer(CharTokenizer):
    """Characters, and one more id that stands for pictures: ``<image>`` in a text.

    >>> tokenizer = PictureTokenizer("x=")
    >>> tokenizer.encode("<image>x="), tokenizer.image_id
    ([5, 3, 4], 5)
    """

    @property
    def image_id(self) -> int:
        """Id in whose places pictures stand."""
        return _NUM_SPECIAL + len(self.alphabet)

    @property
    def vocab_size(self) -> int:
        """Number of ids, the special ones and the pictures' included."""
        return super().vocab_size + 1

    def encode(self, text: str) -> list[int]:
        """Ids of the characters and the marks of pictures.

        Raises:
            TypeError: ``text`` is no string.
            ValueError: a character is not in the alphabet.
        """
        checks.require_type(str, "a string", text=text)
        ids: list[int] = []
        for number, part in enumerate(text.split(IMAGE)):
            ids += [self.image_id] * (number > 0) + super().encode(part)
        return ids

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        """Text of ``ids``; the id of pictures becomes U+FFFD."""
        plain = CharTokenizer(self.alphabet)
        return plain.decode(ids)


@dataclass(frozen=True)
class ByteTokenizer:
    """One token per byte of UTF-8, after padding 0 and end of sequence 1: for texts of any kind.

    >>> tokenizer = ByteTokenizer()
    >>> tokenizer.decode([*tokenizer.encode("é2"), tokenizer.eos_id, 77])
    'é2'
    """

    pad_id: int = field(default=0, init=False)
    eos_id: int = field(default=1, init=False)

    @property
    def vocab_size(self) -> int:
        """Number of ids, the special ones included."""
        return 258

    def encode(self, text: str) -> list[int]:
        """Ids of the bytes of ``text``; no special id is added.

        Raises:
            TypeError: ``text`` is no string.
        """
        checks.require_type(str, "a string", text=text)
        return [byte + 2 for byte in text.encode(errors="replace")]

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        """Text of ``ids`` up to the first end of sequence; never raises on their values.

        What is no UTF-8 becomes U+FFFD, as do padding and ids outside the vocabulary.

        Raises:
            TypeError: ``ids`` is no sequence of integers.
        """
        checks.require_type(Iterable, "a sequence of integers", ids=ids)
        found = bytearray()
        for raw in ids:
            checks.require_type(SupportsIndex, "a sequence of integers", ids=raw)
            index = raw.__index__()
            if index == self.eos_id:
                break
            found += bytes([index - 2]) if 2 <= index < 258 else UNKNOWN.encode()
        return found.decode(errors="replace")
