"""Every name that --selector takes: it trains, and its options do what they say."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpsjax import observe, select, selectors
from dpsjax.cli import main, parse_train
from dpsjax.grpo.config import GRPOConfig
from dpsjax.run.config import from_dict, to_dict
from dpsjax.run.selector_settings import Around, selector_names, settings
from dpsjax.tasks.base import Problem
from dpsjax.tasks.traces import make_trace, write_trace
from tests.run import tiny

POOL = tuple(Problem(f"{n}", {}, f"{2 + n % 3} numbers") for n in range(24))
BATCH = 6


def play(name, rounds=4, **changes):
    """Batches of a selector on a pool where prompts of few numbers are solved more often."""
    chosen = settings(name, **changes)
    selector = chosen.build(POOL, 4)
    state, drawn = selector.init(len(POOL), chosen.data(POOL, len(POOL))), []
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
    config = settings_of(settings(name))
    assert from_dict(json.loads(json.dumps(to_dict(config)))).selector == config.selector
    selector = config.selector.build(POOL, 8)
    state = selector.init(24, config.selector.data(POOL, 24))
    batch, _ = select(selector, jax.random.key(0), state, BATCH)
    assert len(set(batch.index.tolist()) - {-1}) == BATCH


@pytest.mark.slow
@pytest.mark.parametrize("name", selector_names())
def test_every_name_trains(name):
    _two_steps(settings(name))


@pytest.mark.parametrize(
    "chosen",
    [
        settings("sec", cool_down=1, mix_uniform=0.25, revisit_after=2, stratify=True),
        settings("vcrl", bank=0.5, max_rounds=2),
    ],
    ids=["combinators", "refills"],
)
def test_combinators_and_refills_train(chosen):
    _two_steps(chosen)


def _two_steps(chosen):
    run, state = tiny.easy_run(settings_of(chosen))
    state, records = tiny.steps(run, state, count=2)
    for record in records:
        assert record["short_batch"] == 0 and record["invalid_rollouts"] == 0
        assert record["groups_in_loss"] <= 4 and record["skipped_nonfinite"] == 0
    assert int(state.step) == 2
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(state.params))


def test_options_of_a_selector_and_of_its_combinators_are_typed_side_by_side():
    words = "--selector sec --selector.rate 0.3 --selector.cool-down 3 --selector.stratify"
    found = parse_train(words.split()).config.selector
    assert found == settings("sec", rate=0.3, cool_down=3, stratify=True)
    words = "--selector dynamic-sampling --selector.max-rounds 4 --selector.inner dps"
    found = parse_train(words.split()).config.selector
    assert found == settings("dynamic-sampling", max_rounds=4, inner="dps")
    assert found.max_rounds == 4 and settings("arcus").max_rounds == 1
    config = parse_train(["--selector", "mopps", "--selector.band", "0.3", "0.7"]).config
    assert config.selector == settings("mopps", band=(0.3, 0.7))
    assert from_dict(json.loads(json.dumps(to_dict(config)))).selector == config.selector


@pytest.mark.parametrize("name", selector_names())
def test_library_and_command_line_have_the_same_defaults(name):
    chosen, entry = settings(name), selectors.entry_of(name)
    defaults = entry.defaults()
    for keyword, value in chosen.keywords().items():
        assert value == defaults[keyword], f"{name}: {keyword}"
    assert chosen.max_rounds == entry.rounds


def test_help_is_the_docstring_of_the_recipe(capsys):
    with pytest.raises(SystemExit):
        parse_train(["--selector", "mopps", "--help"])
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "gamma*; 0.5 in the paper" in shown and "--selector.cool-down" in shown


def test_a_setting_that_the_recipe_refuses_is_an_error_of_the_command(capsys, tmp_path):
    """It is judged when the run is built: nothing is computed while options are read."""
    words = ["train", "countdown", "--selector.decay", "3", "--out", str(tmp_path / "run")]
    assert main(words) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert "decay must be finite and lie in [0.0, 1.0], got 3.0" in shown


def test_order_by_source_and_by_recorded_rollouts(tmp_path):
    first = play("static-order")[0]
    assert all(n % 3 == 0 for n in first)  # two numbers, the easiest
    assert all(n % 3 == 2 for n in play("static-order", hardest_first=True)[0])
    path = tmp_path / "trace.jsonl"
    rows = [
        {"step": 0, "prompt": n, "passes": int(n < 6) * 8, "trials": 8, "length": None, "policy": 0}
        for n in range(24)
    ]
    write_trace(path, make_trace(24, rows))
    assert sorted(play("static-order", difficulty=path)[0]) == list(range(6))
    assert sorted(play("adarft", difficulty=path)[0]) == list(range(6))
    with pytest.raises(ValueError, match="pool of 24 prompts, and this one has 23"):
        settings("static-order", difficulty=path).data(POOL[:23], 23)


def test_combinators_do_what_they_say():
    drawn = play("beta-mean", cool_down=3)
    assert len({n for batch in drawn for n in batch}) == 4 * BATCH
    for batch in play("uniform", stratify=True):
        assert np.bincount(np.array(batch) % 3).tolist() == [2, 2, 2]
    solved = [n for n in play("dps", 1)[0] if n % 3 == 0]
    again = play("dps", revisit_after=2, revisit_share=1.0)
    assert set(solved) <= set(again[3])
    assert play("dps", power=1.0) != play("dps")


@pytest.mark.parametrize(
    "change", [{"cool_down": -1}, {"mix_uniform": 1.5}, {"revisit_share": -1.0}]
)
def test_combinators_that_cannot_be_are_refused(change):
    (name,) = change
    with pytest.raises(ValueError, match=name):
        dataclasses.replace(Around(), **change)


@pytest.mark.slow
def test_denoised_advantages_train():
    """They learn from groups that agree too, which GRPO's leave out."""
    run, state = tiny.easy_run(
        tiny.config(selector=settings("uniform"), grpo=tiny.grpo(advantages="denoised"))
    )
    state, records = tiny.steps(run, state, count=2)
    assert all(record["groups_in_loss"] == 4 for record in records)
    assert any(record["effective_ratio"] < 1 for record in records)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(state.params))
