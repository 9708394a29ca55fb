"""The settings of a run, made in Python; the command line and JSON check types before."""

import pytest

from dpsjax.run import sections
from dpsjax.run.config import TrainConfig
from dpsjax.tasks import countdown, geometry, operators
from tests.inputs.wrong import Row, complaints

TASK = countdown.CountdownConfig(problems=64, held_out=16)
# Sections that are given whole; their own numbers have rows of their own.
WHOLE = {
    "rollout",
    "model",
    "selector",
    "task",
    "grpo",
    "evaluation",
    "mesh",
    "checkpoint",
    "responses",
}
ROWS = {
    "TrainConfig": Row(
        TrainConfig,
        {name: value for name, value in vars(TrainConfig()).items() if name not in WHOLE | {"out"}},
    ),
    "RolloutConfig": Row(
        sections.RolloutConfig, {**vars(sections.RolloutConfig()), "keep": 4, "workers": 2}
    ),
    "EvaluationConfig": Row(sections.EvaluationConfig, vars(sections.EvaluationConfig())),
    "ResponsesConfig": Row(sections.ResponsesConfig, vars(sections.ResponsesConfig())),
    "MeshConfig": Row(sections.MeshConfig, vars(sections.MeshConfig())),
    "CheckpointConfig": Row(sections.CheckpointConfig, vars(sections.CheckpointConfig())),
    "ModelConfig": Row(
        lambda **given: sections.ModelConfig(**given).policy(8),
        {**vars(sections.ModelConfig()), "template": ("enable_thinking=false",), "max_pixels": 784},
    ),
    "CountdownConfig": Row(
        lambda **given: countdown.CountdownConfig(**given).build(),
        {**vars(TASK), "data_seed": 0},
        free=frozenset({"data_seed"}),
    ),
    "GeometryConfig": Row(
        lambda **given: geometry.GeometryConfig(**given).build(),
        vars(geometry.GeometryConfig(problems=6, held_out=6)),
        free=frozenset({"data_seed"}),
    ),
    "OperatorsConfig": Row(
        lambda **given: operators.OperatorsConfig(**given).build(),
        {**vars(operators.OperatorsConfig(problems=64, held_out=16)), "data_seed": 0},
        free=frozenset({"data_seed", "tables"}),
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_wrong_setting_is_named(name):
    assert complaints(ROWS[name]) == []
