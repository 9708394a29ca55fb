"""The combinators by keyword are those that one writes out, in a fixed order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpsjax import observe, select, selectors
from dpsjax.selectors import surround


def drawn(selector, data=None):
    """Batches of twelve steps: each prompt's passes are its id modulo 3."""
    state, out = selector.init(12, data), []
    for step in range(12):
        batch, state = select(selector, jax.random.key(step), state, 4)
        passes = jnp.where(batch.index < 0, 0, batch.index % 3)
        trials = jnp.full(4, 2, jnp.int32)
        _, state = observe(selector, state, batch.index, passes, trials)
        out.append(np.asarray(batch.index))
    return np.array(out)


SOURCES = {"source": jnp.arange(12, dtype=jnp.int32) % 2}
WRITTEN = {
    "cool_down": ({"cool_down": 2}, (selectors.cool_down(2, strict=False),)),
    "mix_uniform": ({"mix_uniform": 0.5}, (selectors.mix(selectors.uniform(), 0.5),)),
    "revisit": (
        {"revisit_after": 1, "revisit_share": 0.5},
        (selectors.revisit(1, 0.5),),
    ),
    "stratify": ({"stratify": (3, 1)}, (selectors.stratify((3, 1)),)),
    "all": (
        {"cool_down": 1, "mix_uniform": 0.25, "revisit_after": 2, "stratify": (3, 1)},
        (
            selectors.mix(selectors.uniform(), 0.25),
            selectors.stratify((3, 1)),
            selectors.revisit(2, 0.1),
            selectors.cool_down(1, strict=False),
        ),
    ),
}


@pytest.mark.parametrize("case", WRITTEN)
def test_as_written_out(case):
    keywords, parts = WRITTEN[case]
    inner = selectors.beta_mean()
    found = drawn(surround(inner, **keywords), SOURCES)
    np.testing.assert_array_equal(found, drawn(selectors.chain(inner, *parts), SOURCES))
    assert not np.array_equal(found, drawn(inner))


def test_nothing_asked_for_is_the_selector_itself():
    inner = selectors.dps()
    assert surround(inner) is inner


def test_entries_take_these_keywords_beside_their_own():
    entry = selectors.entry_of("beta-mean")
    built = entry.build({"group": 4}, target=0.3, cool_down=2)
    plain = surround(selectors.beta_mean(target=0.3), cool_down=2)
    np.testing.assert_array_equal(drawn(built), drawn(plain))
    with pytest.raises(TypeError, match="temper"):
        entry.build(temper=1)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"cool_down": -1}, "cool_down=-1"),
        ({"revisit_after": -2}, "revisit_after=-2"),
        ({"mix_uniform": 1.5}, "mix_uniform"),
        ({"revisit_share": -0.1}, "revisit_share"),
        ({"stratify": (-1, 2)}, "shares"),
    ],
)
def test_keywords_out_of_range(keywords, message):
    with pytest.raises(ValueError, match=message):
        surround(selectors.dps(), **keywords)


def test_what_is_no_selector():
    with pytest.raises(TypeError, match="selector"):
        surround(selectors.dps)
