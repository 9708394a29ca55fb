"""A layout for those who give none: of those that should fit, the one that should be fastest."""

from collections.abc import Iterator

from dpsjax.plan.chips import Slice
from dpsjax.plan.cost import program_seconds
from dpsjax.plan.estimate import batch_bytes, estimate
from dpsjax.plan.job import Axes, Job, divisors

__all__ = ["choose"]

# A margin for what the estimate leaves out.
_SLACK = 0.93
# Sequences of a micro-batch that keep a device busy: as many as have so many tokens, at least 4.
_BUSY = 4, 32_768


def choose(
    job: Job,
    where: Slice,
    *,
    data: int | None = None,
    fsdp: int | None = None,
    tensor: int | None = None,
    micro_batch: int | None = None,
    waves: int | None = None,
) -> Job:
    """The layout that should be fastest among those that should fit, by the estimate.

    Args:
        job: what is trained, on any mesh.
        where: the devices.
        data: given, and not chosen, as are the others; otherwise there is one replica, which inside
            one slice costs no memory and loses nothing.
        fsdp: ways the parameters are divided by width.
        tensor: ways they are divided by heads.
        micro_batch: sequences of a forward and backward pass, over all devices; 0 for those of
            the whole mini-batch.
        waves: turns of generation.

    Returns:
        the same step with another layout; where none fits, the one that needs least memory.

    Raises:
        ValueError: nothing divides the step over the devices.
    """
    best: tuple[tuple[bool, float, int], Job] | None = None
    turns = divisors(job.group) if waves is None else [waves]
    for axes in _axes(job, where, data, fsdp, tensor):
        for order, turn in enumerate(turns):
            for micro in _micro_batches(Job(job.spec, axes), micro_batch):
                try:
                    other = Job(job.spec, axes).with_turns(micro, turn)
                except ValueError:  # the micro-batch does not divide the mini-batch
                    continue
                rank = _rank(other, where, order)
                if best is None or rank < best[0]:
                    best = rank, other
    if best is None:
        raise ValueError(
            f"no mesh over {where.size} devices divides a mini-batch of "
            f"{job.spec.grpo.mini_batch or job.prompts} prompts x {job.group} rollouts and "
            f"{job.spec.policy.heads} heads: give the mesh, or another mini-batch"
        )
    return best[1]


def _rank(job: Job, where: Slice, order: int) -> tuple[bool, float, int]:
    """The smaller the better: does it fit, how long does it take; or how much does it need."""
    guesses = estimate(job)
    peak = 12 * job.spec.policy.num_params() / (job.axes.fsdp * job.axes.tensor)
    peak += batch_bytes(job) + max(guess.temporary for guess in guesses.values())
    if peak > _SLACK * where.chip.usable_bytes:
        return True, peak, order
    # operations are the same for all, but for padding
    padded = job.rows / job.prompts
    moved = (program_seconds(0.0, guess.traffic, where.chip) for guess in guesses.values())
    return False, padded * sum(seconds.most for seconds in moved), order


def _axes(
    job: Job, where: Slice, data: int | None, fsdp: int | None, tensor: int | None
) -> Iterator[Axes]:
    """Meshes without replicas: replicas cost memory and save nothing inside one slice."""
    policy, one = job.spec.policy, data or 1
    for ways in divisors(where.size):
        if where.size // ways % one or (tensor or ways) != ways:
            continue
        axes = Axes(one, where.size // ways // one, ways)
        shared = policy.kv_heads % ways == 0  # else every device would hold all of the cache
        if (fsdp or axes.fsdp) != axes.fsdp or not (tensor or shared):
            continue
        if tensor or policy.heads % ways == 0:
            yield axes


def _micro_batches(job: Job, given: int | None) -> list[int]:
    """Micro-batches to try: those that keep the devices busy, over all of them."""
    if given:
        return [given]
    whole, ways = job.mini_batch * job.group, job.axes.ways
    if given == 0:
        return [whole]
    most = max(_BUSY[0], _BUSY[1] // (job.prompt_len + job.response_len))
    shares = [n for n in divisors(whole // ways) if n <= most]
    return [n * ways for n in reversed(shares[-3:])]
