"""GRPO: advantages, the clipped loss, the update of one batch of rollouts, and its sharding."""

import dpsjax.extras.train  # says what is missing
from dpsjax.grpo.advantages import (
    AdvantageFunction,
    Advantages,
    BeliefAdvantages,
    centered,
    denoised,
    group_normalized,
    leave_one_out,
)
from dpsjax.grpo.batch import RolloutBatch, batch_rows
from dpsjax.grpo.config import GRPOConfig, LossConfig
from dpsjax.grpo.mesh import (
    batch_sharding,
    jit_update,
    make_mesh,
    optimizer_shardings,
    replicated,
)
from dpsjax.grpo.optimizer import decays, make_optimizer
from dpsjax.grpo.update import LogProbFunction, UpdateFunction, UpdateMetrics, make_update

__all__ = [
    "AdvantageFunction",
    "Advantages",
    "BeliefAdvantages",
    "GRPOConfig",
    "LogProbFunction",
    "LossConfig",
    "RolloutBatch",
    "UpdateFunction",
    "UpdateMetrics",
    "batch_rows",
    "batch_sharding",
    "centered",
    "decays",
    "denoised",
    "group_normalized",
    "jit_update",
    "leave_one_out",
    "make_mesh",
    "make_optimizer",
    "make_update",
    "optimizer_shardings",
    "replicated",
]
