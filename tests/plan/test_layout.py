"""What is planned is what runs, and what planning finds is what is trained with."""

import dataclasses
import json

import jax
import pytest

from dpsjax import cli
from dpsjax.grpo import GRPOConfig
from dpsjax.plan import layout
from dpsjax.plan.chips import CHIPS, GIB, Slice, parse_slice
from dpsjax.plan.flops import matmul_flops
from dpsjax.plan.job import Job
from dpsjax.plan.planner import estimated_plan
from dpsjax.plan.programs import trace
from dpsjax.run.config import MeshConfig, ModelConfig, TrainConfig
from dpsjax.run.selector_settings import settings
from dpsjax.run.setup import prepare
from tests.run import tiny

SMALL = [
    *("--steps", "1", "--prompts", "8", "--task.problems", "32", "--task.held-out", "16"),
    *("--evaluation.problems", "8", "--evaluation.samples", "1", "--grpo.rollouts-per-prompt", "4"),
    *("--init", "random", "--model.layers", "1", "--selector", "uniform"),
]


@pytest.mark.parametrize(
    "changes",
    [
        {"mesh": MeshConfig(data=1, fsdp=2, tensor=2), "selector": settings("dps")},
        {"selector": settings("speed", screen=2, rest=2), "grpo": tiny.grpo(kl_coefficient=0.1)},
    ],
)
def test_what_is_planned_is_what_runs(changes):
    """The run's own stages, fed its own shapes, are lowered to the text that is planned."""
    config = tiny.config(**changes)
    run, _ = prepare(config)
    traced, stays = trace(Job(*layout.spec_and_axes(config, run.mesh.size)))
    stages = ["select", "generate", "offer", "take", "rest", "update"]
    assert list(traced) == [name for name in stages if getattr(run.stages, name) is not None]
    for name, program in traced.items():
        with jax.set_mesh(run.mesh):
            ran = getattr(run.stages, name).lower(*run.stages.shapes[name])
        planned = program.traced.lower(lowering_platforms=("cpu",))
        assert planned.as_text() == ran.as_text(), name
        own = getattr(run.stages, name).trace(*run.stages.shapes[name])
        loops = 8 if name in ("generate", "rest") else 1
        assert program.flops == matmul_flops(own.jaxpr, loops) / run.mesh.size, name
    assert (stays.reference > 0) == (config.grpo.loss.kl_coefficient > 0)


def test_the_settings_of_a_run_decide_its_plan(capsys, tmp_path):
    file = tmp_path / "plan.json"
    words = ["train", "countdown", *SMALL, "--mesh.fsdp", "4", "--grpo.micro-batch", "8"]
    words += ["--plan", "v5e:2x4", "--plan.estimate", "--plan.json", str(file)]
    assert cli.main([*words, "--out", str(tmp_path / "none")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "countdown, uniform, model random" in shown and "DPS" not in shown
    plan = json.loads(file.read_text(encoding="utf-8"))
    assert plan["job"]["prompts"] == 8 and plan["job"]["response_len"] == 14
    assert plan["job"]["pool"] == 32
    assert plan["layout"] | {"data": 2, "fsdp": 4, "tensor": 1, "micro_batch": 8} == plan["layout"]
    assert not (tmp_path / "none").exists()
    assert cli.main([*words, "--layout", "auto"]) == 0
    assert json.loads(file.read_text(encoding="utf-8"))["layout"]["fsdp"] == 4
    assert cli.main([*words, "--mesh.tensor", "4"]) == cli.BAD_INPUT
    assert "needs 16 devices, and there are 8" in " ".join(capsys.readouterr().err.split())


def test_auto_sets_what_planning_finds_and_a_repetition_keeps_it(capsys, tmp_path):
    """On eight CPU devices; the record holds the choice, and options that repeat it."""
    out = tmp_path / "run"
    words = ["train", "countdown", *SMALL, "--layout", "auto", "--out", str(out)]
    assert cli.main(words) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "layout: mesh.data=1 mesh.fsdp=4 mesh.tensor=2 on 8 devices (cpu)" in shown
    record = json.loads((out / "config.json").read_text(encoding="utf-8"))["config"]
    assert record["mesh"] == {"data": 1, "fsdp": 4, "tensor": 2}
    again = cli.parse_train(["--from", str(out / "config.json")])
    assert again.layout == "set" and again.config.mesh == MeshConfig(data=1, fsdp=4, tensor=2)
    assert cli.main([*words, "--steps", "2"]) == 0  # continues


@pytest.mark.parametrize(("recorded", "micro"), [(8, 8), (None, None)])
def test_a_run_goes_on_with_its_own_micro_batch(recorded, micro, tmp_path):
    config = TrainConfig(out=tmp_path, model=ModelConfig(init="random"))
    record = {"model": {"waves": 2}, "grpo": {"micro_batch": recorded}}
    (tmp_path / "config.json").write_text(json.dumps({"config": record}), encoding="utf-8")
    found, _ = layout.auto_layout(config)
    assert (found.grpo.micro_batch, found.model.waves) == (micro, 2)
    assert layout.auto_layout(config, restart=True)[0].model.waves == 1


def test_one_cpu_device_has_nothing_to_lay_out(monkeypatch):
    one = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda: one)
    config, sentence = layout.auto_layout(TrainConfig())
    assert config == TrainConfig() and "one CPU device" in sentence


def test_what_is_set_stays_and_the_rest_fits():
    """A chip too small for one micro-batch gets smaller ones, in which the run is the same."""
    config = TrainConfig(grpo=GRPOConfig(), model=ModelConfig(init="random"))
    roomy = layout.chosen(config, parse_slice("v5e:2x2"))
    assert roomy.grpo.micro_batch is None and roomy.mesh.data == 1
    small = Slice(CHIPS["v5e"]._replace(usable_bytes=20 << 20), "2x2", 4)
    found = layout.chosen(config, small)
    assert found.grpo.micro_batch is not None and found.grpo.micro_batch < 32 * 8
    spec, axes = layout.spec_and_axes(found, 4)
    assert estimated_plan(Job(spec, axes), small).fits
    given = dataclasses.replace(config, mesh=MeshConfig(data=2, tensor=2), grpo=GRPOConfig())
    assert layout.chosen(given, parse_slice("v5e:2x4")).mesh == MeshConfig(2, 2, 2)


def test_devices_at_hand_are_those_of_the_table_where_it_has_them():
    class Device:
        process_index, platform = 0, "tpu"

        def __init__(self, kind, limit=None):
            self.device_kind, self.limit = kind, limit

        def memory_stats(self):
            return None if self.limit is None else {"bytes_limit": self.limit}

    assert layout.slice_at_hand([Device("TPU v5 lite", 7)] * 8) == Slice(CHIPS["v5e"], "8", 8)
    card = layout.slice_at_hand([Device("NVIDIA H200", 139 * GIB)])
    assert card.chip.name == "NVIDIA H200" and card.chip.usable_bytes == 139 * GIB
    host = layout.slice_at_hand(jax.devices())
    assert host.size == len(jax.devices()) and host.chip.usable_bytes > 1 << 26
