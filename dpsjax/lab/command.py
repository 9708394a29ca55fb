"""``dpsjax compare``: options, progress and output; the work is in :mod:`dpsjax.lab.compare`."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import Annotated

import jax
import tyro
from rich.console import Console

from dpsjax.grpo import GRPOConfig
from dpsjax.lab.compare import ORACLE, UNIFORM, Comparison, compare_runs
from dpsjax.lab.contenders import Contender, contender, looked_up, named
from dpsjax.lab.finetune import PolicySetting, compile_run
from dpsjax.lab.looks import as_run
from dpsjax.lab.measures import Run
from dpsjax.lab.policies import PolicyStudent, policy_student
from dpsjax.lab.report import finding, table, write
from dpsjax.lab.simulate import Setting, simulate_seeds
from dpsjax.lab.students import STUDENTS, Student, student
from dpsjax.lab.traces import read_trace, recorded
from dpsjax.tasks import operators

# Sizes for students, and for a policy: a run of a few minutes for each selector, or of seconds.
STUDENT_SIZES = {"steps": 150, "pool": 8000, "batch": 256}
POLICY_SIZES = {"steps": 200, "pool": 2000, "batch": 32}


@dataclasses.dataclass(frozen=True)
class CompareArguments:
    """Compare selectors on simulated students, recorded rollouts or a policy, at equal rollouts.

    Prints a table and what was found; the folder of the results holds comparison.json and plots.
    """

    student: Annotated[str, tyro.conf.arg(help=f"Which student: {', '.join(STUDENTS)}.")] = (
        "limited-lessons"
    )
    selectors: tuple[str, ...] = tuple(named())
    """Which selectors, all by default, or with settings, as dps:decay=0.7,cool_down=12; uniform and
    the oracle always run."""
    reference: str = "dps"
    """Whom the others are compared with."""
    seeds: int = 10
    """Runs of each selector; every selector meets the same students."""
    steps: int | None = None
    """Steps of batch times rollouts; 150 with a student, 200 with a policy."""
    pool: int | None = None
    """Prompts to choose from; 8000 with a student, 2000 with a policy."""
    batch: int | None = None
    """Prompts rolled out in a step; 256 with a student, 32 with a policy."""
    rollouts: int = 8
    """Rollouts of each chosen prompt."""
    delay: int = 0
    """Steps by which rollouts arrive late, besides the age of the policy in a trace."""
    policy: Annotated[str | None, tyro.conf.arg(metavar="base|PATH")] = None
    """Train a real policy instead of a student, on operator chains (docs/operators.md): the
    shipped base, or other weights for them. Accuracies are exact, of held-out problems."""
    learning_rate: float = operators.LEARNING_RATE
    """Of GRPO on a policy."""
    trace: Path | None = None
    """A recorded full-pool trace (JSONL or Parquet) to replay instead of a student."""
    out: Path = Path("runs/compare")
    """Folder of the results."""

    def __post_init__(self):
        if self.student not in STUDENTS:
            raise ValueError(f"student={self.student!r} must be one of {', '.join(STUDENTS)}")
        for name in (*self.selectors, self.reference):
            looked_up(name)
        if self.seeds < 1:
            raise ValueError(f"seeds must be at least 1, got {self.seeds}")
        if self.policy is not None and (self.trace is not None or self.delay):
            raise ValueError(f"policy={self.policy!r} takes no trace and no delay")

    def setting(self) -> Setting:
        """The sizes."""
        given = {"steps": self.steps, "pool": self.pool, "batch": self.batch}
        usual = STUDENT_SIZES if self.policy is None else POLICY_SIZES
        sizes = {n: usual[n] if value is None else value for n, value in given.items()}
        return Setting(rollouts=self.rollouts, delay=self.delay, **sizes)


def _able(
    names: Mapping[str, None], group: int, offered: Container[str], fixed: bool, console: Console
) -> dict[str, Contender]:
    """The contenders that can run; it says who is left out, and why.

    Where numbers of rollouts are fixed, as in the groups of a trace, a selector cannot choose them.
    """
    kept, left = {}, {}
    for name in names:
        made = contender(name, group)
        missing = [column for column in looked_up(name)[0].needs if column not in offered]
        if missing:
            left.setdefault(f"they need the {' and '.join(missing)} of a prompt", []).append(name)
        elif fixed and (made.most is not None or made.screen is not None):
            left.setdefault("they choose how many rollouts a prompt gets", []).append(name)
        else:
            kept[name] = made
    for why, those in left.items():
        text = f"left out, because {why}: {', '.join(those)}"
        console.print(text, highlight=False, soft_wrap=True)
    return kept


def _student(arguments: CompareArguments) -> tuple[str, Student, Setting]:
    """Title, student and sizes of a simulation or a replay."""
    setting = arguments.setting()
    if arguments.trace is None:
        return arguments.student, student(STUDENTS[arguments.student]()), setting
    trace = read_trace(arguments.trace)
    steps = min(setting.steps, int(trace.step.max()) + 1)
    setting = dataclasses.replace(setting, pool=trace.num_prompts, steps=steps)
    return arguments.trace.name, recorded(trace), setting


def _columns(who: Student, pool: int) -> Container[str]:
    return jax.eval_shape(lambda key: who.data(who.init(key, pool)), jax.random.key(0))


def _policy(arguments: CompareArguments) -> PolicyStudent:
    """The policy on its task."""
    assert arguments.policy is not None
    task = operators.operator_chains(arguments.setting().pool)
    weights = operators.base_path() if arguments.policy == "base" else Path(arguments.policy)
    return policy_student(task, weights)


def _policy_runs(arguments: CompareArguments, policy: PolicyStudent) -> Callable[[Contender], Run]:
    """What a contender leaves on every seed, all with the same rollouts."""
    sizes = arguments.setting()
    every = math.gcd(sizes.steps, 20)
    setting = PolicySetting(
        steps=sizes.steps,
        batch=sizes.batch,
        every=every,
        budget=sizes.steps * sizes.batch * sizes.rollouts,
        grpo=GRPOConfig(learning_rate=arguments.learning_rate, rollouts_per_prompt=sizes.rollouts),
    )

    def run(contender: Contender) -> Run:
        program = compile_run(contender, policy, setting)
        return as_run([program(seed) for seed in range(arguments.seeds)], every)

    return run


def run(arguments: CompareArguments, console: Console) -> Comparison:
    """Run the comparison, print it and write its files.

    Args:
        arguments: the options.
        console: where to print.

    Returns:
        the comparison.

    Raises:
        ValueError: if a size, the trace or the weights are not valid.
        OSError: if a file cannot be read or written.
    """
    started = time.perf_counter()
    names = dict.fromkeys((*arguments.selectors, arguments.reference))
    if arguments.policy is None:
        title, who, setting = _student(arguments)
        fixed = arguments.trace is not None
        offered = _columns(who, setting.pool)
        work = functools.partial(
            simulate_seeds, student=who, seeds=arguments.seeds, setting=setting
        )
    else:
        title, setting, fixed = "operator chains", arguments.setting(), True
        offered = ("features",)
        work = _policy_runs(arguments, _policy(arguments))
    contenders = _able(names, setting.rollouts, offered, fixed, console)
    total = len({*contenders, UNIFORM, ORACLE})
    with console.status(f"{total} selectors on {title}, {arguments.seeds} seeds ...") as status:
        done = []

        def report(name: str, seconds: float) -> None:
            done.append(name)
            status.update(f"{len(done)} of {total}: {name} ({seconds:.1f} s)")

        found = compare_runs(
            contenders, work, setting, arguments.seeds, arguments.reference, title, report
        )
    console.print(table(found))
    console.print(finding(found), highlight=False, soft_wrap=True)
    files = write(found, arguments.out)
    console.print(
        f"{total} selectors in {time.perf_counter() - started:.0f} s; {len(files)} files in "
        f"{arguments.out}",
        highlight=False,
        soft_wrap=True,
    )
    return found
