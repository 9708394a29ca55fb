"""Traces: round trip, errors that name the line, and a replay without a model."""

import json

import jax
import numpy as np
import pytest

from dpsjax import selectors
from dpsjax.lab import simulate as lab
from dpsjax.lab import traces
from dpsjax.lab.contenders import Contender

POOL, STEPS, GROUP = 12, 5, 4


@pytest.fixture(scope="module")
def trace():
    random = np.random.default_rng(0)
    return traces.make_trace(
        POOL,
        (
            {
                "step": step,
                "prompt": prompt,
                "passes": int(random.integers(0, GROUP + 1)),
                "trials": GROUP,
                "length": None if prompt == 3 else float(random.integers(10, 90)) / 2,
                "policy": max(step - 1, 0),
            }
            for step in range(STEPS)
            for prompt in range(POOL)
        ),
    )


def assert_equal(one, other):
    assert one.num_prompts == other.num_prompts
    for mine, theirs in zip(one[1:], other[1:], strict=True):
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)


def test_round_trip(trace, tmp_path):
    path = tmp_path / "run.jsonl"
    traces.write_trace(path, trace)
    assert_equal(traces.read_trace(path), trace)
    header, first = path.read_text().splitlines()[:2]
    assert json.loads(header) == {"format": "dpsjax-trace", "version": 1, "num_prompts": POOL}
    assert list(json.loads(first)) == list(traces.COLUMNS)


def test_parquet(trace, tmp_path):
    pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    traces.write_trace(tmp_path / "run.parquet", trace)
    assert_equal(traces.read_trace(tmp_path / "run.parquet"), trace)


def test_parquet_without_pyarrow(trace, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install 'dpsjax\[parquet\]'"):
        traces.write_trace(tmp_path / "run.parquet", trace)


def change(**fields):
    return lambda row: json.dumps(json.loads(row) | fields)


CORRUPTIONS = {
    "cut": (lambda row: row[:-9], "not JSON"),
    "list": (lambda row: "[1, 2]", "must be a JSON object"),
    "keys": (change(extra=1), "must have the keys step, prompt"),
    "text": (change(passes="3"), "passes must be an integer, got '3'"),
    "bool": (change(step=True), "step must be an integer, got True"),
    "too many": (change(passes=GROUP + 1), "passes=5 is out of range"),
    "stranger": (change(prompt=POOL), "prompt=12 is out of range"),
    "negative": (change(step=-1, policy=-1), "step=-1 is out of range"),
    "future": (change(policy=99), "policy=99 is out of range"),
    "length": (change(length=float("nan")), "length=nan is out of range"),
    "twice": (change(step=0, prompt=0, policy=0), r"prompt 0 has a group at step 0 already \(2\)"),
}


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_corrupted_line_is_named(kind, trace, tmp_path):
    corrupt, message = CORRUPTIONS[kind]
    path = tmp_path / "run.jsonl"
    traces.write_trace(path, trace)
    lines = path.read_text().splitlines()
    lines[6] = corrupt(lines[6])
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=f"line 7: .*{message}"):
        traces.read_trace(path)


@pytest.mark.parametrize("header", ["", "{}", '{"format": "dpsjax-trace", "version": 1}'])
def test_bad_header(header, tmp_path):
    path = tmp_path / "run.jsonl"
    path.write_text(header + "\n")
    with pytest.raises(ValueError, match="line 1: "):
        traces.read_trace(path)


def test_replay(trace):
    student = traces.recorded(trace)
    setting = lab.Setting(pool=POOL, batch=3, rollouts=GROUP, steps=STEPS)
    run = jax.tree.map(
        np.asarray,
        lab.simulate(
            Contender(selectors.beta_mean()), student, jax.random.key(0), setting, record=True
        ),
    )
    passes = trace.passes.reshape(STEPS, POOL)
    for step in range(STEPS):
        chosen = run.groups.index[step]
        np.testing.assert_array_equal(run.groups.passes[step], passes[step, chosen])
        mixed = (passes[step, chosen] > 0) & (passes[step, chosen] < GROUP)
        assert run.steps.effective[step] == mixed.sum()
    best = lab.simulate(
        Contender(selectors.uniform(), oracle=True), student, jax.random.key(0), setting
    )
    assert best.steps.effective.sum() == STEPS * 3


def played(trace, selector, delay=0):
    setting = lab.Setting(trace.num_prompts, 3, GROUP, STEPS, delay)
    contender = Contender(selector)
    return lab.simulate(
        contender, traces.recorded(trace), jax.random.key(0), setting, record=True
    ).groups


@pytest.mark.slow
def test_old_policies_are_observed_late(trace):
    """As with a delay where all are equally old, on top of one; and not as on time."""
    on_time = trace._replace(policy=trace.step)
    ages = [on_time, *(trace._replace(policy=trace.step - age) for age in (1, 2))]
    for age, old in enumerate(ages):
        for extra in (0, 1):
            mine = played(old, selectors.dps(), extra)
            other = played(on_time, selectors.dps(), age + extra)
            np.testing.assert_array_equal(mine.index, other.index)
    late = played(ages[2], selectors.dps())
    assert not np.array_equal(late.index, played(on_time, selectors.dps()).index)


def test_each_group_is_as_late_as_its_own_policy(trace):
    """Observed by a tracker that counts visits: who has arrived does not come again at once."""
    random = np.random.default_rng(1)
    trace = trace._replace(policy=trace.step - random.integers(0, 3, trace.step.shape, np.int32))
    lag = (trace.step - trace.policy).reshape(STEPS, POOL)
    chosen = np.asarray(played(trace, selectors.uniform_epochs()).index)
    for step in range(STEPS):
        visits = np.zeros(POOL, int)
        for earlier in range(step):
            for prompt in chosen[earlier]:
                visits[prompt] += earlier + lag[earlier, prompt] < step
        others = np.delete(visits, chosen[step])
        assert visits[chosen[step]].max() <= others.min()


def test_what_a_trace_says_beforehand(trace):
    student = traces.recorded(trace)
    known = student.data(student.init(jax.random.key(0), POOL))
    wanted = 100 - 100 * trace.passes[:POOL] / GROUP
    np.testing.assert_allclose(known["difficulty"], wanted, rtol=1e-6)
    np.testing.assert_array_equal(known["level"], np.minimum(wanted // 20, 4))
    assert not known["topic"].any() and not known["source"].any()


def test_replay_needs_the_full_pool(trace):
    short = trace._replace(**{name: getattr(trace, name)[:-1] for name in traces.COLUMNS})
    with pytest.raises(ValueError, match="step 4 has none of prompt 11"):
        traces.recorded(short)
    setting = lab.Setting(pool=POOL + 1, batch=3, rollouts=GROUP, steps=STEPS)
    with pytest.raises(ValueError, match="pool must be the trace's 12, got 13"):
        lab.simulate(Contender(selectors.dps()), traces.recorded(trace), jax.random.key(0), setting)


def test_blank_lines_are_no_groups(trace, tmp_path):
    path = tmp_path / "trace.jsonl"
    traces.write_trace(path, trace)
    path.write_text(path.read_text(encoding="utf-8") + "\n  \n", encoding="utf-8")
    assert_equal(traces.read_trace(path), trace)
