"""Make the base policy of geometry diagrams that ships with the package, from scratch.

    nice -n 10 python experiments/make_geometry_base.py

writes ``dpsjax/tasks/assets/geometry_base.safetensors`` and beside it a card of how it was made and
what it measures. The base reads the figures, and answers most of them by a wrong rule: what
reinforcement learning gains afterwards cannot be had from a lower temperature.
"""

import dataclasses
import itertools
import json
import shlex
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax import nnx
from supervised import encode_responses, encode_seen, fit, tensors_sha256

from dpsjax.loop.prompts import Sight, longest, sight_of
from dpsjax.policy import (
    PolicyConfig,
    Rope,
    Sampling,
    abstract_policy,
    generate,
    save_weights,
    tiny_vision,
    token_log_probs,
)
from dpsjax.tasks.base import Problem, Task
from dpsjax.tasks.geometry import RULES, base_path, geometry, warm_start

OUT = base_path()


@dataclasses.dataclass(frozen=True)
class Config:
    """How the base is made."""

    out: Path = OUT
    """Where the weights go (safetensors)."""
    seed: int = 0
    """Seed of the initial weights and of the pairs."""
    figures: int = 2100
    """Different figures among the pairs."""
    steps: int = 1400
    """Optimizer steps; the learning rate falls to a tenth over them."""
    reading: int = 800
    """So many of them show right answers alone: it sees and reckons before it has habits."""
    batch: int = 64
    """Pairs in a step."""
    learning_rate: float = 3e-3
    """Peak, after a twentieth of the steps as linear warm-up."""
    width: int = 64
    """Of the text's residual stream."""
    layers: int = 2
    """Blocks of the text."""
    every: int = 250
    """Steps between looks at the held-out problems."""


def policy_of(config: Config, task: Task) -> PolicyConfig:
    """A small text transformer with a small eye."""
    head = config.width // 4
    turned = head // 6
    return PolicyConfig(
        vocab_size=task.tokenizer.vocab_size,
        width=config.width,
        mlp_width=2 * config.width,
        layers=config.layers,
        heads=4,
        kv_heads=2,
        head_dim=head,
        rope=Rope(sections=(head // 2 - 2 * turned, turned, turned)),
        vision=tiny_vision(task.tokenizer.image_id),
    )


def make_measure(graph, task: Task, sight: Sight):
    """``measure(params)``: pass rates and greedy accuracy of the held-out problems.

    With another argument, a function of the pictures, on what that makes of them.
    """
    sampling = Sampling(task.response_tokens, temperature=0.0, stop_ids=(task.tokenizer.eos_id,))
    rows = encode_seen(task, task.test, task.prompt_tokens, sight)
    rows = jax.tree.map(jnp.asarray, rows)
    answers = jax.tree.map(jnp.asarray, encode_responses(task, [p.answer for p in task.test]))

    @jax.jit
    def run(params, tokens, mask, images):
        model = nnx.merge(graph, params)
        made = generate(model, jax.random.key(0), tokens, mask, sampling, images=images)
        log_probs, _ = token_log_probs(model, tokens, mask, *answers, images=images)
        return made.tokens[:, 0], jnp.exp(log_probs.sum(axis=1))

    def measure(params, change=lambda images: images) -> dict:
        tokens, mask, images = rows
        made, rates = (np.asarray(x) for x in run(params, tokens, mask, change(images)))
        texts = [task.tokenizer.decode(row) for row in made]
        right = np.array([score.correct for score in task.score(task.test, texts)])
        return {
            "pass_rate": by_source(task.test, rates),
            "greedy": by_source(task.test, right),
        }

    return measure


def by_source(problems: tuple[Problem, ...], values: np.ndarray) -> dict[str, float]:
    """Mean of ``values`` over all problems, and over those of each rule."""
    sources = np.array([problem.source for problem in problems])
    found = {name: round(float(values[sources == name].mean()), 3) for name in RULES}
    return {"all": round(float(values.mean()), 3), **found}


def main(config: Config) -> None:
    """Train, measure, save."""
    start = time.monotonic()
    task = geometry()
    policy = policy_of(config, task)
    sight = sight_of(task, policy.vision)
    task = dataclasses.replace(task, prompt_tokens=longest(task, policy.vision))
    sound, pairs = (
        warm_start(config.seed, figures=config.figures, right=right) for right in (1.0, None)
    )
    measure = make_measure(abstract_policy(policy)[0], task, sight)
    _, params, data = fit(
        task,
        itertools.chain(itertools.islice(sound, config.reading * config.batch), pairs),
        policy,
        steps=config.steps,
        batch=config.batch,
        learning_rate=config.learning_rate,
        seed=config.seed,
        every=config.every,
        watch=measure,
        sight=sight,
    )
    save_weights(config.out, policy, params)
    card = {
        "what": "base policy of the default task of geometry diagrams, supervised from scratch",
        "command": shlex.join(["python", *sys.argv]),
        **{name: value for name, value in vars(config).items() if name not in ("out", "every")},
        "parameters": policy.num_params(),
        "data_sha256": data,
        "task_sha256": task.fingerprint(),
        "tensors_sha256": tensors_sha256(config.out),
        "seconds": round(time.monotonic() - start),
        "jax": jax.__version__,
        "right": {name: rule.right for name, rule in RULES.items()},
        "held_out": measure(params),
        "held_out_blind": measure(params, lambda i: i._replace(pixels=i.pixels * 0)),
    }
    config.out.with_suffix(".card.json").write_text(
        json.dumps(card, indent=2) + "\n", encoding="utf-8"
    )
    print(json.dumps(card, indent=2))


if __name__ == "__main__":
    main(tyro.cli(Config))
