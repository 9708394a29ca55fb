"""How many rollouts a prompt gets, and what waits between rollouts and update."""

from dpsjax.rollouts.budget import (
    allocate_greedy,
    allocate_proportional,
    knapsack,
    knapsack_value,
    max_variance_subset,
    quotas,
    vip_allocate,
)
from dpsjax.rollouts.buffer import Buffer, init_buffer, push, take

__all__ = [
    "Buffer",
    "allocate_greedy",
    "allocate_proportional",
    "init_buffer",
    "knapsack",
    "knapsack_value",
    "max_variance_subset",
    "push",
    "quotas",
    "take",
    "vip_allocate",
]
