"""Memory and traffic of the programs from shapes alone, for where the TPU compiler is missing.

Parameters, optimizer and cache are exact. The rest are sums of the largest arrays, with factors
fitted to compiled programs (Qwen2.5 1.5B on v5e-64 and 7B on v5e-256); see docs/plan.md for how far
they are off elsewhere.
"""

import math
from typing import NamedTuple

from dpsjax.plan.hlo import Traffic
from dpsjax.plan.job import Job
from dpsjax.policy.log_probs import logits_chunk

# Up to so many ways the compiler multiplies while it gathers a weight, part by part, and reads and
# writes the product at every part.
_RING = 32

__all__ = ["Estimate", "batch_bytes", "cache_bytes", "estimate", "weight_copy_bytes"]


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


def cache_bytes(job: Job) -> int:
    """Keys and values on a device while it generates: of responses in one wave, and of prompts."""
    policy = job.spec.policy
    heads = _share(policy.kv_heads, job.axes.tensor)
    token = 2 * policy.layers * heads * policy.head_dim * job.word
    rows = job.rows / job.axes.ways
    responses = job.group / job.spec.compute.waves * job.response_len
    return int(token * rows * (responses + job.prompt_len))


def weight_copy_bytes(job: Job) -> int:
    """The weights that generation holds, in the type of its products."""
    fsdp = job.axes.fsdp if job.spec.compute.decode_weights == "sharded" else 1
    return int(job.word * job.spec.policy.num_params() / (job.axes.tensor * fsdp))


def batch_bytes(job: Job) -> float:
    """Tokens, masks and log-probabilities of a batch of rollouts."""
    rows = job.rows / job.axes.ways
    return rows * (job.group * job.response_len * 9 + job.prompt_len * 5)


def estimate(job: Job) -> dict[str, Estimate]:
    """Estimate every program.

    Args:
        job: the step on its mesh.

    Returns:
        By the name of its stage; the rest of the rollouts after a screening takes its share of a
        whole generation.
    """
    # 13 words of belief read for the selection, 16 moved by the update (benchmarks/tpu_filter.py)
    rows, waits = job.pool_rows / job.axes.devices, job.spec.collector.waits
    rest, whole = job.spec.collector.rest, _generation(job)
    found = {
        "select": Estimate(rows * 32, Traffic(rows * 13 * 4, {"all-gather": job.rows * 8.0})),
        "generate": _part(whole, job.spec.first / job.group if rest else 1.0),
        "offer": Estimate(rows * 32, Traffic(rows * 16 * 4 + 2 * batch_bytes(job), {})),
        "take": Estimate(0.0, Traffic(2.0 * batch_bytes(job) * waits, {})),
    }
    if rest:
        found["rest"] = _part(whole, rest / job.group)
    return {**found, "update": _update(job)}


def _part(whole: Estimate, share: float) -> Estimate:
    moved = {name: share * count for name, count in whole.traffic.collectives.items()}
    return Estimate(share * whole.temporary, Traffic(share * whole.traffic.memory, moved))


def _generation(job: Job) -> Estimate:
    policy, compute, tensor = job.spec.policy, job.spec.compute, job.axes.tensor
    cache, weights = cache_bytes(job), weight_copy_bytes(job)
    # a third of the weights exists twice while it is gathered and laid out for decoding
    temporary = cache + weights * 4 / 3
    steps = job.response_len * compute.waves
    rows = job.rows / job.axes.ways * job.group / compute.waves
    logits = rows * policy.vocab_size / tensor * 4
    memory = steps * (weights + cache + 4 * logits)
    gather = job.word * policy.num_params() / tensor * (1 - 1 / job.axes.fsdp)
    gathers = gather * (1 if compute.decode_weights == "gathered" else steps)
    traffic = {"all-gather": gathers}
    if tensor > 1:
        ring = (tensor - 1) / tensor
        traffic["all-reduce"] = (
            steps * rows * policy.layers * 2 * policy.width * job.word * 2 * ring
        )
        traffic["all-gather"] += steps * rows * policy.vocab_size * 4 * ring
    return Estimate(temporary, Traffic(memory, traffic))


def _update(job: Job) -> Estimate:
    policy, compute = job.spec.policy, job.spec.compute
    tensor, fsdp, ways = job.axes.tensor, job.axes.fsdp, job.axes.ways
    rows = max(job.micro_batch / ways, 1.0)
    seen = job.prompt_len + job.response_len
    tokens, heads = rows * seen, _share(policy.heads, tensor)
    mlp, vocab = policy.mlp_width / tensor, _share(policy.vocab_size, tensor)
    stored = policy.num_params() / (fsdp * tensor) * 4
    residual = {"full": 2, "dots": 10, "none": 30}[compute.remat]
    residual *= policy.width * tokens * job.word / 2
    scores = rows * heads * min(compute.query_chunk or seen, job.response_len) * seen * 4
    chunk = logits_chunk(int(rows * job.response_len), int(vocab))
    logits = chunk * vocab * 4
    ends = policy.vocab_size * policy.width / tensor * (1 if policy.tied_embeddings else 2) * 5
    inside = max(2 * scores, 3 * job.word * mlp * tokens) + 3 * logits + ends
    temporary = 2 * stored + residual * policy.layers + inside

    micro = job.rows * job.group / job.micro_batch
    passes = 3 if compute.remat == "full" else 2
    weights = job.word * policy.num_params() / tensor
    every_score = rows * heads * job.response_len * seen * 4
    layer = 4.6 * passes * every_score + job.word * tokens * (20 * mlp + 60 * policy.width)
    memory = micro * (
        policy.layers * layer
        + 13.4 * rows * job.response_len * vocab * 4
        + (passes + 1) * weights
        + 3 * stored
    )
    memory += job.rows / job.mini_batch * 8 * stored
    if 1 < fsdp <= _RING:
        memory *= 1.65  # fitted: 1.74 (1.5B) and 1.60 (7B), both on v5e-64
    chunks = math.ceil(rows * job.response_len / chunk)
    head = job.word * policy.vocab_size * policy.width / tensor
    divided = 1 - 1 / ways
    traffic = {
        "all-gather": micro * divided * (passes * weights + 2 * chunks * head),
        "all-reduce": micro * 2 * divided * (weights + 2 * chunks * head),
    }
    if tensor > 1:
        ring = 2 * (tensor - 1) / tensor
        width = tokens * policy.width * job.word * ring
        traffic["all-reduce"] += micro * policy.layers * 2 * passes * width
    return Estimate(temporary, Traffic(memory, traffic))
