"""Claim: the filter and the selection cost a few times a memcpy of the bytes they must move.

One round over N prompts, in float32: select the B prompts, observe them, advance the belief of all.

    GLIBC_TUNABLES=glibc.malloc.hugetlb=1 python benchmarks/filter.py

The tunable asks for huge pages, which makes fresh buffers cheap; it changes no result. Sides, all
in one run: this library; a dictionary of 3x3 NumPy filters in a Python loop (the form of the
released sampler, up to 1e5); the same algebra vectorised in plain NumPy (up to 1e6); and a memcpy
of the fewest bytes that an exact step moves. Those are, per prompt and float32: read 9 counts, 3
beliefs and the step last seen, write 3 beliefs: 16 words of 4 bytes. A table, a record, and a
picture of the cost against N. Bytes are those above what the process held before the pool was made,
at rest and at the peak.
"""

import itertools
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from common import memcpy_seconds, peak_bytes, resident_bytes, save, seconds

import dpsjax

FEWEST_BYTES = 16 * 4  # per prompt and step, read and written


@dataclass
class Options:
    """Sizes and where the record goes."""

    sizes: list[float] = field(default_factory=lambda: [1e3, 1e4, 1e5, 1e6, 1e7, 1e8])
    batch: int = 256
    decay: float = 0.7
    out: Path = Path("runs/benchmarks")


def library_round(num_prompts: int, batch: int, decay: float) -> dict:
    """Selection, observation and the whole round, each timed alone, in the README's form."""
    selector = dpsjax.selectors.dps(decay=decay)
    trials = jnp.full(batch, 8, jnp.int32)
    rng, turns = np.random.default_rng(0), 32
    keys = jax.block_until_ready([jax.random.key(turn) for turn in range(turns)])
    passes = [jnp.asarray(rng.integers(0, 9, batch), jnp.int32) for _ in range(turns)]
    others = [rng.choice(num_prompts, batch, replace=False) for _ in range(turns)]
    others = jax.block_until_ready([jnp.asarray(index, jnp.int32) for index in others])
    before = resident_bytes()
    cell = [jax.block_until_ready(jax.jit(lambda: selector.init(num_prompts))())]
    clock = itertools.count()

    def choose():
        key = keys[next(clock) % turns]
        chosen, cell[0] = dpsjax.select(selector, key, cell[0], batch)
        return chosen.index

    def learn(index=None):
        turn = next(clock) % turns
        index = others[turn] if index is None else index
        _, cell[0] = dpsjax.observe(selector, cell[0], index, passes[turn], trials, donate=True)
        return cell[0]

    def whole():
        return learn(choose())

    for _ in range(5):
        jax.block_until_ready(whole())
    result = {"select": seconds(choose), "observe": seconds(learn), "round": seconds(whole)}
    result["resident_bytes"] = resident_bytes() - before
    result["peak_bytes"] = peak_bytes() - before
    return result


def python_loop(num_prompts: int, batch: int, decay: float) -> dict:
    """A dictionary of one-prompt filters, as released samplers keep them."""
    prior = np.ones((3, 3))
    alpha = {n: prior.copy() for n in range(num_prompts)}
    belief = {n: np.full(3, 1 / 3) for n in range(num_prompts)}
    rng = np.random.default_rng(0)

    def whole():
        scores = np.array([belief[n][1] for n in range(num_prompts)])
        chosen = set(np.argsort(-scores)[:batch].tolist())
        for n in range(num_prompts):
            expected = alpha[n] / alpha[n].sum(axis=0, keepdims=True)
            update = 0.0
            after = belief[n]
            if n in chosen:
                after = np.eye(3)[rng.integers(3)]
                update = after[:, None] * expected * belief[n][None]
                update = update / update.sum()
            alpha[n] = decay * alpha[n] + (1 - decay) * prior + update
            belief[n] = (alpha[n] / alpha[n].sum(axis=0, keepdims=True)) @ after

    return seconds(whole, repeats=3, warm=0)


def plain_numpy(num_prompts: int, batch: int, decay: float) -> dict:
    """The same algebra on whole [N, 3, 3] float32 arrays."""
    alpha = np.ones((num_prompts, 3, 3), np.float32)
    belief = np.full((num_prompts, 3), 1 / 3, np.float32)
    rng = np.random.default_rng(0)
    decay = np.float32(decay)

    def whole():
        nonlocal alpha, belief
        chosen = np.argpartition(-belief[:, 1], batch)[:batch]
        after = belief.copy()
        after[chosen] = np.eye(3, dtype=np.float32)[rng.integers(0, 3, batch)]
        expected = alpha[chosen] / alpha[chosen].sum(axis=1, keepdims=True)
        update = after[chosen][:, :, None] * expected * belief[chosen][:, None, :]
        update /= update.sum(axis=(1, 2), keepdims=True)
        alpha = decay * alpha + (1 - decay)
        alpha[chosen] += update
        belief = np.einsum("nij,nj->ni", alpha / alpha.sum(axis=1, keepdims=True), after)

    return seconds(whole, repeats=5, warm=1)


def picture(rows: list[dict], path: Path) -> None:
    """Milliseconds against prompts, both logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    lines = {
        "released form: Python loop": ("python_loop", "s:"),
        "plain NumPy": ("numpy", "^:"),
        "dpsjax: select and observe": ("round", "o-"),
        "dpsjax: observe": ("observe", ".--"),
        "dpsjax: select": ("select", ".--"),
        "memcpy of the fewest bytes": ("memcpy", "k-"),
    }
    for label, (name, style) in lines.items():
        points = [(row["prompts"], 1e3 * row[name]["median"]) for row in rows if name in row]
        axes.loglog(*zip(*points, strict=True), style, label=label)
    axes.set(xlabel="prompts", ylabel="milliseconds a step (two CPU cores)")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    figure.savefig(path, dpi=150)
    print(f"wrote {path}")


def main(options: Options) -> None:
    rows = []
    for size in (int(size) for size in options.sizes):
        # In a process of its own, so that the peak of its memory is its own.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            row = pool.submit(library_round, size, options.batch, options.decay).result()
        row["prompts"] = size
        row["memcpy"] = memcpy_seconds(FEWEST_BYTES * size)
        row["round_per_memcpy"] = row["round"]["median"] / row["memcpy"]["median"]
        if size <= 1e5:
            row["python_loop"] = python_loop(size, options.batch, options.decay)
            row["loop_per_round"] = row["python_loop"]["median"] / row["round"]["median"]
        if size <= 1e6:
            row["numpy"] = plain_numpy(size, options.batch, options.decay)
            row["numpy_per_round"] = row["numpy"]["median"] / row["round"]["median"]
        rows.append(row)
        print(
            f"N={size:>11,}  select {row['select']['median'] * 1e3:9.3f} ms"
            f"  observe {row['observe']['median'] * 1e3:9.3f} ms"
            f"  round {row['round']['median'] * 1e3:9.3f} ms"
            f" = {row['round_per_memcpy']:6.2f} memcpy"
            f"  python loop x{row.get('loop_per_round', float('nan')):9.1f}"
            f"  numpy x{row.get('numpy_per_round', float('nan')):6.1f}"
            f"  resident +{row['resident_bytes'] / 2**30:.3f} GiB"
            f"  peak +{row['peak_bytes'] / 2**30:.3f} GiB",
            flush=True,
        )
    save("filter", {"rows": rows, "batch": options.batch}, options.out)
    picture(rows, options.out / "filter.png")


if __name__ == "__main__":
    main(tyro.cli(Options))
