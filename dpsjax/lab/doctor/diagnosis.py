"""What the groups of a log say: counts with intervals, and a replay of beliefs over them."""

from typing import NamedTuple

import jax
import numpy as np
from scipy import stats

from dpsjax import selectors
from dpsjax.lab.doctor.logs import Log
from dpsjax.selectors import Selector

PERIODS = 5  # into which the steps are divided
ENOUGH = 3  # groups of a prompt before it counts as never solved


class Share(NamedTuple):
    """A share of M, and Wilson's 95 % interval of it."""

    value: float
    low: float
    high: float


class Replay(NamedTuple):
    """How the half of each step's prompts that a selector believed in most did."""

    effective: float  # share of its groups that were mixed
    saved: float  # share of the rollouts that were not needed for as many mixed groups
    low: float  # of the 95 % interval of it, from steps drawn anew
    high: float


def share(part: int, whole: int) -> Share:
    """A share with its interval; NaN of nothing.

    >>> share(5, 10).value
    0.5
    """
    if not whole:
        return Share(*[float("nan")] * 3)
    found = stats.binomtest(int(part), int(whole)).proportion_ci(method="wilson")
    return Share(part / whole, float(found.low), float(found.high))


def mixed(log: Log) -> np.ndarray:
    """bool[M]: groups that neither all pass nor all fail."""
    return (log.passes > 0) & (log.passes < log.trials)


def over_time(log: Log) -> list[tuple[str, Share, Share, Share]]:
    """For each period of steps: its name, and the shares all wrong, mixed and all right."""
    steps = np.unique(log.step)
    found = []
    for period in np.array_split(steps, min(PERIODS, steps.size)):
        here = (log.step >= period[0]) & (log.step <= period[-1])
        passes, trials = log.passes[here], log.trials[here]
        name = f"{period[0]}" if period.size == 1 else f"{period[0]}-{period[-1]}"
        wrong, right = (passes == 0).sum(), (passes == trials).sum()
        counts = (wrong, passes.size - wrong - right, right)
        found.append((name, *(share(int(count), passes.size) for count in counts)))
    return found


def never_solved(log: Log) -> np.ndarray:
    """int64[.] prompts of at least three groups, all wrong, most rollouts first."""
    size = len(log.names)
    groups, passes = (np.bincount(log.prompt, w, size) for w in (None, log.passes))
    spent = np.bincount(log.prompt, log.trials, size)
    found = np.flatnonzero((groups >= ENOUGH) & (passes == 0))
    return found[np.argsort(-spent[found], kind="stable")]


def repeated(log: Log) -> int:
    """Rollouts of prompts that came in several groups of one step, or in groups too large."""
    usual = int(np.median(log.trials))
    _, place, counts = np.unique(
        np.stack([log.step, log.prompt]), axis=1, return_inverse=True, return_counts=True
    )
    again = counts[place.reshape(-1)] > 1
    large = (log.trials >= 2 * usual) & (log.trials % usual == 0) & ~again
    first = np.zeros(log.step.size, bool)
    first[np.unique(place.reshape(-1), return_index=True)[1]] = True
    return int(log.trials[again & ~first].sum() + (log.trials[large] - usual).sum())


def incomplete(log: Log) -> int:
    """Groups of fewer rollouts than most have."""
    sizes, counts = np.unique(log.trials, return_counts=True)
    return int((log.trials < sizes[np.argmax(counts)]).sum())


def only_shaped(log: Log) -> int:
    """Groups with one verdict and several rewards: they teach form, or noise, not the answer."""
    return int((log.shaped & ~mixed(log)).sum())


def contenders(group: int) -> dict[str, Selector]:
    """The selectors that are replayed."""
    return {
        "dps": selectors.dps(),
        "mopps": selectors.mopps(),
        "dps-binomial": selectors.dps_binomial(group=group),
    }


def replay(log: Log, selector: Selector, seed: int = 0) -> Replay | None:
    """Let a selector's belief follow the log, and before each step choose half of its prompts.

    Nothing is known of prompts that were not rolled out, so the choice is among those that were;
    whoever chooses of a whole pool can save more. Steps before any prompt came twice say nothing.

    Args:
        log: with several steps.
        selector: one that keeps a belief of pass rates.
        seed: of the resampling.

    Returns:
        the finding; None where no prompt ever comes twice.
    """
    group, size = int(np.median(log.trials)), len(log.names)
    state, seen = selector.init(size, None), np.zeros(size, bool)
    widest = int(np.unique(log.step, return_counts=True)[1].max())
    hit, rows = mixed(log), []
    for step in np.unique(log.step):
        here = np.flatnonzero(log.step == step)
        index = log.prompt[here]
        if seen[index].mean() >= 0.5:
            outlook = selectors.inspect(selector, state, max(group, 2))
            chance = np.asarray(outlook.mixed)[index]
            order = np.lexsort((np.arange(index.size) * 7919 % index.size, -chance))
            half = here[order[: (index.size + 1) // 2]]
            rows.append((hit[half].sum(), half.size, hit[here].sum(), here.size))
        state = _learn(selector, state, log, here, widest)
        seen[index] = True
    if not rows:
        return None
    counts = np.array(rows, np.float64)
    drawn = np.random.default_rng(seed).integers(0, len(rows), (2000, len(rows)))
    again = counts[drawn].sum(axis=1)
    low, high = np.nanpercentile(_saved(again), [2.5, 97.5])
    total = counts.sum(axis=0)
    return Replay(total[0] / total[1], float(_saved(total[None])[0]), float(low), float(high))


def _saved(totals: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        chosen, all_of_them = totals[:, 0] / totals[:, 1], totals[:, 2] / totals[:, 3]
        return 1 - all_of_them / chosen


def _learn(selector, state, log: Log, here: np.ndarray, widest: int):
    spare = (0, widest - here.size)  # one size, compiled once
    rows = ((log.prompt[here], -1), (log.passes[here], 0), (log.trials[here], 0))
    padded = [np.pad(v, spare, constant_values=fill).astype(np.int32) for v, fill in rows]
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        return selectors.observe(selector, state, *padded)[1]
