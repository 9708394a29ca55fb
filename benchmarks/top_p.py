"""Claim: finding the cut of top-p by bisection costs a small part of sorting the vocabulary.

A decoding step truncates the logits of every row. ``python benchmarks/top_p.py`` times
``truncate_logits`` beside the same set found with a sort, and beside a softmax, the least that a
step does with its logits. ``--rows 64 --vocab 151936`` are the sizes of Qwen2.5.
"""

import argparse
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from common import save, seconds

from dpsjax.policy.decode import truncate_logits


def by_sorting(logits: jax.Array, top_p: float) -> jax.Array:
    """The definition: tokens by falling probability until the total reaches ``top_p``."""
    ordered = -jnp.sort(-logits, axis=-1)
    probs = jax.nn.softmax(ordered, axis=-1)
    inside = jnp.cumsum(probs, axis=-1) - probs < jnp.float32(top_p)
    cut = jnp.min(jnp.where(inside, ordered, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(logits >= cut, logits, -jnp.inf)


def measure(rows: int, vocab: int, top_p: float, repeats: int) -> dict:
    """Seconds of each way, and tokens on which they differ."""
    # Zipf's law, about what a language model's next token follows
    ranks = np.arange(1, vocab + 1)
    rng = np.random.default_rng(0)
    logits = np.stack([rng.permutation(-1.2 * np.log(ranks)) for _ in range(rows)])
    logits = jnp.asarray(logits + rng.normal(size=logits.shape), jnp.float32)
    ways = {
        "bisection": lambda x: truncate_logits(x, 0, top_p),
        "sort": lambda x: by_sorting(x, top_p),
        "softmax": lambda x: jax.nn.softmax(x, axis=-1),
    }
    kept = [np.isfinite(ways[way](logits)) for way in ("bisection", "sort")]
    compiled = {way: jax.jit(function) for way, function in ways.items()}
    times = {way: seconds(lambda run=run: run(logits), repeats) for way, run in compiled.items()}
    return {
        "device": jax.devices()[0].device_kind,
        "rows": rows,
        "vocab": vocab,
        "top_p": top_p,
        "kept": float(kept[0].sum(-1).mean()),
        "differ": int((kept[0] != kept[1]).sum()),
        "seconds": times,
        "sort / bisection": times["sort"]["median"] / times["bisection"]["median"],
    }


def main() -> None:
    """Print the record; write it with ``--out FOLDER``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--vocab", type=int, default=32_000)
    parser.add_argument("--top-p", type=float, default=0.95)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    record = measure(options.rows, options.vocab, options.top_p, options.repeats)
    print(json.dumps(record, indent=1))
    if options.out is not None:
        save("top_p", record, options.out)


if __name__ == "__main__":
    main()
