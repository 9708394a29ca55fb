"""Operations counted in a traced program, against XLA and against a formula."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from dpsjax import selectors
from dpsjax.grpo import GRPOConfig
from dpsjax.loop.build import Spec
from dpsjax.loop.collect import Collector
from dpsjax.loop.watched import watched
from dpsjax.plan.flops import matmul_flops
from dpsjax.plan.job import Axes, Job
from dpsjax.plan.programs import trace
from dpsjax.policy import Compute, Policy, PolicyConfig, Sampling, abstract_policy

TINY = PolicyConfig(
    vocab_size=512, width=128, mlp_width=256, layers=3, heads=4, kv_heads=2, head_dim=32
)


def forward_and_backward(compute):
    graph, params = abstract_policy(TINY, compute)

    def loss(params, tokens):
        model: Policy = nnx.merge(graph, params)
        positions = jnp.broadcast_to(jnp.arange(64, dtype=jnp.int32), tokens.shape)
        return model.logits(model(tokens, positions, tokens >= 0)).sum()

    return jax.value_and_grad(loss), (params, jax.ShapeDtypeStruct((2, 64), jnp.int32))


def test_agree_with_xla_where_it_sees_every_layer():
    function, arguments = forward_and_backward(Compute())
    ours = matmul_flops(jax.make_jaxpr(function)(*arguments))
    xla = jax.jit(function).lower(*arguments).cost_analysis()["flops"]
    # XLA also counts softmax, norms and the like
    assert 0.9 * xla < ours <= xla


def test_a_scan_over_layers_counts_every_layer():
    unrolled, arguments = forward_and_backward(Compute())
    scanned, _ = forward_and_backward(Compute(scan_layers=True))
    expected = matmul_flops(jax.make_jaxpr(unrolled)(*arguments))
    assert matmul_flops(jax.make_jaxpr(scanned)(*arguments)) == expected
    # ... and XLA counts one
    xla = jax.jit(scanned).lower(*arguments).compile().cost_analysis()["flops"]
    assert xla < 0.8 * expected


def test_a_loop_runs_as_often_as_told():
    def loop(x):
        return jax.lax.while_loop(lambda y: y[0, 0] > 0, lambda y: y @ x, x)

    jaxpr = jax.make_jaxpr(loop)(jnp.ones((4, 4), jnp.float32))
    assert matmul_flops(jaxpr, 10) == 10 * 2 * 4**3
    branches = jax.make_jaxpr(lambda x: jax.lax.cond(x[0, 0] > 0, lambda: x, lambda: x @ x))
    assert matmul_flops(branches(jnp.ones((4, 4), jnp.float32))) == 2 * 4**3


@pytest.mark.parametrize(("remat", "passes"), [("none", 3), ("full", 4)])
def test_the_update_has_the_operations_of_the_formula(remat, passes):
    spec = Spec(
        selector=watched(selectors.dps()),
        policy=TINY,
        compute=Compute(scan_layers=True, remat=remat),
        sampling=Sampling(max_tokens=64, stop_ids=(0,)),
        grpo=GRPOConfig(rollouts_per_prompt=2),
        collector=Collector(4),
        pool=64,
        prompt_tokens=32,
    )
    found = trace(Job(spec, Axes(1, 4, 1)))[0]["update"].flops * 4
    sequences, d, h = 8, TINY.width, TINY.heads * TINY.head_dim
    kv = TINY.kv_heads * TINY.head_dim
    layer = 2 * (2 * d * h + 2 * d * kv + 3 * d * TINY.mlp_width)
    head = 2 * d * TINY.vocab_size
    responses, prompts = sequences * 64, 4 * 32
    dense = passes * TINY.layers * layer * (responses + prompts)
    dense += 4 * head * responses  # the chunks of the head are always recomputed
    scores = passes * TINY.layers * 4 * h * (responses * (32 + 64) + prompts * 32)
    assert found == pytest.approx(dense + scores, rel=0.05)
