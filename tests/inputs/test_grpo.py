"""Every public name of dpsjax.grpo."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dpsjax import grpo
from dpsjax.grpo.aggregation import token_mean
from dpsjax.grpo.kl import k3
from dpsjax.policy import Rollouts
from tests.inputs.wrong import Row, complaints

B, G, T, P = 2, 4, 3, 2
F = np.float32
MESH = grpo.make_mesh(devices=jax.devices()[:1])
CONFIG = grpo.GRPOConfig(rollouts_per_prompt=G)
OPTIMIZER = grpo.make_optimizer(CONFIG)
WEIGHTS = {"w": np.ones((T, T), F)}
PLACES = {"w": grpo.replicated(MESH)}
GROUPS = {"rewards": np.array([[0, 1, 1, 0], [1, 1, 1, 1]], F), "valid": np.ones((B, G), bool)}
ROLLOUTS = grpo.RolloutBatch(
    index=np.array([0, 3], np.int32),
    prompt=np.ones((B, P), np.int32),
    prompt_mask=np.ones((B, P), bool),
    tokens=np.ones((B, G, T), np.int32),
    mask=np.ones((B, G, T), bool),
    log_probs=np.full((B, G, T), -1, F),
    advantages=np.ones((B, G), F),
    informative=np.ones(B, bool),
    accept=np.ones(B, bool),
    weight=np.ones(B, F),
)
RESPONSES = Rollouts(
    tokens=ROLLOUTS.tokens, mask=ROLLOUTS.mask, log_probs=ROLLOUTS.log_probs, steps=np.int32(T)
)
OF = {
    "index": ROLLOUTS.index,
    "prompt": ROLLOUTS.prompt,
    "prompt_mask": ROLLOUTS.prompt_mask,
    "rewards": GROUPS["rewards"],
    "valid": GROUPS["valid"],
    "accept": ROLLOUTS.accept,
    "weight": ROLLOUTS.weight,
    "advantages": grpo.centered,
}
OWN = {"advantages": grpo.centered, "aggregation": token_mean, "kl_estimator": k3}
LOSS = {**vars(grpo.LossConfig()), **OWN, "recompute_old": True, "sampler_ratio_cap": 2.0}


def log_prob_fn(params, prompt, prompt_mask, tokens, mask):
    kept = jnp.where(mask, -params["w"].sum(), 0)
    return kept, -kept


def updated(**given):
    """Build an update and trace it, on arrays that are concrete; nothing is compiled."""
    run = grpo.make_update(CONFIG, log_prob_fn, OPTIMIZER)
    return jax.eval_shape(lambda: run(WEIGHTS, OPTIMIZER.init(WEIGHTS), **given))


def batch_of(rollouts=RESPONSES, **given):
    return grpo.RolloutBatch.of(**OF | {"rollouts": rollouts} | given)


ROWS = {
    "GRPOConfig": Row(
        grpo.GRPOConfig,
        {**vars(grpo.GRPOConfig()), "mini_batch": 4, "micro_batch": 8},
    ),
    "LossConfig": Row(grpo.LossConfig, LOSS),
    "RolloutBatch": Row(batch_of, {**OF, "rollouts": RESPONSES}, loose=True),
    **{
        f"RolloutBatch, its {name}": Row(
            lambda **given: batch_of(RESPONSES._replace(**given)), {name: value}, loose=True
        )
        for name, value in RESPONSES._asdict().items()
        if name != "steps"
    },
    "batch_rows": Row(grpo.batch_rows, {"config": CONFIG, "prompts": 4, "ways": 3}),
    "group_normalized": Row(grpo.group_normalized, {**GROUPS, "epsilon": 1e-6}, loose=True),
    "centered": Row(grpo.centered, GROUPS, loose=True),
    "leave_one_out": Row(grpo.leave_one_out, GROUPS, loose=True),
    "make_mesh": Row(
        grpo.make_mesh,
        {"data": 2, "fsdp": 2, "tensor": 2, "devices": tuple(jax.devices()[:8])},
    ),
    "batch_sharding": Row(grpo.batch_sharding, {"mesh": MESH}),
    "replicated": Row(grpo.replicated, {"mesh": MESH}),
    "optimizer_shardings": Row(
        grpo.optimizer_shardings,
        {"optimizer": OPTIMIZER, "params": WEIGHTS, "param_shardings": PLACES, "mesh": MESH},
        free=frozenset({"params", "param_shardings"}),
    ),
    "jit_update": Row(
        grpo.jit_update,
        {
            "update": grpo.make_update(CONFIG, log_prob_fn, OPTIMIZER),
            "optimizer": OPTIMIZER,
            "params": WEIGHTS,
            "param_shardings": PLACES,
            "mesh": MESH,
            "with_reference": False,
        },
        free=frozenset({"params", "param_shardings"}),
    ),
    "decays": Row(grpo.decays, {"params": WEIGHTS}),
    "make_optimizer": Row(
        grpo.make_optimizer, {"config": CONFIG, "schedule": optax.constant_schedule(1e-3)}
    ),
    "make_update": Row(
        grpo.make_update, {"config": CONFIG, "log_prob_fn": log_prob_fn, "optimizer": OPTIMIZER}
    ),
    "make_update, used": Row(updated, {"batch": ROLLOUTS}),
}
# Types that only annotate, records that updates return, and an estimator that the loop calls.
QUIET = {
    "AdvantageFunction",
    "Advantages",
    "BeliefAdvantages",
    "LogProbFunction",
    "UpdateFunction",
    "UpdateMetrics",
    "denoised",
}


@pytest.mark.parametrize("name", ROWS)
def test_a_wrong_argument_is_named(name):
    assert complaints(ROWS[name]) == []


def test_every_public_name_is_covered():
    assert set(grpo.__all__) - QUIET == {name.split(",")[0] for name in ROWS}
