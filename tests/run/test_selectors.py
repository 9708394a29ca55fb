"""Every name that --selector takes: it trains, and its options do what they say."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpsjax import observe, select, selectors
from dpsjax.cli import parse_train
from dpsjax.grpo.config import GRPOConfig
from dpsjax.run.config import from_dict, to_dict
from dpsjax.run.selectors import (
    Adarft,
    Arcus,
    Around,
    BetaMean,
    Dps,
    DynamicSampling,
    Mopps,
    Sec,
    StaticOrder,
    Uniform,
    Vcrl,
    build_selector,
    default_selector,
    max_rounds,
    selector_names,
)
from dpsjax.tasks.base import Problem
from dpsjax.tasks.traces import make_trace, write_trace
from tests.run import tiny

POOL = tuple(Problem(f"{n}", {}, f"{2 + n % 3} numbers") for n in range(24))
BATCH = 6


def play(settings, rounds=4):
    """Batches of a selector on a pool where prompts of few numbers are solved more often."""
    selector = build_selector(settings, POOL)
    state, drawn = selector.init(len(POOL)), []
    for number in range(rounds):
        batch, state = select(selector, jax.random.key(number), state, BATCH)
        drawn.append(batch.index.tolist())
        passes = jnp.maximum(4 - 2 * (batch.index % 3), 0)
        _, state = observe(selector, state, batch.index, passes, jnp.full(BATCH, 4, jnp.int32))
    return drawn


def settings_of(selector):
    """Tiny, and with as many rollouts as the default of a screening needs."""
    return tiny.config(selector=selector, grpo=GRPOConfig(rollouts_per_prompt=8))


@pytest.mark.parametrize("name", selector_names())
def test_every_name_builds_from_its_record(name):
    config = settings_of(default_selector(name))
    assert from_dict(to_dict(config)).selector == config.selector
    selector = build_selector(config.selector, POOL)
    batch, _ = select(selector, jax.random.key(0), selector.init(24), BATCH)
    assert len(set(batch.index.tolist()) - {-1}) == BATCH


@pytest.mark.slow
@pytest.mark.parametrize("name", selector_names())
def test_every_name_trains(name):
    _two_steps(default_selector(name))


@pytest.mark.parametrize(
    "settings",
    [
        Sec(around=Around(cool_down=1, mix_uniform=0.25, revisit_after=2, stratify=True)),
        Vcrl(bank=0.5, max_rounds=2),
    ],
)
def test_combinators_and_refills_train(settings):
    _two_steps(settings)


def _two_steps(settings):
    run, state = tiny.easy_run(settings_of(settings))
    state, records = tiny.steps(run, state, count=2)
    for record in records:
        assert record["short_batch"] == 0 and record["invalid_rollouts"] == 0
        assert record["groups_in_loss"] <= 4 and record["skipped_nonfinite"] == 0
    assert int(state.step) == 2
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(state.params))


def test_options_of_a_selector_and_of_its_combinators_are_typed_side_by_side():
    words = "--selector sec --selector.rate 0.3 --selector.cool-down 3 --selector.stratify"
    found = parse_train(words.split()).config.selector
    assert found == Sec(rate=0.3, around=Around(cool_down=3, stratify=True))
    words = "--selector dynamic-sampling --selector.max-rounds 4 --selector.inner dps"
    found = parse_train(words.split()).config.selector
    assert found == DynamicSampling(max_rounds=4, inner="dps")
    assert max_rounds(found) == 4 and max_rounds(Arcus()) == 1
    config = parse_train(["--selector", "mopps", "--selector.band", "0.3", "0.7"]).config
    assert config.selector == Mopps(band=(0.3, 0.7))
    assert from_dict(json.loads(json.dumps(to_dict(config)))).selector == config.selector


def test_order_by_source_and_by_recorded_rollouts(tmp_path):
    first = play(StaticOrder())[0]
    assert all(n % 3 == 0 for n in first)  # two numbers, the easiest
    assert all(n % 3 == 2 for n in play(StaticOrder(hardest_first=True))[0])
    path = tmp_path / "trace.jsonl"
    rows = [
        {"step": 0, "prompt": n, "passes": int(n < 6) * 8, "trials": 8, "length": None, "policy": 0}
        for n in range(24)
    ]
    write_trace(path, make_trace(24, rows))
    assert sorted(play(StaticOrder(difficulty=path))[0]) == list(range(6))
    assert sorted(play(Adarft(difficulty=path))[0]) == list(range(6))
    with pytest.raises(ValueError, match="pool of 24 prompts, and this one has 23"):
        build_selector(StaticOrder(difficulty=path), POOL[:23])


def test_combinators_do_what_they_say():
    drawn = play(BetaMean(around=Around(cool_down=3)))
    assert len({n for batch in drawn for n in batch}) == 4 * BATCH
    for batch in play(Uniform(around=Around(stratify=True))):
        assert np.bincount(np.array(batch) % 3).tolist() == [2, 2, 2]
    solved = [n for n in play(Dps(candidates=None), 1)[0] if n % 3 == 0]
    again = play(Dps(candidates=None, around=Around(revisit_after=2, revisit_share=1.0)))
    assert set(solved) <= set(again[3])
    proportional = play(Dps(candidates=None, proportional=True))
    assert proportional != play(Dps(candidates=None))


@pytest.mark.parametrize(
    "change", [{"cool_down": -1}, {"mix_uniform": 1.5}, {"revisit_share": -1.0}]
)
def test_combinators_that_cannot_be_are_refused(change):
    (name,) = change
    with pytest.raises(ValueError, match=name):
        dataclasses.replace(Around(), **change)


def test_no_combinator_is_no_change():
    plain = selectors.uniform()
    assert Around().build(plain, POOL) is plain


@pytest.mark.slow
def test_denoised_advantages_train():
    """They learn from groups that agree too, which GRPO's leave out."""
    run, state = tiny.easy_run(
        tiny.config(selector=Uniform(), grpo=tiny.grpo(advantages="denoised"))
    )
    state, records = tiny.steps(run, state, count=2)
    assert all(record["groups_in_loss"] == 4 for record in records)
    assert any(record["effective_ratio"] < 1 for record in records)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(state.params))
