"""The loop of docs/own_loop.md, as it stands there: it learns, and padding changes nothing."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dpsjax import policy
from dpsjax.tasks.countdown import base_path

PAGE = Path(__file__).parent.parent / "docs" / "own_loop.md"


@pytest.fixture(scope="module", autouse=True)
def as_for_users():
    with jax.numpy_dtype_promotion("standard"), jax.enable_x64(False):
        yield


@pytest.fixture(scope="module")
def loop(as_for_users):
    """What the page's program leaves behind, by name."""
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(block.splitlines()) <= 60
    namespace: dict = {}
    exec(compile(block, PAGE.name, "exec"), namespace)
    return namespace


def test_each_program_compiles_once(loop):
    assert loop["roll_out"]._cache_size() == loop["learn"]._cache_size() == 1


def test_it_learns_from_what_it_selects(loop):
    """Solved more often than by the base, over the whole pool, by far more than chance gives."""
    task, graph, pool = loop["task"], loop["graph"], loop["pool"]
    problems = [problem for problem in task.train for _ in range(32)]

    @jax.jit
    def responses(params, key, *pool):
        model = nnx.merge(graph, params)
        return policy.generate(model, key, *pool, loop["sampling"], 32).tokens

    def solved(params):
        tokens = np.asarray(responses(params, jax.random.key(1), *pool))
        texts = [task.tokenizer.decode(row) for row in tokens.reshape(len(problems), -1)]
        return np.array([score.correct for score in task.score(problems, texts)])

    before, after = solved(policy.load_weights(base_path())[1]), solved(loop["params"])
    gain = after.astype(float) - before
    assert gain.mean() > 3 * gain.std() / np.sqrt(gain.size)
    assert 0 < loop["metrics"].groups <= loop["PROMPTS"]


def test_padding_changes_nothing(loop):
    """Five prompts for sixteen places: what stands in the others does not matter."""
    params, moments, belief = (loop[name] for name in ("params", "moments", "belief"))
    few = belief._replace(active=jnp.arange(64) < 5)
    belief, batch, rolled = loop["roll_out"](params, few, jax.random.key(2), *loop["pool"])
    assert sorted(batch.index.tolist()) == [-1] * 11 + [0, 1, 2, 3, 4]
    found = []
    for garbage in (0.0, 1.0, np.nan):
        rewards = np.tile(np.arange(8, dtype=np.float32) % 2, (16, 1))
        rewards[np.asarray(batch.index) < 0] = garbage
        given = jax.tree.map(jnp.copy, (params, moments, belief))  # donated
        found.append(loop["learn"](*given, batch, rolled, rewards))
    assert found[0][2].groups == 5
    for other in found[1:]:
        jax.tree.map(np.testing.assert_array_equal, found[0], other)
