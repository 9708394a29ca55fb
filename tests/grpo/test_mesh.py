"""The sharded update on eight devices against one device, with the real policy."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

from dpsjax.grpo import (
    GRPOConfig,
    LossConfig,
    RolloutBatch,
    batch_rows,
    batch_sharding,
    decays,
    jit_update,
    make_mesh,
    make_optimizer,
    make_update,
    optimizer_shardings,
    replicated,
)
from dpsjax.policy import Policy, PolicyConfig, shardings, token_log_probs
from tests.grpo import stand_in
from tests.grpo.stand_in import largest_difference

B, G, T, P = 8, 4, 5, 4
SHAPE = PolicyConfig(
    vocab_size=16, width=16, mlp_width=32, layers=1, heads=4, kv_heads=2, head_dim=4,
    attention_bias=True,
)  # fmt: skip
CONFIG = GRPOConfig(rollouts_per_prompt=G, learning_rate=1e-3, mini_batch=4, micro_batch=2 * G)
WITH_KL = dataclasses.replace(CONFIG, loss=LossConfig(kl_coefficient=0.01))
OPTIMIZER = make_optimizer(CONFIG)
STEPS = 5


def make_batch(seed):
    rng = np.random.default_rng(seed)
    prompt_mask = np.arange(P) >= rng.integers(0, P - 1, (B, 1))
    return RolloutBatch(
        index=jnp.asarray(np.where(np.arange(B) == 3, -1, np.arange(B)), jnp.int32),
        prompt=jnp.asarray(rng.integers(1, 16, (B, P)), jnp.int32),
        prompt_mask=jnp.asarray(prompt_mask),
        tokens=jnp.asarray(rng.integers(1, 16, (B, G, T)), jnp.int32),
        mask=jnp.asarray(np.arange(T) < rng.integers(1, T + 1, (B, G, 1))),
        # A fresh policy is nearly uniform; 0.2 nats of noise let the clips act.
        log_probs=jnp.asarray(rng.normal(-np.log(16), 0.2, (B, G, T)), jnp.float32),
        advantages=jnp.asarray(rng.normal(0, 1, (B, G)), jnp.float32),
        informative=jnp.asarray(np.arange(B) != 5),
        accept=jnp.ones(B, bool),
        weight=jnp.ones(B, jnp.float32),
    )


@pytest.fixture(scope="module")
def policy():
    """Parameters, and the policy as a function of them."""
    graph, params = nnx.split(Policy(SHAPE, rngs=nnx.Rngs(0)))

    def log_prob_fn(params, prompt, prompt_mask, tokens, mask):
        return token_log_probs(nnx.merge(graph, params), prompt, prompt_mask, tokens, mask)

    return params, log_prob_fn


@pytest.fixture(scope="module")
def batches():
    return [make_batch(seed) for seed in range(STEPS)]


def train(step, params, state, batches, reference):
    """Parameters, optimizer state and metrics after each batch; checks that buffers are reused."""
    results = []
    for batch in batches:
        given = (params, state)
        params, state, metrics = step(params, state, batch, reference)
        assert all(x.is_deleted() for x in jax.tree.leaves(given))
        results.append(metrics)
    return params, state, results


@pytest.mark.parametrize(
    ("axes", "config"),
    [((2, 2, 2), CONFIG), pytest.param((1, 8, 1), WITH_KL, marks=pytest.mark.slow)],
)
def test_eight_devices_give_the_result_of_one(policy, batches, axes, config):
    start, log_prob_fn = policy
    update = make_update(config, log_prob_fn, OPTIMIZER)
    reference = start if config.loss.kl_coefficient else None
    single = jax.jit(update, donate_argnums=(0, 1))
    params = jax.tree.map(jnp.copy, start)
    one = train(single, params, OPTIMIZER.init(params), batches, reference)

    mesh = make_mesh(*axes)
    placement = shardings(start, mesh)
    step = jit_update(
        update, OPTIMIZER, start, placement, mesh, with_reference=reference is not None
    )
    params = jax.tree.map(jnp.copy, jax.device_put(start, placement))
    reference = None if reference is None else jax.device_put(start, placement)
    state = OPTIMIZER.init(start)
    state = jax.device_put(state, optimizer_shardings(OPTIMIZER, start, placement, mesh))
    spread = jax.device_put(batches, batch_sharding(mesh))
    with jax.set_mesh(mesh):
        eight = train(step, params, state, spread, reference)

    assert step._cache_size() == 1
    chex.assert_trees_all_close(eight[2], one[2], rtol=2e-4, atol=1e-5)
    assert largest_difference(*jax.device_get((eight[:2], one[:2]))) < 1e-4
    assert largest_difference(*jax.device_get((eight[0], start))) > 1e-3
    assert all(m.skipped_nonfinite == m.skipped_empty == 0 for m in one[2])
    for x, sharding in zip(jax.tree.leaves(eight[0]), jax.tree.leaves(placement), strict=True):
        assert x.sharding.is_equivalent_to(sharding, x.ndim)


def padded(batch, rows):
    """Rows of garbage behind the prompts."""
    short = rows - batch.index.shape[0]
    tail = jax.tree.map(lambda x: jnp.repeat(x[:1], short, axis=0), batch)
    tail = tail._replace(index=jnp.full(short, -1, jnp.int32), log_probs=tail.log_probs * jnp.nan)
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), batch, tail)


@pytest.mark.parametrize(("prompts", "mini"), [(4, 2), pytest.param(8, 2, marks=pytest.mark.slow)])
def test_padding_does_not_reach_the_mini_batches(prompts, mini):
    """The same optimizer steps on the same prompts, whatever the number of devices."""
    config = GRPOConfig(rollouts_per_prompt=stand_in.G, mini_batch=mini, learning_rate=0.1)
    optimizer = make_optimizer(config)
    update = make_update(config, stand_in.log_prob_fn, optimizer)
    start, batch = stand_in.params(jnp.float64), stand_in.batch(jnp.float64)
    batch = stand_in.rows(batch, np.arange(prompts))
    found = {}
    for ways in (1, 3, 8):
        mesh = make_mesh(data=ways, devices=jax.devices()[:ways])
        step = jit_update(update, optimizer, start, shardings(start, mesh), mesh)
        given = padded(batch, batch_rows(config, prompts, ways))
        assert given.index.shape[0] % ways == 0
        params = jax.tree.map(jnp.copy, start)  # donated
        places = replicated(mesh), replicated(mesh), batch_sharding(mesh)
        given = jax.device_put((params, optimizer.init(params), given), places)
        # These programs run for microseconds and take seconds to optimise.
        quick = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
        new, _, metrics = step.lower(*given, None).compile(quick)(*given, None)
        found[ways] = jax.device_get((new, metrics))
    number = prompts // (mini or prompts)
    for new, metrics in found.values():
        assert (metrics.steps, metrics.groups, metrics.skipped_empty) == (number, prompts, 0)
        assert largest_difference(new, found[1][0]) < 1e-12
        chex.assert_trees_all_close(metrics, found[1][1], rtol=1e-6)
    assert largest_difference(found[1][0], start) > 0.05


def test_parameters_and_moments_are_divided_alike(policy):
    start, _ = policy
    mesh = make_mesh(2, 2, 2)
    placement = shardings(start, mesh)
    moments = optimizer_shardings(OPTIMIZER, start, placement, mesh)
    specs = [s.spec for s in jax.tree.leaves(moments)]
    expected = [s.spec for s in jax.tree.leaves(placement)]
    divided = [spec for spec in expected if any(spec)]
    assert len(divided) >= 8
    # Adam keeps two moments per parameter, and a counter.
    assert specs == [PartitionSpec(), *expected, *expected]


def test_norms_and_biases_of_the_real_policy_do_not_decay(policy):
    flags = {
        jax.tree_util.keystr(path, simple=True, separator="/"): flag
        for path, flag in jax.tree_util.tree_leaves_with_path(decays(policy[0]))
    }
    kept = {name for name, flag in flags.items() if not flag}
    assert kept and all("norm" in name or "bias" in name for name in kept)
    assert not any("norm" in name or "bias" in name for name in set(flags) - kept)
    assert any("embed" in name for name in set(flags) - kept)


@dataclasses.dataclass(frozen=True)
class Chip:
    """As much of a device as arranging it takes."""

    id: int
    coords: tuple[int, int, int]
    slice_index: int = 0
    platform: str = "tpu"
    device_kind: str = "another"
    core_on_chip: int = 0
    process_index: int = 0


def torus(width, height, slice_index=0):
    places = ((x, y, 0) for y in range(height) for x in range(width))
    start = slice_index * width * height
    return [Chip(start + i, place, slice_index) for i, place in enumerate(places)]


def test_an_axis_may_split_a_side_of_the_torus():
    mesh = make_mesh(1, 16, 4, torus(8, 8))
    x, y = (np.vectorize(lambda chip, i=i: chip.coords[i])(mesh.devices) for i in (0, 1))
    apart = np.abs(np.diff(x, axis=2)) + np.abs(np.diff(y, axis=2))
    assert mesh.devices.shape == (1, 16, 4) and len(set(mesh.devices.flat)) == 64
    assert (apart == 1).all()  # those that exchange most are neighbours


def test_replicas_lie_on_different_slices_and_the_rest_within_one():
    chips = [*torus(2, 4, 1), *torus(2, 4, 0)]
    mesh = make_mesh(4, 2, 2, chips)
    slices = np.vectorize(lambda chip: chip.slice_index)(mesh.devices)
    assert slices.reshape(4, 4).tolist() == [[0] * 4, [0] * 4, [1] * 4, [1] * 4]
    with pytest.raises(ValueError, match="data=1 must be a multiple of the 2 slices"):
        make_mesh(1, 8, 2, chips)


def test_gpus_of_different_hosts_need_no_torus():
    cards = [dataclasses.replace(chip, platform="gpu") for i in (0, 1) for chip in torus(2, 4, i)]
    assert list(make_mesh(1, 8, 2, cards).devices.flat) == cards


def test_a_mesh_that_does_not_fit_is_refused(policy, batches):
    with pytest.raises(ValueError, match="data=2, fsdp=2, tensor=1 is 4 devices, and there are 8"):
        make_mesh(2, 2, 1)
    start, log_prob_fn = policy
    update = make_update(CONFIG, log_prob_fn, OPTIMIZER)
    mesh = make_mesh(2, 2, 2)
    step = jit_update(update, OPTIMIZER, start, shardings(start, mesh), mesh)
    shapes = jax.eval_shape(lambda: (start, OPTIMIZER.init(start), batches[0]))
    params, state, batch = shapes
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((6, *x.shape[1:]), x.dtype), batch)
    with pytest.raises(ValueError, match="6"):
        step.lower(params, state, batch, None)
