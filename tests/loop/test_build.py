"""What is planned is what runs: the shapes of a step are those that a run feeds its stages."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, AxisType

from dpsjax.loop.build import build
from dpsjax.loop.step import train_step
from dpsjax.policy.sharding import MESH_AXES
from dpsjax.run.config import MeshConfig
from dpsjax.run.selector_settings import settings
from dpsjax.run.setup import build_task, spec_of
from tests.run import tiny


def watching(run, seen):
    """A run that notes the shapes and shardings of every call of a stage."""

    def noted(name, stage):
        def call(*arguments):
            seen[name] = jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), arguments
            )
            return stage(*arguments)

        return call

    names = [n for n in run.stages.shapes if n != "start" and getattr(run.stages, n) is not None]
    return tiny.with_stages(run, **{n: noted(n, getattr(run.stages, n)) for n in names}), names


@pytest.mark.parametrize(
    ("selector", "changes"),
    [
        (settings("uniform"), {"mesh": MeshConfig(data=2, fsdp=2, tensor=2)}),
        (settings("knapsack", lowest=0, most=6), {}),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                (settings("uniform"), {"grpo": tiny.grpo(kl_coefficient=0.1)}),
                (settings("dynamic-sampling", max_rounds=2), {}),
                (settings("speed", screen=2, rest=2), {"mesh": MeshConfig(data=2)}),
            )
        ),
    ],
)
def test_shapes_are_those_of_a_step(selector, changes):
    seen = {}
    run, state = tiny.easy_run(tiny.config(selector=selector, **changes))
    run, names = watching(run, seen)
    train_step(run, jax.tree.map(jnp.copy, state))
    assert set(names) == set(seen)
    for name in names:
        planned, fed = run.stages.shapes[name], seen[name]
        assert jax.tree.structure(planned) == jax.tree.structure(fed), name
        for (path, wanted), got in zip(
            jax.tree.leaves_with_path(planned), jax.tree.leaves(fed), strict=True
        ):
            where = name, jax.tree_util.keystr(path)
            assert (wanted.shape, wanted.dtype) == (got.shape, got.dtype), where
            if run.mesh.size > 1 and not jnp.issubdtype(got.dtype, jax.dtypes.prng_key):
                assert got.sharding.is_equivalent_to(wanted.sharding, got.ndim), where


def test_every_stage_lowers_without_an_array():
    """For a mesh of no devices in particular, and for the selector and the policy of settings."""
    chosen = tiny.config(selector=settings("speed", screen=2, rest=2))
    task = build_task(chosen)
    policy = chosen.model.policy(task.tokenizer.vocab_size)
    mesh = AbstractMesh((2, 2, 1), MESH_AXES, axis_types=(AxisType.Auto,) * 3)
    with jax.sharding.use_abstract_mesh(mesh):
        stages = build(spec_of(chosen, task, policy), mesh)
        for name in ("start", "select", "generate", "rest", "offer", "take", "update"):
            traced = getattr(stages, name).trace(*stages.shapes[name])
            assert traced.lower(lowering_platforms=("tpu",)).as_text()
