"""What the policy's eye is, as frozen data: Qwen2.5-VL's vision tower and its preprocessing."""

import dataclasses
import math

from dpsjax import checks

# Of CLIP (Radford et al. 2021), which Qwen2.5-VL keeps.
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)

__all__ = ["VisionConfig", "tiny_vision"]


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """Shape of a vision tower, and how a picture becomes its input.

    A picture is cut into patches; ``merge * merge`` neighbours become one token of the text.

    Attributes:
        image_token: token id in whose places the pictures' embeddings stand.
        width: of the tower's residual stream.
        mlp_width: of its gated hidden layer.
        layers: number of blocks.
        heads: attention heads; must divide ``width`` into multiples of 4.
        full_layers: blocks in which a patch sees its whole picture; in the others its window.
        window: pixels along a window's side.
        patch: pixels along a patch's side.
        merge: patches along the side of the square that becomes one token.
        frames: of a patch; a still picture is repeated so often.
        channels: of a pixel.
        norm_eps: added to the mean square in every RMSNorm.
        min_pixels: smaller pictures are enlarged.
        max_pixels: larger ones are made smaller.
        mean: of a channel between 0 and 1; subtracted.
        std: divides after that.
        start_token: before a picture in a conversation; recorded, not used.
        end_token: after it.

    >>> tiny_vision(image_token=3).unit
    28
    """

    image_token: int
    width: int
    mlp_width: int
    layers: int
    heads: int
    full_layers: tuple[int, ...]
    window: int = 112
    patch: int = 14
    merge: int = 2
    frames: int = 2
    channels: int = 3
    norm_eps: float = 1e-6
    min_pixels: int = 56 * 56
    max_pixels: int = 28 * 28 * 1280
    mean: tuple[float, ...] = _MEAN
    std: tuple[float, ...] = _STD
    start_token: int | None = None
    end_token: int | None = None

    def __post_init__(self):
        sizes = ("width", "mlp_width", "layers", "heads", "window", "patch", "merge", "frames")
        counts = {name: getattr(self, name) for name in (*sizes, "channels", "min_pixels")}
        checks.require_counts(max_pixels=self.max_pixels, **counts)
        checks.require_counts(
            least=0,
            image_token=self.image_token,
            **checks.given(start_token=self.start_token, end_token=self.end_token),
        )
        checks.require_items(int, "the number of a block", full_layers=self.full_layers)
        checks.require_real(norm_eps=self.norm_eps)
        checks.require_setting(0 < self.norm_eps < math.inf, "norm_eps", self.norm_eps, "positive")
        for name in ("mean", "std"):
            values = getattr(self, name)
            checks.require_items(float, "a number", **{name: values})
            sound = all(math.isfinite(v) and (v > 0 or name == "mean") for v in values)
            sound = sound and len(values) == self.channels
            checks.require_setting(sound, name, values, "a finite number for each channel")
        if any(not 0 <= layer < self.layers for layer in self.full_layers):
            raise ValueError(f"full_layers={self.full_layers} must be among {self.layers} layers")
        if self.width % (4 * self.heads):
            raise ValueError(
                f"vision heads={self.heads} must divide width={self.width} into multiples of 4: "
                "half of a head turns with rows, half with columns"
            )
        if self.window % self.unit:
            raise ValueError(f"window={self.window} must be a multiple of patch x merge")
        if self.min_pixels > self.max_pixels:
            raise ValueError(f"min_pixels={self.min_pixels} exceeds max_pixels={self.max_pixels}")

    @property
    def unit(self) -> int:
        """Pixels along the side of what becomes one token."""
        return self.patch * self.merge

    @property
    def pixels(self) -> int:
        """Numbers in a patch of one frame."""
        return self.channels * self.patch**2

    @property
    def head_dim(self) -> int:
        """Size of a head."""
        return self.width // self.heads

    @property
    def merged_width(self) -> int:
        """Width of the patches of a token, side by side."""
        return self.width * self.merge**2

    def num_params(self, text_width: int) -> int:
        """Number of parameters, with the projection to a text of that width."""
        w, f, m = self.width, self.mlp_width, self.merged_width
        layer = 4 * w * w + 4 * w + 3 * w * f + 2 * f + w + 2 * w
        merger = w + m * m + m + m * text_width + text_width
        return self.pixels * self.frames * w + self.layers * layer + merger


def tiny_vision(image_token: int) -> VisionConfig:
    """The laptop policy's eye: 2 layers of width 64, grey pictures taken as they are.

    White is 0 for it, so that a line drawing is what is not.

    >>> tiny_vision(3).layers
    2
    """
    return VisionConfig(
        image_token=image_token,
        width=64,
        mlp_width=160,
        layers=2,
        heads=4,
        full_layers=(1,),
        frames=1,
        channels=1,
        min_pixels=28 * 28,
        mean=(1.0,),
        std=(0.25,),
    )
