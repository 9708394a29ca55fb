"""Every public name of dpsjax.lab."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpsjax import selectors
from dpsjax.belief.filter import group_outcome
from dpsjax.lab import (
    compare,
    contenders,
    finetune,
    measures,
    plots,
    policies,
    report,
    simulate,
    statistics,
    students,
    traces,
)
from dpsjax.tasks.operators import base_path, operator_chains
from tests.inputs.test_tasks import TRACE
from tests.inputs.wrong import Row, complaints, public

N, F = 4, np.float32
KEY = jax.random.key(0)
OUTCOME = np.array(group_outcome(jnp.array([0.1, 0.5, 0.7, 0.9], jnp.float32), 8))
SETTING = simulate.Setting(pool=8, batch=2, rollouts=4, steps=2)
STUDENT = students.student(students.StudentParams(), held_out=4)
UNIFORM = contenders.Contender(selectors.uniform())
SEEDS = np.array([0.1, 0.2, 0.4])
FULL = traces.make_trace(
    1, [{"step": 0, "prompt": 0, "passes": 3, "trials": 8, "length": None, "policy": 0}]
)


def run() -> measures.Run:
    """A run without running."""
    zero = np.zeros(2, F)
    steps = measures.Steps(*[zero + 1] * len(measures.Steps._fields))
    sums = measures.Calibration(F(1), F(0), F(0), np.eye(3, dtype=F), np.ones((3, 10), F))
    return measures.Run(steps, np.ones(N, np.int32), sums, None)


def both(one):
    return jax.tree.map(lambda x: np.stack([x, x]), one)


NAMES = ("uniform", "dps", "oracle")
MEASURED = {
    **{name: np.array([0.5, 0.6]) for name in measures.MEASURES},
    **{name: np.array([0.5, 0.6]) for name in compare.GAP},
}
COMPARISON = compare.Comparison(
    title="student",
    setting=SETTING,
    seeds=2,
    reference="dps",
    runs=dict.fromkeys(NAMES, both(run())),
    values=dict.fromkeys(NAMES, MEASURED),
    seconds=dict.fromkeys(NAMES, 1.0),
)


def shaped(**arguments):
    """A simulation's shapes: nothing is compiled."""
    key = arguments.pop("key", KEY)
    return jax.eval_shape(lambda: simulate.simulate(key=key, **arguments))


def compared(call, **arguments):
    """A comparison that is refused, or would start."""

    class Started(Exception):
        pass

    def start(*_):
        raise Started

    before = compare.simulate_seeds, compare.simulate
    compare.simulate_seeds = compare.simulate = start
    try:
        call(**arguments)
    except Started:
        return "started"
    finally:
        compare.simulate_seeds, compare.simulate = before


COMPARED = {
    "contenders": {"dps": selectors.dps()},
    "setting": SETTING,
    "seeds": 2,
    "reference": "dps",
    "on_done": lambda name, seconds: None,
}
CHAINS = operator_chains(8, 4)
# Pure functions of a run of a policy, called under jit with what these two have checked.
INSIDE = ("answer", "draw", "make_program", "start", "update")
LOOKS = ("as_run", "judge", "measure", "nothing", "round_line")
ROWS = {
    "finetune.PolicySetting": Row(
        finetune.PolicySetting, {**vars(finetune.PolicySetting()), "budget": 64}
    ),
    "policies.policy_student": Row(
        policies.policy_student,
        {"task": CHAINS, "weights": str(base_path()), "temperature": 1.0},
        free=frozenset({"weights"}),
    ),
    "policies.problems_of": Row(policies.problems_of, {"task": CHAINS, "problems": CHAINS.train}),
    "compare.compare": Row(
        lambda **given: compared(compare.compare, **given),
        {**COMPARED, "student": STUDENT, "title": "mine"},
        also={"contenders": [{"dps": 3}, {3: selectors.dps()}]},
        free=frozenset({"reference"}),
    ),
    "compare.compare_students": Row(
        lambda **given: compared(compare.compare_students, **given),
        {**COMPARED, "families": {"slow": students.slow()}},
        also={"families": [{"slow": 3}, {}], "contenders": [{"dps": 3}]},
        free=frozenset({"reference"}),
    ),
    "compare.compare_runs": Row(
        lambda **given: compared(compare.compare_runs, **given),
        {**COMPARED, "run": lambda contender: compare.simulate(contender), "title": "mine"},
        also={"contenders": [{"dps": 3}]},
        free=frozenset({"reference"}),
    ),
    **{
        f"{room}.{call.__name__}": Row(
            call, {"comparison": COMPARISON, "measure": "ability_held_out"}
        )
        for room, call in (
            ("compare", compare.means),
            ("compare", compare.differences),
            ("compare", compare.ranking),
            ("report", report.finding),
        )
    },
    "report.table": Row(report.table, {"comparison": COMPARISON}),
    "report.to_dict": Row(report.to_dict, {"comparison": COMPARISON}),
    "contenders.contender": Row(
        contenders.contender,
        {"name": "dps-binomial", "group": 8},
        said={"name": "selector"},
    ),
    "contenders.looked_up": Row(contenders.looked_up, {"name": "dps"}, said={"name": "selector"}),
    "measures.calibrate": Row(measures.calibrate, {"predicted": OUTCOME, "truth": OUTCOME}),
    "measures.no_calibration": Row(measures.no_calibration, {}),
    "measures.summarize": Row(measures.summarize, {"run": run()}),
    "measures.gap_closed": Row(
        measures.gap_closed, {"value": 0.7, "uniform": 0.5, "oracle": 0.9}, loose=True
    ),
    "plots.colors": Row(plots.colors, {"comparison": COMPARISON}),
    "simulate.Setting": Row(simulate.Setting, {**vars(SETTING), "delay": 1}),
    "simulate.run_keys": Row(simulate.run_keys, {"seeds": 2}),
    "simulate.uniforms": Row(
        simulate.uniforms, {"key": KEY, "step": 0, "setting": SETTING, "rollouts": 4}
    ),
    "simulate.simulate": Row(
        shaped,
        {
            "contender": UNIFORM,
            "student": STUDENT,
            "key": KEY,
            "setting": SETTING,
            "record": False,
        },
        also={
            "contender": [UNIFORM._replace(rounds=0), UNIFORM._replace(rounds=1.5)]
            + [UNIFORM._replace(most=most) for most in (0, 1.5, "x")]
            + [UNIFORM._replace(screen=screen) for screen in (-1, 1.5, "x", (1, 0), (1.5, 2))]
        },
    ),
    "statistics.interval": Row(
        statistics.interval, {"values": SEEDS, "level": 0.95}, free=frozenset({"values"})
    ),
    "statistics.interval, values": Row(statistics.interval, {"values": SEEDS}, loose=True),
    "statistics.paired_p_value": Row(statistics.paired_p_value, {"differences": SEEDS}, loose=True),
    "statistics.holm": Row(statistics.holm, {"p_values": SEEDS}, loose=True),
    "statistics.against": Row(
        statistics.against,
        {"values": {"dps": SEEDS, "mopps": SEEDS[::-1]}, "reference": "dps"},
        also={"values": [{"dps": SEEDS, "mopps": SEEDS[:2]}, {"dps": SEEDS, "mopps": "x"}]},
    ),
    "students.student": Row(students.student, {"params": students.StudentParams(), "held_out": 8}),
    "students.signal": Row(
        students.signal,
        {"passes": np.array([3, 8], np.int32), "trials": np.array([8, 8], np.int32)},
    ),
    "traces.recorded": Row(traces.recorded, {"trace": FULL}, also={"trace": [TRACE]}),
}
FAMILIES = (
    students.logit_normal,
    students.slow,
    students.forgetting,
    students.regime_shift,
    students.unlocking,
    students.noisy_verifier,
    students.correlated_topics,
    students.limited_lessons,
)
PARAMS = {
    name: Row(
        lambda **given: students.student(students.logit_normal(**given)), {name: float(value)}
    )
    for name, value in students.StudentParams()._asdict().items()
}
ELSEWHERE = {
    **{f"finetune.{name}": "tests/lab/test_finetune.py" for name in ("run_policy", "compile_run")},
    **{f"finetune.{name}": "tests/lab/test_finetune.py" for name in INSIDE},
    **{f"looks.{name}": "tests/lab/test_finetune.py" for name in LOOKS},
    **{f"stepwise.{name}": "tests/lab/test_finetune.py" for name in ("share", "stepwise")},
    **{
        f"policies.{name}": "tests/lab/test_finetune.py"
        for name in ("exact_rates", "greedy_accuracy", "solves")
    },
    "command.CompareArguments": "tests/test_cli.py",
    "command.run": "tests/test_cli.py",
    "simulate.simulate_seeds": "simulate's arguments, and run_keys's",
    "simulate.sweep": "simulate's arguments, and run_keys's",
    "compare.require_comparison": "is such a check",
    "compare.require_measure": "is such a check",
    "statistics.as_floats": "is such a check",
    "contenders.named": "takes nothing",
    "report.write": "below",
    "plots.write_plots": "below",
    **{f"plots.{name}": "drawn by write_plots" for name in vars(plots) if name[:5] == "draw_"},
    **{f"waiting.{name}": "of simulate" for name in ("deliver", "no_groups", "refill")},
    **{f"students.{family.__name__}": "below" for family in FAMILIES},
    "students.graded": "of the students and traces",
}


@pytest.mark.parametrize("name", ROWS)
def test_a_wrong_argument_is_named(name):
    assert complaints(ROWS[name]) == []


@pytest.mark.parametrize("name", PARAMS)
def test_a_wrong_parameter_of_a_student_is_named(name):
    assert complaints(PARAMS[name]) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_of_students_names_a_parameter_that_it_has_not(family):
    with pytest.raises((ValueError, TypeError), match="temper"):
        family(temper=1.0)
    assert family(mean=2.0).mean == 2.0


@pytest.mark.parametrize(
    "claim", [{"num_prompts": 2**31 - 1}, {"step": 2**31 - 1}, {"step": 2**40}]
)
def test_a_trace_that_claims_too_much_takes_no_memory(claim):
    """A terabyte of tables for one line: refused by what is missing."""
    row = {"step": 0, "prompt": 0, "passes": 3, "trials": 8, "length": None, "policy": 0}
    with pytest.raises(ValueError, match=r"needs a group|step=1099511627776 is out of range"):
        traces.recorded(traces.make_trace(claim.pop("num_prompts", 1), [row | claim]))


@pytest.mark.parametrize("write", [report.write, plots.write_plots])
@pytest.mark.parametrize("bad", [None, 3, {}, "x"])
def test_writing_what_is_no_comparison(write, bad, tmp_path):
    with pytest.raises(TypeError, match="comparison"):
        write(bad, tmp_path)
    with pytest.raises(TypeError, match="folder"):
        write(COMPARISON, 3)
    assert list(Path(tmp_path).iterdir()) == []


def test_every_public_name_is_covered():
    covered = {f"lab.{name.split(',')[0]}" for name in ROWS}
    assert public("dpsjax.lab") == covered | {f"lab.{name}" for name in ELSEWHERE}
