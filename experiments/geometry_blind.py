"""Does the policy look? Held-out accuracy with the pictures, without, and with another's.

    python experiments/geometry_blind.py runs/geometry

``blank``: every pixel 0; ``exchanged``: each problem shows the picture of another one. A policy
that answered from the text or from habit alone would lose nothing.
"""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import tyro
from make_geometry_base import make_measure

from dpsjax.loop.prompts import longest, sight_of
from dpsjax.policy import abstract_policy, load_weights
from dpsjax.tasks.geometry import base_path, geometry

OUT = base_path()


@dataclasses.dataclass(frozen=True)
class Config:
    """What is looked at."""

    run: tyro.conf.Positional[Path] = OUT
    """Folder of a finished run, or a file of weights; by default the shipped base."""
    problems: int = 300
    """Held-out problems."""


def main(config: Config) -> dict:
    """Measure and print."""
    path = config.run / "weights.safetensors" if config.run.is_dir() else config.run
    policy, params = load_weights(path)
    task = geometry(6, config.problems)
    sight = sight_of(task, policy.vision)
    task = dataclasses.replace(task, prompt_tokens=longest(task, policy.vision))
    measure = make_measure(abstract_policy(policy)[0], task, sight)
    order = np.random.default_rng(0).permutation(config.problems)
    changes = {
        "as they are": lambda images: images,
        "blank": lambda images: images._replace(pixels=images.pixels * 0),
        "exchanged": lambda images: jax.tree.map(lambda x: x[order], images),
    }
    found = {}
    for name, change in changes.items():
        seen = measure(params, change)
        found[name] = {kind: values["all"] for kind, values in seen.items()}
        print(f"{name:12} {json.dumps(found[name])}")
    return found


if __name__ == "__main__":
    main(tyro.cli(Config))
