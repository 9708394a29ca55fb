"""What is planned: a training step on a mesh, in the numbers that its cost depends on."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType

from dpsjax.grpo import batch_rows
from dpsjax.grpo.batch import round_up
from dpsjax.loop.build import Spec
from dpsjax.policy.sharding import MESH_AXES

__all__ = ["Axes", "Job", "divisors", "parse_mesh"]


class Axes(NamedTuple):
    """A mesh by its axes.

    Attributes:
        data: replicas of the parameters.
        fsdp: ways the parameters are divided by width.
        tensor: ways they are divided by heads, MLP and vocabulary.
    """

    data: int
    fsdp: int
    tensor: int

    @property
    def devices(self) -> int:
        """How many there are."""
        return math.prod(self)

    @property
    def ways(self) -> int:
        """Ways a batch is divided."""
        return self.data * self.fsdp

    def mesh(self) -> AbstractMesh:
        """The mesh, of no devices in particular."""
        return AbstractMesh(tuple(self), MESH_AXES, axis_types=(AxisType.Auto,) * len(self))


@dataclasses.dataclass(frozen=True)
class Job:
    """A training step on a mesh; making one checks that the step can be divided so.

    Attributes:
        spec: The step, as a run has it.
        axes: The mesh.
    """

    spec: Spec
    axes: Axes

    def __post_init__(self):
        batch_rows(self.spec.grpo, self.prompts, self.axes.ways)

    @property
    def prompts(self) -> int:
        """B, of a batch."""
        return self.spec.collector.batch_size

    @property
    def rows(self) -> int:
        """Of a batch, padding included."""
        return batch_rows(self.spec.grpo, self.prompts, self.axes.ways)

    @property
    def group(self) -> int:
        """G, rollouts of a prompt."""
        return self.spec.grpo.rollouts_per_prompt

    @property
    def prompt_len(self) -> int:
        """P, tokens."""
        return self.spec.prompt_tokens

    @property
    def response_len(self) -> int:
        """T, tokens."""
        return self.spec.sampling.max_tokens

    @property
    def mini_batch(self) -> int:
        """Prompts of an optimizer step, padding included."""
        return round_up(self.spec.grpo.mini_batch or self.prompts, self.axes.ways)

    @property
    def micro_batch(self) -> int:
        """Sequences of a forward and backward pass, over all devices."""
        return self.spec.grpo.micro_batch or self.mini_batch * self.group

    @property
    def pool_rows(self) -> int:
        """Of the selector's state."""
        return round_up(self.spec.pool, self.axes.devices)

    @property
    def word(self) -> int:
        """Bytes of a number in matrix products."""
        return jnp.dtype(self.spec.compute.dtype).itemsize

    def with_turns(self, micro_batch: int, waves: int) -> "Job":
        """The same with another micro-batch and other waves.

        Args:
            micro_batch: sequences.
            waves: turns in which a prompt's rollouts are generated.
        """
        grpo = dataclasses.replace(self.spec.grpo, micro_batch=micro_batch)
        compute = dataclasses.replace(self.spec.compute, waves=waves)
        return Job(dataclasses.replace(self.spec, grpo=grpo, compute=compute), self.axes)

    def layout(self) -> dict[str, Any]:
        """How the step lies on the devices, for people and files."""
        compute = self.spec.compute
        return {
            **self.axes._asdict(),
            "micro_batch": self.micro_batch,
            "waves": compute.waves,
            "remat": compute.remat,
            "query_chunk": compute.query_chunk,
            "decode_weights": compute.decode_weights,
        }

    def sizes(self) -> dict[str, Any]:
        """What is trained, for people and files."""
        return {
            "policy": self.spec.policy.to_dict(),
            "prompts": self.prompts,
            "group": self.group,
            "prompt_len": self.prompt_len,
            "response_len": self.response_len,
            "mini_batch": self.spec.grpo.mini_batch or self.prompts,
            "pool": self.spec.pool,
        }


def divisors(number: int) -> list[int]:
    """All of them, rising.

    >>> divisors(12)
    [1, 2, 3, 4, 6, 12]
    """
    return [n for n in range(1, number + 1) if number % n == 0]


def parse_mesh(text: str, devices: int) -> Axes:
    """Read ``data=1,fsdp=64,tensor=4``; axes left out are 1, but ``fsdp`` takes what is left.

    Raises:
        ValueError: an unknown axis, no number, or another number of devices.

    >>> parse_mesh("tensor=4", 256)
    Axes(data=1, fsdp=64, tensor=4)
    """
    sizes: dict[str, int] = {}
    for part in filter(None, text.split(",")):
        axis, _, size = part.strip().partition("=")
        if axis not in MESH_AXES or not size.isdigit() or int(size) < 1:
            raise ValueError(f"mesh={text!r}: write axes as data=1,fsdp=64,tensor=4")
        sizes[axis] = int(size)
    given = math.prod(sizes.values())
    if "fsdp" not in sizes and devices % given == 0:
        sizes["fsdp"] = devices // given
    axes = Axes(*(sizes.get(axis, 1) for axis in MESH_AXES))
    if axes.devices != devices:
        raise ValueError(f"mesh={text!r} is {axes.devices} devices, and the slice has {devices}")
    return axes
