import dataclasses

import jax
import numpy as np
import pytest
from rich.console import Console

from dpsjax.policy import load_weights
from dpsjax.run.config import MeshConfig, ModelConfig
from dpsjax.run.position import Position
from dpsjax.run.run import Started, finish
from dpsjax.run.setup import prepare
from tests.run import tiny

pytest.importorskip("qwix", reason="needs the extra: lora")


@pytest.fixture(scope="module")
def adapted():
    model = dataclasses.replace(tiny.MODEL, lora_rank=2, lora_alpha=4.0)
    grpo = tiny.grpo(kl_coefficient=0.01)
    return tiny.easy_run(tiny.config(model=model, grpo=grpo, mesh=MeshConfig(data=1, fsdp=2)))


def test_only_adapters_are_trained_and_have_moments(adapted):
    run, state = adapted
    base = jax.tree.map(np.asarray, run.reference)
    trained = {leaf.size for leaf in jax.tree.leaves(state.params)}
    for leaf in jax.tree.leaves(state.opt_state):
        assert leaf.ndim == 0 or leaf.size in trained
    after, records = tiny.steps(run, state, count=2)
    assert any(record["groups_in_loss"] for record in records)
    assert records[0]["kl"] == pytest.approx(0.0, abs=1e-6)  # the base is the reference
    moved = [np.abs(pair["b"]).max() for pair in after.params["layers"].values()]
    assert min(moved) > 0
    jax.tree.map(np.testing.assert_array_equal, run.reference, base)


def test_the_policy_begins_as_the_base_and_is_written_merged(adapted, tmp_path):
    run, state = adapted
    jax.tree.map(np.testing.assert_array_equal, run.whole(state.params), run.reference)
    run = dataclasses.replace(run, config=dataclasses.replace(run.config, out=tmp_path, steps=1))
    after, _ = tiny.steps(run, state, count=1)
    finish(Started(run, jax.tree.map(jax.numpy.copy, state), Position(), False), Console())
    policy, written = load_weights(tmp_path / "weights.safetensors")
    assert policy == run.policy
    expected = run.whole(after.params)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), written, expected)


@pytest.mark.parametrize("change", [{"lora_rank": -1}, {"lora_alpha": 0.0}])
def test_settings_out_of_range(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        prepare(tiny.config(model=ModelConfig(**change)))
