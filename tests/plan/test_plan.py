"""Plans: what is exact, what is advised, what is written; and once with the real TPU compiler."""

import importlib.util
import json
import threading
import time

import jax
import pytest

from dpsjax import cli
from dpsjax.plan import compiler, planner
from dpsjax.plan.chips import parse_slice
from dpsjax.plan.choose import choose
from dpsjax.plan.command import JobOptions, paper_spec
from dpsjax.plan.cost import Comparison, Efficiency, program_seconds, saving
from dpsjax.plan.estimate import cache_bytes, estimate, weight_copy_bytes
from dpsjax.plan.hlo import Traffic
from dpsjax.plan.job import Axes, Job, parse_mesh
from dpsjax.plan.planner import estimated_plan, make_plan
from dpsjax.plan.programs import trace
from dpsjax.plan.report import advice

WORDS = ["plan", "--model", "qwen2.5-0.5b", "--topology"]
WIDE = Axes(1, 128, 2)


def seven(axes=WIDE, micro_batch=128, waves=1, **compute):
    """The paper's step with a model of seven billion parameters."""
    return Job(paper_spec("qwen2.5-7b", **compute), axes).with_turns(micro_batch, waves)


@pytest.fixture(scope="module")
def fitting():
    where = parse_slice("v5e-256")
    return estimated_plan(choose(seven(), where), where)


def test_parameters_optimizer_and_operations_are_those_of_the_shapes():
    job = seven()
    traced, held = trace(job)
    assert list(traced) == ["select", "generate", "offer", "take", "update"]
    ideal = 4 * job.spec.policy.num_params() / 256
    # a few small parameters are not divided
    assert ideal < held.parameters < 1.01 * ideal
    assert held.optimizer == 2 * held.parameters + 4  # and a counter
    assert held.reference == 0
    # two operations a parameter and token, but for the embedding; attention comes on top
    decoded = 2 * (job.spec.policy.num_params() - 152064 * 3584) * 256 * 8 * 8192 / 256
    assert decoded < traced["generate"].flops < 1.5 * decoded


def test_the_cache_is_exact():
    job = seven(waves=2)
    # 28 layers, 2 of 4 heads of 128, keys and values of 2 bytes, 2 prompts with 4 of 8 responses
    assert cache_bytes(job) == 28 * 2 * 128 * 2 * 2 * 2 * (4 * 8192 + 1024)
    assert weight_copy_bytes(job) == job.spec.policy.num_params()


def test_seven_billion_fit_the_stated_slice(fitting):
    assert fitting.fits and advice(fitting) == []
    assert fitting.peak < fitting.where.chip.usable_bytes
    assert 0 < fitting.selection_share < 1e-3


def test_more_of_anything_needs_more_memory():
    few, many = seven(), seven(micro_batch=512)
    assert estimate(many)["update"].temporary > estimate(few)["update"].temporary
    one, four = (estimate(job)["generate"] for job in (few, seven(waves=4)))
    assert four.temporary < one.temporary and four.traffic.memory > one.traffic.memory
    assert estimate(seven(remat="none"))["update"].temporary > estimate(few)["update"].temporary
    divided = seven(decode_weights="sharded")
    assert estimate(divided)["generate"].temporary < one.temporary


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"remat": "none"}, "--remat full"),
        ({"micro_batch": 1024}, "--micro-batch 128"),
        ({"query_chunk": 0, "micro_batch": 512}, "--query-chunk 128"),
        ({"axes": Axes(1, 64, 1), "micro_batch": 64}, "--waves 2"),
        ({"axes": Axes(1, 64, 1), "micro_batch": 64, "waves": 8}, "tensor=2"),
        ({"axes": Axes(128, 1, 2)}, "fsdp=128,tensor=2"),
    ],
)
def test_advice_names_what_helps(changes, words):
    job = seven(**changes)
    where = parse_slice("v5e-256" if job.axes.devices == 256 else "v5e-64")
    plan = estimated_plan(job, where)
    assert not plan.fits
    assert any(words in line for line in advice(plan)), advice(plan)
    of_train = " ".join(advice(plan, train=True))
    assert "--model." in of_train or "--grpo." in of_train or "--mesh." in of_train


def test_what_cannot_be_divided_is_refused():
    with pytest.raises(ValueError, match=r"micro_batch=96 sequences does not divide"):
        seven(micro_batch=96)
    with pytest.raises(ValueError, match=r"model\.waves=3 must divide rollouts_per_prompt=8"):
        paper_spec("qwen2.5-7b", waves=3)
    with pytest.raises(ValueError, match=r"mini_batch=100 must divide"):
        Job(paper_spec("qwen2.5-7b", JobOptions(mini_batch=100)), WIDE)
    with pytest.raises(ValueError, match=r"pool of"):
        paper_spec("qwen2.5-7b", JobOptions(pool=100))
    with pytest.raises(ValueError, match=r"is 512 devices, and the slice has 256"):
        parse_mesh("data=2,fsdp=256", 256)
    with pytest.raises(ValueError, match=r"write axes as"):
        parse_mesh("model=4", 256)
    assert parse_mesh("data=2,tensor=4", 256) == (2, 32, 4)


def test_rows_that_only_fill_up_a_batch_are_said(capsys):
    cli.main([*WORDS, "v5e-256", "--estimate", "--mesh", "fsdp=256", "--mini-batch", "256"])
    assert "padding" not in capsys.readouterr().out
    words = ["--prompts", "128", "--mesh", "fsdp=256", "--micro-batch", "256"]
    cli.main([*WORDS, "v5e-256", "--estimate", *words])
    assert "128 of 256 rows of a batch are empty" in capsys.readouterr().out


def test_seconds_are_those_of_the_slowest_resource():
    chip = parse_slice("v5e-64").chip
    half = Efficiency(compute=0.5, memory=0.5, links=0.5, launch=0.0)
    traffic = Traffic(819e9, {"all-gather": 100e9, "all-reduce": 200e9})
    seconds = program_seconds(197e12, traffic, chip, half)
    assert (seconds.compute, seconds.memory, seconds.links) == pytest.approx((2.0, 2.0, 3.0))
    assert seconds.least == pytest.approx(3.0) and seconds.most == pytest.approx(7.0)
    assert seconds.limit == "links"
    with pytest.raises(ValueError, match=r"efficiency\.memory=0"):
        Efficiency(memory=0.0)


def test_ds_generates_more_and_dps_steps_more_often():
    seconds = {"select": 1.0, "generate": 10.0, "update": 7.0}
    gain = saving(seconds, Comparison(ds_factor=3.0, dps_effective=0.5))
    assert gain == (36.0, 37.0, 37.0 / 36.0)
    with pytest.raises(ValueError, match=r"ds_factor=0\.5"):
        Comparison(ds_factor=0.5)


def test_the_command_estimates_and_writes(tmp_path, capsys):
    file = tmp_path / "deep" / "plan.json"
    assert cli.main([*WORDS, "v5e:4x4", "--estimate", "--json", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "fits" in shown and "(estimated)" in shown
    written = json.loads(file.read_text())
    assert written["fits"] and written["advice"] == [] and written["chips"] == 16
    assert written["num_params"] == 494_032_768
    for name in ("parameter", "optimizer", "kv_cache", "activation", "peak", "usable"):
        assert written[f"{name}_bytes"] > 0
    assert list(written["programs"]) == ["select", "generate", "offer", "take", "update"]
    for row in written["programs"].values():
        assert row["source"] == "estimated"
        assert row["seconds"]["overlapped"] <= row["seconds"]["in_sequence"]
    assert 0 < written["selection_share"] < 1
    assert written["dps_against_ds"]["factor"] > 1


def test_the_command_says_what_does_not_fit(capsys):
    code = cli.main(["plan", "--model", "qwen2.5-32b", "--topology", "v5e:2x4", "--estimate"])
    shown = capsys.readouterr().out
    assert code == cli.DOES_NOT_FIT == 3
    assert "does NOT fit" in shown and "advice:" in shown


def test_without_the_compiler_the_command_names_the_extra(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert cli.main([*WORDS, "v5e:4x4"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "pip install 'dpsjax[plan]'" in shown and "estimated from shapes" in shown


def test_mistakes_are_named(capsys):
    assert cli.main([*WORDS, "v5e:4x4x4"]) == cli.BAD_INPUT
    assert "a v5e slice has 2 sides" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(SystemExit) as exit_:
        cli.main(["plan", "--help"])
    assert exit_.value.code == 0
    shown = capsys.readouterr().out
    assert "--response-len" in shown and "TPU compiler" in shown


@pytest.mark.slow
def test_the_tpu_compiler_agrees_with_the_shapes(capsys, tmp_path):
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("the TPU compiler is not installed: pip install 'dpsjax[plan]'")
    values = {
        "model_type": "qwen2",
        "vocab_size": 1024,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    }
    (tmp_path / "config.json").write_text(json.dumps(values))
    job = "--prompts 8 --group 4 --prompt-len 128 --response-len 256 --mini-batch 8 --pool 4096"
    words = ["plan", "--model", str(tmp_path), "--topology", "v5e:2x2", *job.split()]
    words += ["--minutes", "30"]
    file = tmp_path / "plan.json"
    # x64 is on in the tests, and the TPU has none of it
    with jax.enable_x64(False):
        assert cli.main([*words, "--mesh", "fsdp=4", "--json", str(file)]) == 0
    plan = json.loads(file.read_text())
    if plan["programs"]["update"]["source"] == "estimated":
        pytest.skip(f"the TPU compiler is busy: {capsys.readouterr().out}")
    update, generation = plan["programs"]["update"], plan["programs"]["generate"]
    assert update["source"] == generation["source"] == "compiled"
    held = plan["parameter_bytes"] + plan["optimizer_bytes"]
    assert held < update["peak_bytes"] < 1e9
    # weights are gathered over four chips and gradients added up
    assert update["collective_bytes"]["all-gather"] > 2 * 2 * plan["num_params"] * 0.5
    assert update["flops"] > update["xla_each_loop_once"]["flops"] * 0.5
    cache = plan["kv_cache_bytes"]
    assert generation["temporary_bytes"] > cache
    # decoding reads the cache in each of 256 steps (this small one may stay inside the chip)
    assert generation["flops"] > 256 * 2 * plan["num_params"] * 8 * 4 / 4 * 0.5


@pytest.fixture
def stuck(monkeypatch):
    """A compiler that does not come to an end, and a way out of the interpreter."""
    ended, left = threading.Event(), []

    class Lowered:
        def compile(self):
            ended.wait(60)

    class Traced:
        def lower(self, lowering_platforms):
            return Lowered()

    def traced(job, mesh):
        programs, stays = trace(job)
        return {n: p._replace(traced=Traced()) for n, p in programs.items()}, stays

    monkeypatch.setattr(planner, "trace", traced)
    monkeypatch.setattr(compiler, "topology_mesh", lambda where, axes: None)
    monkeypatch.setattr(compiler, "_unfinished", [])
    monkeypatch.setattr(cli.os, "_exit", left.append)
    yield left
    ended.set()


def test_nobody_waits_for_a_compiler_for_ever(stuck, capsys):
    start = time.monotonic()
    assert cli.main([*WORDS, "v5e:4x4", "--minutes", "0.02"]) == 0 and stuck == [0]
    shown = " ".join(capsys.readouterr().out.split())
    assert time.monotonic() - start < 60
    assert "at most 0.02 minutes (--minutes); --estimate answers at once" in shown
    assert "update: not compiled within 0.02 minutes, estimated instead" in shown
    assert compiler.is_abandoned()


def test_what_cannot_fit_at_all_is_not_compiled(stuck):
    job = Job(paper_spec("qwen2.5-0.5b", JobOptions(prompts=64, mini_batch=64)), Axes(1, 8, 1))
    assert job.micro_batch == 512
    plan = make_plan(job, parse_slice("v5e:2x4"), minutes=0.001)
    assert "update: not compiled, for by the estimate it is far from fitting" in plan.notes
    assert not plan.fits


def test_the_compilers_refusal_is_read():
    message = "total memory required for HLO temporaries (3.09T) exceeds available HBM (15.75G)"
    assert compiler.refused_bytes(message) == int(3.09 * (1 << 40))
    assert compiler.refused_bytes("Used 16.50G of 15.75G hbm") == int(16.5 * (1 << 30))
    assert compiler.refused_bytes("no figure") == 0
