import io

from rich.console import Console

from dpsjax.report.progress import progress

RECORD = {"reward": 0.5, "effective_ratio": 0.25, "rollouts": 1024}


def records():
    yield {**RECORD, "step": 1, "held_out_before_accuracy": 0.125, "held_out_before_greedy": 0.25}
    yield {**RECORD, "step": 2, "held_out_accuracy": 0.75, "held_out_greedy": 0.875}
    yield {**RECORD, "step": 3}


def test_without_a_terminal_one_plain_line_a_step(capsys):
    with progress(3, Console(file=io.StringIO(), force_terminal=False)) as report:
        for record in records():
            report(record)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(
        "step 1/3  reward 0.500  effective 0.25  held-out 0.125  greedy 0.250"
    )
    assert "held-out 0.750  greedy 0.875  rollouts 1,024" in lines[2] and lines[2].endswith(
        "ETA 0 s"
    )


def test_a_terminal_gets_a_table():
    screen = io.StringIO()
    with progress(3, Console(file=screen, force_terminal=True, width=100)) as report:
        for record in records():
            report(record)
    shown = screen.getvalue()
    for heading in (
        "step",
        "reward",
        "effective",
        "held-out",
        "greedy",
        "rollouts",
        "seconds",
        "ETA",
    ):
        assert heading in shown
    assert "0.750" in shown


def test_a_narrow_terminal_loses_columns_and_no_digits():
    screen = io.StringIO()
    with progress(3, Console(file=screen, force_terminal=True, width=40)) as report:
        report({**RECORD, "step": 1, "held_out_before_accuracy": 0.375})
    shown = screen.getvalue()
    assert "0.375" in shown and "held-out" in shown and "…" not in shown
