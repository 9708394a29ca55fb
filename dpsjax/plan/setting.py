"""What is planned: a job, the devices, and how the job is laid out on them."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal

import jax
from jax.sharding import AbstractMesh, AxisType

from dpsjax.policy.config import Compute, PolicyConfig
from dpsjax.policy.sharding import MESH_AXES

__all__ = ["Job", "Layout", "parse_mesh"]


def _positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name}={value} must be at least 1")


@dataclasses.dataclass(frozen=True)
class Job:
    """One training step. Defaults: the paper's on mathematics (arXiv 2603.10887, its scripts).

    Attributes:
        policy: architecture.
        prompts: of a batch.
        group: rollouts per prompt.
        prompt_len: longest prompt, tokens.
        response_len: longest response, tokens.
        mini_batch: prompts of one optimizer step.
        pool: prompts that the selector chooses from.
    """

    policy: PolicyConfig
    prompts: int = 256
    group: int = 8
    prompt_len: int = 1024
    response_len: int = 8192
    mini_batch: int = 128
    pool: int = 7500

    def __post_init__(self):
        _positive(
            prompts=self.prompts,
            prompt_len=self.prompt_len,
            response_len=self.response_len,
            mini_batch=self.mini_batch,
            pool=self.pool,
        )
        if self.group < 2:
            raise ValueError(f"group={self.group} must be at least 2: advantages compare rollouts")
        if self.prompts % self.mini_batch:
            raise ValueError(
                f"mini_batch={self.mini_batch} must divide the batch of prompts={self.prompts}"
            )
        if self.pool < self.prompts:
            raise ValueError(f"pool={self.pool} must not be below prompts={self.prompts}")


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a job lies on its devices; parameters and optimizer are float32, products bfloat16.

    Attributes:
        data: replicas of the parameters.
        fsdp: ways the parameters are divided by width.
        tensor: ways they are divided by heads, MLP and vocabulary.
        micro_batch: sequences of one forward and backward pass, over all devices.
        remat: what the backward pass recomputes.
        query_chunk: query positions whose attention scores exist at a time.
        waves: turns in which a prompt's rollouts are generated.
        decode_weights: held gathered while generating, or divided.
    """

    data: int
    fsdp: int
    tensor: int
    micro_batch: int
    remat: Literal["none", "dots", "full"] = "full"
    query_chunk: int = 512
    waves: int = 1
    decode_weights: Literal["gathered", "sharded"] = "gathered"

    @property
    def devices(self) -> int:
        """How many there are."""
        return self.data * self.fsdp * self.tensor

    @property
    def ways(self) -> int:
        """Ways a batch is divided."""
        return self.data * self.fsdp

    def compute(self) -> Compute:
        """How the policy is computed."""
        return Compute(
            dtype="bfloat16",
            scan_layers=True,
            remat=self.remat,
            query_chunk=self.query_chunk,
            decode_weights=self.decode_weights,
            waves=self.waves,
        )

    def abstract_mesh(self) -> AbstractMesh:
        """The mesh without devices."""
        sizes = (self.data, self.fsdp, self.tensor)
        return AbstractMesh(sizes, MESH_AXES, axis_types=(AxisType.Auto,) * len(sizes))

    def check(self, job: Job) -> None:
        """Refuse what cannot be divided.

        Raises:
            ValueError: the ways of the batch do not divide a mini-batch, the micro-batch is no
                share of it, or the waves do not divide the rollouts.
        """
        if job.mini_batch % self.ways:
            raise ValueError(
                f"mesh data={self.data} x fsdp={self.fsdp} divides prompts {self.ways} ways, and "
                f"mini_batch={job.mini_batch} is no multiple of that: use more tensor, or a larger "
                "mini-batch"
            )
        sequences = job.mini_batch * job.group
        if self.micro_batch % self.ways or sequences % self.micro_batch:
            fitting = [n for n in divisors(sequences) if n % self.ways == 0]
            raise ValueError(
                f"micro_batch={self.micro_batch} sequences must be a multiple of data x fsdp = "
                f"{self.ways} and divide the mini-batch's {sequences}: one of "
                f"{', '.join(map(str, fitting))}"
            )
        if job.group % self.waves:
            raise ValueError(f"waves={self.waves} must divide group={job.group}")


def divisors(number: int) -> list[int]:
    """All of them, rising.

    >>> divisors(12)
    [1, 2, 3, 4, 6, 12]
    """
    return [n for n in range(1, number + 1) if number % n == 0]


def parse_mesh(text: str, devices: int) -> Mapping[str, int]:
    """Read ``data=1,fsdp=64,tensor=4``; axes left out are 1, but ``fsdp`` takes what is left.

    Raises:
        ValueError: an unknown axis, no number, or another number of devices.

    >>> parse_mesh("tensor=4", 256)
    {'data': 1, 'fsdp': 64, 'tensor': 4}
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
    sizes = {axis: sizes.get(axis, 1) for axis in MESH_AXES}
    if math.prod(sizes.values()) != devices:
        raise ValueError(
            f"mesh={text!r} is {math.prod(sizes.values())} devices, and the slice has {devices}"
        )
    return sizes


def in_mesh(layout: Layout):
    """Context in which the policy constrains its activations to a mesh without devices."""
    return jax.sharding.use_abstract_mesh(layout.abstract_mesh())
