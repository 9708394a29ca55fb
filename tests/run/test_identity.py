"""A run goes on, or is made again, only from what it was made of."""

import dataclasses
import json
import os

import jax
import pytest
from flax import nnx

from dpsjax.policy import Policy, save_weights
from dpsjax.run import outputs
from dpsjax.run.checkpoint import Saver
from dpsjax.run.identity import identity, switches
from dpsjax.run.position import Position, hash_of
from dpsjax.run.resume import meta_of
from dpsjax.run.run import start
from dpsjax.tasks.countdown import TOKENIZER
from tests.run import tiny


def write_weights(path, seed: int) -> None:
    policy = tiny.MODEL.policy(TOKENIZER.vocab_size)
    save_weights(path, policy, nnx.split(Policy(policy, rngs=nnx.Rngs(seed)))[1])


def open_run(config, **more) -> dict:
    """Start and give the folder back at once: the ``config.json``."""
    start(config, "", print, **more).close()
    return json.loads((config.folder() / outputs.CONFIG).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Settings, record and folder of a run with a checkpoint of no step, and its weights."""
    folder = tmp_path_factory.mktemp("identity")
    write_weights(folder / "base.safetensors", 0)
    model = dataclasses.replace(tiny.MODEL, init=str(folder / "base.safetensors"))
    config = tiny.config(model=model, out=folder / "run")
    started = start(config, "", print)
    record = json.loads((config.folder() / outputs.CONFIG).read_text(encoding="utf-8"))
    (config.folder() / outputs.METRICS).touch()
    written, _ = hash_of(config.folder() / outputs.METRICS)
    saver = Saver(config.folder() / outputs.CHECKPOINTS, config.checkpoint, print)
    position = Position(0, 0, written.hexdigest(), 0.0)
    saver.save(started.state, meta_of(started.run, identity(started.run), position, None))
    saver.close()
    started.close()
    return config, record, folder


@pytest.fixture
def other_weights(made):
    """Other content under the same name, until the test ends."""
    path = made[2] / "base.safetensors"
    before = path.read_bytes()
    write_weights(path, 1)
    yield path
    path.write_bytes(before)


def test_a_run_that_is_as_it_was_goes_on_and_is_repeated(made, tmp_path):
    config, record, _ = made
    assert set(record["inputs"]) == {"data", "weights", "difficulty"}
    assert open_run(config)["inputs"] == record["inputs"]
    again = dataclasses.replace(config, out=tmp_path / "again")
    assert open_run(again, recorded=record["inputs"])["inputs"] == record["inputs"]


def test_other_weights_under_the_same_name_are_refused(made, other_weights, tmp_path):
    config, record, _ = made
    again = dataclasses.replace(config, out=tmp_path / "again")
    with pytest.raises(ValueError, match=r"^the weights of this run are not .*base\.safetensors'"):
        open_run(again, recorded=record["inputs"])
    assert not again.folder().exists()
    with pytest.raises(
        ValueError, match=r"(?s)run holds a run that differs.*\n  weights: '\w{64}'"
    ):
        open_run(config)
    assert open_run(config, allow=["weights"])["inputs"]["weights"] != record["inputs"]["weights"]


@pytest.mark.parametrize("names", [["data"], ["data", "weights"], ["difficulty"]])
def test_each_input_that_differs_is_named(made, tmp_path, names):
    """As when the package that makes the problems is another."""
    config, record, _ = made
    recorded = record["inputs"] | dict.fromkeys(names, "0" * 64)
    again = dataclasses.replace(config, out=tmp_path / "again")
    with pytest.raises(ValueError, match=f"^the {' and the '.join(names)} of this run are not"):
        open_run(again, recorded=recorded)


@pytest.fixture
def switched():
    """Set switches of JAX until the test ends."""
    before = {}

    def switch(name, value):
        before.setdefault(name, getattr(jax.config, name))
        jax.config.update(name, value)

    yield switch
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("jax_enable_x64", False),
        ("jax_default_matmul_precision", "float32"),
        ("jax_default_prng_impl", "rbg"),
        ("jax_numpy_dtype_promotion", "standard"),
    ],
)
def test_a_switch_that_changes_results_is_that_of_the_record(made, switched, name, value):
    config, record, _ = made
    assert record["jax"] == switches()
    was = record["jax"][name]
    switched(name, value)
    expected = rf"\n  jax\.{name}: {was!r} in the checkpoint, {value!r} now"
    with pytest.raises(ValueError, match=rf"(?s)differs from this one:{expected}\nrepeat"):
        open_run(config)


def test_options_of_the_compiler_count_unless_they_change_nothing(made, monkeypatch):
    config, _, _ = made
    flags = os.environ["XLA_FLAGS"]
    monkeypatch.setenv("XLA_FLAGS", f"{flags} --xla_dump_to=/nowhere")
    open_run(config)
    monkeypatch.setenv("XLA_FLAGS", f"{flags} --xla_cpu_enable_fast_math=true")
    with pytest.raises(ValueError, match=r"(?s)jax\.xla_flags: .* now.*fast_math|fast_math.*now"):
        open_run(config)
