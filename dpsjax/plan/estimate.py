"""Memory and traffic of the programs from shapes alone, for where the TPU compiler is missing.

Parameters, optimizer and cache are exact. The rest are sums of the largest arrays, with factors
fitted to compiled programs (Qwen2.5 1.5B on v5e-64 and 7B on v5e-256); see docs/plan.md for how far
they are off elsewhere.
"""

import math
from typing import NamedTuple

from dpsjax.plan.hlo import Traffic
from dpsjax.plan.setting import Job, Layout
from dpsjax.policy.log_probs import logits_chunk

# Up to so many ways the compiler multiplies while it gathers a weight, part by part, and reads and
# writes the product at every part.
_RING = 32

__all__ = ["Estimate", "cache_bytes", "estimate", "weight_copy_bytes"]


class Estimate(NamedTuple):
    """Per device.

    Attributes:
        temporary: bytes that exist while a program runs, beside its arguments.
        traffic: what it moves.
    """

    temporary: float
    traffic: Traffic


def _share(count: int, ways: int) -> float:
    """Part of an axis on a device; one that does not divide is whole (sharding.partition_spec)."""
    return count / ways if count % ways == 0 else count


def cache_bytes(job: Job, layout: Layout) -> int:
    """Keys and values on a device while it generates: of responses in one wave, and of prompts."""
    policy = job.policy
    heads = _share(policy.kv_heads, layout.tensor)
    token = 2 * policy.layers * heads * policy.head_dim * 2
    rows = job.prompts / layout.ways
    return int(token * rows * (job.group / layout.waves * job.response_len + job.prompt_len))


def weight_copy_bytes(job: Job, layout: Layout) -> int:
    """The bfloat16 weights that generation holds."""
    fsdp = layout.fsdp if layout.decode_weights == "sharded" else 1
    return int(2 * job.policy.num_params() / (layout.tensor * fsdp))


def estimate(job: Job, layout: Layout) -> dict[str, Estimate]:
    """Estimate every program.

    Args:
        job: the job.
        layout: how it lies on the devices.

    Returns:
        By program.
    """
    return {
        "selection": _selection(job, layout),
        "generation": _generation(job, layout),
        "update": _update(job, layout),
    }


def _selection(job: Job, layout: Layout) -> Estimate:
    # 13 words of belief read for the selection, 16 moved by the update (benchmarks/tpu_filter.py)
    rows = job.pool / layout.devices
    return Estimate(rows * 64, Traffic(rows * 29 * 4, {"all-gather": job.prompts * 8.0}))


def _generation(job: Job, layout: Layout) -> Estimate:
    policy, tensor = job.policy, layout.tensor
    cache, weights = cache_bytes(job, layout), weight_copy_bytes(job, layout)
    # a third of the weights exists twice while it is gathered and laid out for decoding
    temporary = cache + weights * 4 / 3
    steps = job.response_len * layout.waves
    rows = job.prompts / layout.ways * job.group / layout.waves
    logits = rows * policy.vocab_size / tensor * 4
    memory = steps * (weights + cache + 4 * logits)
    gather = 2 * policy.num_params() / tensor * (1 - 1 / layout.fsdp)
    gathers = gather * (1 if layout.decode_weights == "gathered" else steps)
    traffic = {"all-gather": gathers}
    if tensor > 1:
        ring = (tensor - 1) / tensor
        traffic["all-reduce"] = steps * rows * policy.layers * 2 * policy.width * 2 * 2 * ring
        traffic["all-gather"] += steps * rows * policy.vocab_size * 4 * ring
    return Estimate(temporary, Traffic(memory, traffic))


def _update(job: Job, layout: Layout) -> Estimate:
    policy, tensor = job.policy, layout.tensor
    rows = layout.micro_batch / layout.ways
    seen = job.prompt_len + job.response_len
    tokens, heads = rows * seen, _share(policy.heads, tensor)
    mlp, vocab = policy.mlp_width / tensor, _share(policy.vocab_size, tensor)
    stored = policy.num_params() / (layout.fsdp * tensor) * 4
    residual = {"full": 2, "dots": 10, "none": 30}[layout.remat] * policy.width * tokens
    scores = rows * heads * min(layout.query_chunk or seen, job.response_len) * seen * 4
    chunk = logits_chunk(int(rows * job.response_len), int(vocab))
    logits = chunk * vocab * 4
    ends = policy.vocab_size * policy.width / tensor * (1 if policy.tied_embeddings else 2) * 5
    inside = max(2 * scores, 6 * mlp * tokens) + 3 * logits + ends
    temporary = 2 * stored + residual * policy.layers + inside

    micro = job.prompts * job.group / layout.micro_batch
    passes = 3 if layout.remat == "full" else 2
    weights = 2 * policy.num_params() / tensor
    every_score = rows * heads * job.response_len * seen * 4
    layer = 4.6 * passes * every_score + 2 * tokens * (20 * mlp + 60 * policy.width)
    memory = micro * (
        policy.layers * layer
        + 13.4 * rows * job.response_len * vocab * 4
        + (passes + 1) * weights
        + 3 * stored
    )
    memory += job.prompts / job.mini_batch * 8 * stored
    if 1 < layout.fsdp <= _RING:
        memory *= 1.65  # fitted: 1.74 (1.5B) and 1.60 (7B), both on v5e-64
    chunks = math.ceil(rows * job.response_len / chunk)
    head = 2 * policy.vocab_size * policy.width / tensor
    divided = 1 - 1 / (layout.ways)
    traffic = {
        "all-gather": micro * divided * (passes * weights + 2 * chunks * head),
        "all-reduce": micro * 2 * divided * (weights + 2 * chunks * head),
    }
    if tensor > 1:
        ring = 2 * (tensor - 1) / tensor
        width = tokens * policy.width * 2 * ring
        traffic["all-reduce"] += micro * policy.layers * 2 * passes * width
    return Estimate(temporary, Traffic(memory, traffic))
