"""A layout for those who give none: of those that should fit, the one that should be fastest."""

from collections.abc import Iterator
from typing import Any

from dpsjax.plan.chips import Slice
from dpsjax.plan.cost import program_seconds
from dpsjax.plan.estimate import estimate
from dpsjax.plan.planner import batch_bytes
from dpsjax.plan.setting import Job, Layout, divisors

__all__ = ["choose_layout"]

# A margin for what the estimate leaves out.
_SLACK = 0.93


def choose_layout(job: Job, where: Slice, **fixed: Any) -> Layout:
    """The layout that should be fastest among those that should fit, by the estimate.

    Args:
        job: what is trained.
        where: the slice.
        **fixed: fields of the layout that are given, and not chosen; all three axes of the mesh or
            none.

    Returns:
        The layout; where none fits, the one that needs least memory.

    Raises:
        ValueError: nothing divides the job over the slice.
    """
    fitting: list[tuple[float, int, Layout]] = []
    others: list[tuple[float, Layout]] = []
    for order, layout in enumerate(_layouts(job, where, fixed)):
        layout.check(job)
        guesses = estimate(job, layout)
        peak = 12 * job.policy.num_params() / (layout.fsdp * layout.tensor)
        peak += batch_bytes(job, layout) + max(guess.temporary for guess in guesses.values())
        if peak > _SLACK * where.chip.usable_bytes:
            others.append((peak, layout))
            continue
        # operations are the same for all
        moved = (program_seconds(0.0, guess.traffic, where.chip) for guess in guesses.values())
        fitting.append((sum(seconds.most for seconds in moved), order, layout))
    if fitting:
        return min(fitting)[-1]
    if not others:
        raise ValueError(
            f"no mesh over {where.size} chips divides mini_batch={job.mini_batch} prompts and "
            f"{job.policy.heads} heads: give --mesh, or another --mini-batch"
        )
    return min(others, key=lambda item: item[0])[1]


def _layouts(job: Job, where: Slice, fixed: dict[str, Any]) -> Iterator[Layout]:
    """All that divide the job, with what is given."""
    for axes in _axes(job, where, fixed):
        ways = axes["data"] * axes["fsdp"]
        for waves in [fixed["waves"]] if "waves" in fixed else divisors(job.group):
            for micro in _micro_batches(job, ways, fixed.get("micro_batch")):
                yield Layout(**{**fixed, **axes, "micro_batch": micro, "waves": waves})


def _axes(job: Job, where: Slice, fixed: dict[str, Any]) -> Iterator[dict[str, int]]:
    """Meshes without replicas: replicas cost memory and save nothing inside one slice."""
    if "tensor" in fixed:
        yield {name: fixed[name] for name in ("data", "fsdp", "tensor")}
        return
    policy = job.policy
    for tensor in divisors(where.size):
        fsdp = where.size // tensor
        shared = policy.kv_heads % tensor == 0  # else every device would hold all of the cache
        if job.mini_batch % fsdp == 0 and policy.heads % tensor == 0 and shared:
            yield {"data": 1, "fsdp": fsdp, "tensor": tensor}


def _micro_batches(job: Job, ways: int, given: int | None) -> list[int]:
    """Micro-batches to try: up to four sequences a device."""
    if given is not None:
        return [given]
    whole = job.mini_batch * job.group
    return [n * ways for n in (4, 2, 1) if whole % (n * ways) == 0] or [ways]
