"""Picture files as a policy takes them: decoded, resized as Qwen2.5-VL does it, cut into patches.

All of it happens once, on the host, in bytes; the policy scales the bytes itself. Pillow (extra
``vision``) reads and resizes; Netpbm's plain bitmaps of the right size, which dpsjax draws, do
without it.
"""

import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from dpsjax import checks
from dpsjax.policy.vision import Images
from dpsjax.policy.vision_config import VisionConfig
from dpsjax.types import Int, UInt

__all__ = ["image_tokens", "patch_budget", "picture_batch", "picture_size"]

_RATIO = 200  # of the longer side to the shorter, at most
_NETPBM = re.compile(rb"(P[56])\s(\d+)\s(\d+)\s255\s")


def picture_size(data: bytes) -> tuple[int, int]:
    """Height and width of a picture file, of its header.

    Raises:
        ValueError: it is no picture, or damaged.
        ImportError: the extra ``vision`` is needed and not installed.
    """
    if found := _NETPBM.match(data):
        return int(found[3]), int(found[2])
    image = _opened(data)
    return image.height, image.width


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            "Pillow is not installed; install it with: pip install 'dpsjax[vision]'"
        ) from error
    return Image


def _opened(data: bytes) -> Any:
    Image = _pillow()
    try:
        return Image.open(io.BytesIO(data))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"no picture that Pillow can read: {error}") from error


def target_size(height: int, width: int, vision: VisionConfig) -> tuple[int, int]:
    """The size to which a picture is resized: whole tokens, within the limits of pixels.

    Transcribed from ``smart_resize`` of transformers (Apache-2.0).

    Raises:
        ValueError: one side is more than 200 times the other.

    >>> from dpsjax.policy.vision_config import tiny_vision
    >>> target_size(50, 90, tiny_vision(3))
    (56, 84)
    """
    if min(height, width) < 1 or max(height, width) > _RATIO * min(height, width):
        raise ValueError(f"a picture of {width} x {height} pixels: one side is 200 times the other")
    unit = vision.unit
    tall, wide = (round(side / unit) * unit for side in (height, width))
    if tall * wide > vision.max_pixels:
        shrink = math.sqrt(height * width / vision.max_pixels)
        tall, wide = (
            max(unit, math.floor(side / shrink / unit) * unit) for side in (height, width)
        )
    elif tall * wide < vision.min_pixels:
        grow = math.sqrt(vision.min_pixels / (height * width))
        tall, wide = (math.ceil(side * grow / unit) * unit for side in (height, width))
    return tall, wide


def image_tokens(data: bytes, vision: VisionConfig) -> int:
    """Tokens that a picture is to the text.

    Raises:
        ValueError: it is no picture, or far too narrow.
        ImportError: the extra ``vision`` is needed and not installed.
    """
    tall, wide = target_size(*picture_size(data), vision)
    return tall * wide // vision.unit**2


def _pixels(data: bytes, vision: VisionConfig) -> UInt[np.ndarray, "H W C"]:
    """A picture in its final size, as bytes."""
    found = _NETPBM.match(data)
    size = picture_size(data)
    tall, wide = target_size(*size, vision)
    channels = 3 if found and found[1] == b"P6" else 1
    if found and (tall, wide) == size and channels == vision.channels:
        raw = np.frombuffer(data, np.uint8, offset=found.end())
        if raw.size < tall * wide * channels:
            raise ValueError(f"a picture of {wide} x {tall} pixels is cut off")
        return raw[: tall * wide * channels].reshape(tall, wide, channels)
    image = _opened(data)
    try:
        image = image.convert("RGB" if vision.channels == 3 else "L")
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f"a damaged picture: {error}") from error
    if (tall, wide) != size:
        image = image.resize((wide, tall), resample=_pillow().Resampling.BICUBIC)
    return np.asarray(image).reshape(tall, wide, -1)


def _cut(pixels: UInt[np.ndarray, "H W C"], vision: VisionConfig) -> UInt[np.ndarray, "S F"]:
    """Patches; those that become one token are neighbours."""
    (tall, wide, channels), p, m = pixels.shape, vision.patch, vision.merge
    cells = pixels.reshape(tall // vision.unit, m, p, wide // vision.unit, m, p, channels)
    return cells.transpose(0, 3, 1, 4, 6, 2, 5).reshape(-1, vision.pixels)


def _grid(tall: int, wide: int, merge: int) -> Int[np.ndarray, "S 2"]:
    """Row and column of every patch, in the order of ``_cut``."""
    places = np.indices((tall, wide), dtype=np.int32)
    cells = places.reshape(2, tall // merge, merge, wide // merge, merge)
    return cells.transpose(1, 3, 2, 4, 0).reshape(-1, 2)


def patch_budget(prompts: Sequence[Sequence[bytes]], vision: VisionConfig) -> int:
    """The most patches that one of the prompts has; in whole tokens, at least one.

    Raises:
        ValueError: what is no picture; the message names the prompt.
        ImportError: the extra ``vision`` is needed and not installed.
    """
    counts = [1]
    for number, pictures in enumerate(prompts):
        with _naming(number):
            counts.append(sum(image_tokens(data, vision) for data in pictures))
    return max(counts) * vision.merge**2


@contextmanager
def _naming(number: int) -> Iterator[None]:
    """Errors inside name the prompt."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"prompts[{number}]: {error}") from error


def picture_batch(
    prompts: Sequence[Sequence[bytes]], vision: VisionConfig, patches: int | None = None
) -> Images:
    """The pictures of prompts for ``generate`` and ``token_log_probs``, in host memory.

    Args:
        prompts: of each the contents of its picture files, in order; none for texts alone.
        vision: how they are cut.
        patches: ``S``; no prompt may have more. None for the most there are.

    Returns:
        ``Images`` of NumPy arrays, leading axis B.

    Raises:
        TypeError: an argument is something else.
        ValueError: what is no picture, or more patches than there is room for; names the prompt.
        ImportError: the extra ``vision`` is needed and not installed.
    """
    checks.require_type(VisionConfig, "a VisionConfig", vision=vision)
    checks.require_items((list, tuple), "a list of picture files", prompts=prompts)
    for pictures in prompts:
        checks.require_items(bytes, "the content of a picture file", prompts=pictures)
    checks.require_counts(**checks.given(patches=patches))
    size = patch_budget(prompts, vision) if patches is None else patches
    pixels = np.zeros((len(prompts), size, vision.pixels), np.uint8)
    fields = np.zeros((4, len(prompts), size), np.int32)
    fields[0] = -1
    for number, pictures in enumerate(prompts):
        with _naming(number):
            at = 0
            for which, (cut, grid, span) in enumerate(_parts(pictures, vision)):
                end = at + len(cut)
                if end > size:
                    raise ValueError(f"its pictures have more than patches={size}")
                pixels[number, at:end] = cut
                fields[0, number, at:end], fields[3, number, at:end] = which, span
                fields[1:3, number, at:end] = grid.T
                at = end
    host: Any = (pixels, *fields)  # NumPy, where devices' arrays will be
    return Images(*host)


def _parts(pictures: Sequence[bytes], vision: VisionConfig) -> Iterator[tuple[Any, Any, int]]:
    for data in pictures:
        pixels = _pixels(data, vision)
        tall, wide = pixels.shape[0] // vision.patch, pixels.shape[1] // vision.patch
        yield (
            _cut(pixels, vision),
            _grid(tall, wide, vision.merge),
            max(tall, wide) // vision.merge,
        )
