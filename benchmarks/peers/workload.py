"""What every side of the comparison runs: shapes, prompts, reward, and how a side reports.

Imported by each side in its own environment: nothing but NumPy and the standard library.
"""

import argparse
import json
import os
import resource
import sys
import time

import numpy as np

# A Qwen2 of 3.08 million parameters, float32, random weights.
VOCAB, WIDTH, MLP, LAYERS, HEADS, KV_HEADS = 1024, 256, 704, 4, 8, 2
ROPE_THETA, NORM_EPS = 1e6, 1e-6
# A step: every response has exactly RESPONSE tokens, for nothing ends it early.
PROMPTS, GROUP, PROMPT, RESPONSE = 16, 8, 64, 64
MICRO_BATCH = 16  # sequences, where a side wants to be told
LEARNING_RATE, BETA1, BETA2, ADAM_EPS = 1e-5, 0.9, 0.999, 1e-8
WEIGHT_DECAY, MAX_GRAD_NORM = 0.1, 1.0
CLIP_LOW, CLIP_HIGH = 0.2, 0.28
# Tokens of a step, as they are counted for every side: what a side need not compute, because it
# shares a prompt among its responses, is its gain.
GENERATED = PROMPTS * GROUP * RESPONSE
UPDATED = PROMPTS * GROUP * (PROMPT + RESPONSE)


def prompt_ids(step: int) -> np.ndarray:
    """The prompts of a step, int32[PROMPTS, PROMPT]; tokens 0 to 3 are special and left out."""
    random = np.random.default_rng(step)
    return random.integers(4, VOCAB, (PROMPTS, PROMPT)).astype(np.int32)


def rewards(responses: np.ndarray) -> np.ndarray:
    """Share of even tokens: varies within every group. [..., RESPONSE] to float32[...]."""
    return (np.asarray(responses) % 2 == 0).mean(axis=-1).astype(np.float32)


def arguments() -> argparse.Namespace:
    """The command line of a side."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=5, help="measured steps after the first")
    parser.add_argument("--generate", type=int, default=0, help="sequences generated at a time")
    return parser.parse_args()


class Clock:
    """Seconds by phase and step; a step's own seconds are between ``start`` and ``stop``."""

    def __init__(self):
        self.steps: list[dict[str, float]] = []
        self._phase: dict[str, float] = {}
        self._began = 0.0

    def start(self) -> None:
        """Begin a step."""
        self._phase, self._began = {}, time.perf_counter()

    def add(self, phase: str, began: float) -> None:
        """Account the time since ``began`` to a phase."""
        self._phase[phase] = self._phase.get(phase, 0.0) + time.perf_counter() - began

    def stop(self) -> None:
        """End a step."""
        self.steps.append({**self._phase, "step": time.perf_counter() - self._began})


def report(clock: Clock, **more: object) -> None:
    """Print the record of a run as the last line of standard output."""
    first, *later = clock.steps
    record = {
        "first": first,
        "steps": later,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "rss_mb": _resident_mb(),
        "load": os.getloadavg()[0],
        "python": sys.version.split()[0],
        **more,
    }
    print(json.dumps(record))


def _resident_mb() -> float:
    with open("/proc/self/statm", encoding="utf-8") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20
