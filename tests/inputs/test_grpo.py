"""Every public name of dpsjax.grpo."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dpsjax.grpo import advantages, batch, config, losses, mesh, optimizer, update
from dpsjax.policy.sharding import MESH_AXES
from tests.inputs.wrong import Row, complaints, public

B, G, T, P = 2, 4, 3, 2
F = np.float32
MESH = mesh.make_mesh(devices=jax.devices()[:1])
CONFIG = config.GRPOConfig(rollouts_per_prompt=G)
OPTIMIZER = optimizer.make_optimizer(CONFIG)
WEIGHTS = {"w": np.ones((T, T), F)}
PLACES = {"w": mesh.replicated(MESH)}
GROUPS = {"rewards": np.array([[0, 1, 1, 0], [1, 1, 1, 1]], F), "valid": np.ones((B, G), bool)}
ROLLOUTS = batch.RolloutBatch(
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
MICRO = batch.MicroBatch(
    prompt=ROLLOUTS.prompt,
    prompt_mask=ROLLOUTS.prompt_mask,
    tokens=ROLLOUTS.tokens,
    mask=ROLLOUTS.mask,
    sampler_log_probs=ROLLOUTS.log_probs,
    advantages=ROLLOUTS.advantages,
    token_weights=np.ones((B, G, T), F),
)
S = B * G
TOKENS = np.full((S, T), -1, F)
MASKED = {"mask": np.ones((S, T), bool), "counted": np.ones(S, bool)}
CLIPS = {"clip_low": 0.2, "clip_high": 0.28, "dual_clip": 10.0}
LOSS = {
    "log_probs": TOKENS,
    "old_log_probs": TOKENS,
    "sampler_log_probs": TOKENS,
    "advantages": np.ones(S, F),
    "mask": MASKED["mask"],
    "token_weights": np.ones((S, T), F),
    "entropy": np.ones((S, T), F),
    "reference_log_probs": TOKENS,
    **CLIPS,
    "entropy_coefficient": 0.001,
    "kl_coefficient": 0.1,
    "kl_estimator": losses.k3,
    "sampler_ratio_cap": 2.0,
}
METRICS = losses.LossMetrics(*np.ones(12, F))


def log_prob_fn(params, prompt, prompt_mask, tokens, mask):
    kept = jnp.where(mask, -params["w"].sum(), 0)
    return kept, -kept


def updated(settings=CONFIG, log_prob_fn=log_prob_fn, optimizer=OPTIMIZER, variant=None, **given):
    """Build an update and trace it, on arrays that are concrete; nothing is compiled."""
    run = update.make_update(settings, log_prob_fn, optimizer, variant or update.Variant())
    arguments = {
        "params": WEIGHTS,
        "opt_state": OPTIMIZER.init(WEIGHTS),
        "batch": ROLLOUTS,
        "reference_params": None,
    }
    return jax.eval_shape(lambda: run(**arguments | given))


ROWS = {
    "advantages.group_normalized": Row(
        advantages.group_normalized, {**GROUPS, "epsilon": 1e-6}, loose=True
    ),
    "advantages.centered": Row(advantages.centered, GROUPS, loose=True),
    "advantages.leave_one_out": Row(advantages.leave_one_out, GROUPS, loose=True),
    "batch.split_rows": Row(
        batch.split_rows, {"tree": np.arange(6), "size": 2}, also={"size": [4]}
    ),
    "batch.join_rows": Row(batch.join_rows, {"tree": np.ones((2, 3))}, loose=True),
    "batch.split_micro": Row(
        batch.split_micro, {"batch": MICRO, "sequences": 4, "ways": 1}, also={"sequences": [3]}
    ),
    "batch.join_micro": Row(
        batch.join_micro, {"values": np.ones((2, 1, G, T), F), "batch_shape": (B, G, T)}, loose=True
    ),
    "batch.numerator_weight": Row(batch.numerator_weight, {"batch": ROLLOUTS}),
    "batch.valid_tokens": Row(batch.valid_tokens, {"batch": ROLLOUTS}),
    "config.GRPOConfig": Row(
        config.GRPOConfig,
        {
            **vars(config.GRPOConfig()),
            "rollouts_per_prompt": 8,
            "mini_batch": 4,
            "micro_batch": 8,
        },
    ),
    "losses.token_mean": Row(losses.token_mean, MASKED),
    "losses.sequence_mean": Row(losses.sequence_mean, MASKED),
    "losses.constant_length": Row(losses.constant_length, MASKED),
    "losses.k1": Row(losses.k1, {"log_probs": TOKENS, "reference": TOKENS}, loose=True),
    "losses.k3": Row(losses.k3, {"log_probs": TOKENS, "reference": TOKENS}, loose=True),
    "losses.clipped_objective": Row(
        losses.clipped_objective,
        {"ratio": np.ones((S, T), F), "advantages": np.ones((S, T), F), **CLIPS},
        loose=True,
    ),
    "losses.policy_loss": Row(losses.policy_loss, LOSS, loose=True),
    "losses.merge": Row(losses.merge, {"stacked": jax.tree.map(lambda x: x[None], METRICS)}),
    "losses.average": Row(losses.average, {"sums": METRICS}),
    "mesh.make_mesh": Row(
        mesh.make_mesh,
        {"data": 2, "fsdp": 2, "tensor": 2, "devices": tuple(jax.devices()[:8])},
    ),
    "mesh.batch_sharding": Row(mesh.batch_sharding, {"mesh": MESH}),
    "mesh.replicated": Row(mesh.replicated, {"mesh": MESH}),
    "mesh.prompt_axis_shardings": Row(
        mesh.prompt_axis_shardings,
        {"tree": {"lane": np.ones(4)}, "mesh": MESH, "num_prompts": 4},
        free=frozenset({"tree"}),
    ),
    "mesh.optimizer_shardings": Row(
        mesh.optimizer_shardings,
        {"optimizer": OPTIMIZER, "params": WEIGHTS, "param_shardings": PLACES, "mesh": MESH},
        free=frozenset({"params", "param_shardings"}),
    ),
    "mesh.jit_update": Row(
        mesh.jit_update,
        {
            "update": update.make_update(CONFIG, log_prob_fn, OPTIMIZER),
            "optimizer": OPTIMIZER,
            "params": WEIGHTS,
            "param_shardings": PLACES,
            "mesh": MESH,
            "with_reference": False,
        },
        free=frozenset({"params", "param_shardings"}),
    ),
    "optimizer.decays": Row(optimizer.decays, {"params": WEIGHTS}),
    "optimizer.make_optimizer": Row(
        optimizer.make_optimizer, {"config": CONFIG, "schedule": optax.constant_schedule(1e-3)}
    ),
    "update.Variant": Row(
        update.Variant,
        {
            "aggregate": losses.token_mean,
            "kl_estimator": losses.k3,
            "recompute_old": True,
            "sampler_ratio_cap": 2.0,
            "count_uninformative": False,
        },
    ),
    "update.make_update": Row(
        update.make_update,
        {
            "config": CONFIG,
            "log_prob_fn": log_prob_fn,
            "optimizer": OPTIMIZER,
            "variant": update.Variant(),
        },
    ),
    "update.make_update, used": Row(updated, {"batch": ROLLOUTS}),
}
FIELDS = {
    name: Row(lambda **given: updated(batch=ROLLOUTS._replace(**given)), {name: value}, loose=True)
    for name, value in ROLLOUTS._asdict().items()
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_wrong_field_of_a_batch_is_named(name):
    assert complaints(FIELDS[name]) == []


@pytest.mark.parametrize("name", ROWS)
def test_a_wrong_argument_is_named(name):
    assert complaints(ROWS[name]) == []


def test_every_public_name_is_covered():
    assert public("dpsjax.grpo") == {f"grpo.{name.split(',')[0]}" for name in ROWS}
    assert MESH.axis_names == MESH_AXES
