"""``dpsjax eval``: options, and the whole of an evaluation."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import tyro
from rich.console import Console
from rich.table import Table

from dpsjax import checks
from dpsjax.files import read_json, write_json
from dpsjax.loop.evaluate import uniform_slice
from dpsjax.policy import Sampling
from dpsjax.report.at_k import MOST_SAMPLES, powers_of_two
from dpsjax.report.pool_file import HELD_OUT, write_pool
from dpsjax.report.view.data import EVALUATION, RESPONSES
from dpsjax.run import outputs
from dpsjax.run.config import MeshConfig, TrainConfig, to_dict
from dpsjax.run.evaluation import subject as subject_of
from dpsjax.run.evaluation.answers import Asked, Progress, answer, measures
from dpsjax.run.evaluation.subject import Subject
from dpsjax.run.setup import build_task
from dpsjax.tasks.base import Problem, Task, TaskSettings, stop_ids
from dpsjax.tasks.jsonl import FileSettings
from dpsjax.tasks.registry import name_of

SETTINGS = "settings.json"
# What the name of a benchmark's file holds, small letters and digits alone.
BENCHMARKS = {
    "aime": ("aime",),
    "amc": ("amc",),
    "math-500": ("math500", "testmath"),
    "minerva": ("minerva",),
    "olympiadbench": ("olympiad",),
}
_KINDS = (".json", ".jsonl", ".parquet")


@dataclasses.dataclass(frozen=True)
class EvalArguments:
    """Ask a policy every problem many times: pass@1, pass@k and maj@k, with intervals.

    DIR is the folder of a run; MODEL the folder of a Qwen or Llama checkpoint, a file of weights,
    or base. All responses are kept, for dpsjax view. The same command goes on where it was stopped.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DIR|MODEL")]
    """Whom to ask."""
    task: str | None = None
    """What to ask; the task of the run by default."""
    settings: Annotated[TaskSettings, tyro.conf.arg(name="task")] = dataclasses.field(
        default_factory=TaskSettings
    )
    benchmarks: tuple[str, ...] = ()
    """Published benchmarks of mathematics, by name: aime, amc, math-500, minerva, olympiadbench;
    their files are looked for in --data."""
    data: Path = Path(".")
    """Folder of the benchmarks' files (.json, .jsonl or .parquet)."""
    step: int | None = None
    """Of a run: the step whose checkpoint is asked, 0 for the policy that it began with; the end
    by default."""
    samples: int = 16
    """Responses to each problem."""
    k: tuple[int, ...] = ()
    """For pass@k and maj@k; powers of two up to the samples by default."""
    temperature: float = 1.0
    """Divides the logits; 0 takes the likeliest token (then one sample is enough)."""
    top_k: int = 0
    """Keep the k most likely tokens; 0 for all."""
    top_p: float = 1.0
    """Keep the fewest tokens with at least this probability; 1 for all."""
    split: Literal["held-out", "train"] = "held-out"
    """Which of the task's pools is asked."""
    problems: int | None = None
    """A slice of so many, drawn uniformly and always the same; all by default."""
    rows: int = 16
    """Problems at a time, each with all its samples: what the memory has room for."""
    seed: int = 0
    """Of the sampling."""
    template: tuple[str, ...] = ()
    """What the model's chat template is told, in JSON, such as enable_thinking=false."""
    characters: int = 4000
    """Longest text that is kept; the middle of a longer one is left out."""
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    out: Path | None = None
    """Folder of the results; DIR/evaluations/... for a run, runs/eval-... for a model."""
    restart: bool = False
    """Ask anew, also what was answered already."""

    def __post_init__(self):
        checks.require_counts(samples=self.samples, rows=self.rows, characters=self.characters)
        few = self.samples <= MOST_SAMPLES
        checks.require_setting(few, "samples", self.samples, f"at most {MOST_SAMPLES}")
        for k in self.k:
            checks.require_counts(k=k)
            checks.require_setting(k <= self.samples, "k", k, f"at most samples={self.samples}")
        checks.require_counts(**checks.given(problems=self.problems))
        known = ", ".join(BENCHMARKS)
        for name in self.benchmarks:
            checks.require_setting(name in BENCHMARKS, "benchmarks", name, f"of {known}")


def parse(words: Sequence[str], option: Callable[[Sequence[str], str, str], str]) -> tuple:
    """What was typed, and the policy that it names.

    Args:
        words: after ``dpsjax eval``.
        option: ``option(words, name, otherwise)``: the value of an option.

    Returns:
        ``(EvalArguments, Subject)``.

    Raises:
        ValueError: options that cannot be together.
        OSError: a file or folder is not there.
        SystemExit: help was asked for (0), or an option is wrong (2); tyro has said so.
    """
    task = option(words, "--task", "math" if "--benchmarks" in words else "") or None
    named = words[0] if words and not words[0].startswith("-") else None
    step = option(words, "--step", "")
    found = None
    if named is None and not {"-h", "--help"} & set(words):
        raise ValueError("DIR|MODEL stands first: dpsjax eval DIR [OPTIONS]")
    if named is not None:
        found = subject_of.find(named, task, int(step) if step.isdigit() else None)
    settings = found.config.task if found else TrainConfig().task
    default = EvalArguments(named or tyro.MISSING, task, settings)
    arguments = tyro.cli(EvalArguments, args=list(words), default=default, prog="dpsjax eval")
    assert found is not None  # tyro has shown help and left
    settings = _with_files(arguments)
    model = dataclasses.replace(found.config.model, template=arguments.template)
    if not arguments.template:
        model = found.config.model
    # A batch of one: the size of the pool does not matter.
    rollout = dataclasses.replace(found.config.rollout, prompts=1, keep=None)
    evaluation = dataclasses.replace(found.config.evaluation, problems=None)
    config = dataclasses.replace(
        found.config, task=settings, model=model, rollout=rollout, evaluation=evaluation
    )
    return arguments, found._replace(config=config)


def _with_files(arguments: EvalArguments) -> TaskSettings:
    """The task's settings with the files of the benchmarks, and no need of training problems."""
    settings = arguments.settings
    if arguments.benchmarks:
        if not isinstance(settings, FileSettings):
            raise ValueError("benchmarks are files of the task math: leave out --task")
        files = tuple(benchmark_file(name, arguments.data) for name in arguments.benchmarks)
        settings = dataclasses.replace(settings, test=files, train=())
    if isinstance(settings, FileSettings) and settings.test and arguments.split == "held-out":
        settings = dataclasses.replace(settings, train=settings.test)  # which nobody asks
    return settings


def benchmark_file(name: str, folder: Path) -> Path:
    """The file of a benchmark.

    Args:
        name: of :data:`BENCHMARKS`.
        folder: where it lies.

    Raises:
        FileNotFoundError: there is none.
        ValueError: there are several.
    """
    marks = BENCHMARKS[name]
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        plain = "".join(letter for letter in path.stem.lower() if letter.isalnum())
        if path.suffix in _KINDS and any(mark in plain for mark in marks):
            found.append(path)
    if not found:
        raise FileNotFoundError(
            f"benchmarks={name!r}: no file in data={str(folder)!r} has "
            f"{' or '.join(marks)} in its name; --task math --task.test FILE takes any"
        )
    if len(found) > 1:
        listed = ", ".join(path.name for path in found)
        raise ValueError(f"benchmarks={name!r}: {listed} fit; say --task math --task.test FILE")
    return found[0]


def run(arguments: EvalArguments, subject: Subject, console: Console) -> dict[str, Any]:
    """Evaluate, and write everything.

    Args:
        arguments: the options.
        subject: of :func:`parse`.
        console: for progress and the table.

    Returns:
        the result, as it is in ``evaluation.json``.

    Raises:
        ValueError: settings that do not fit each other, or those of the folder.
        OSError: something cannot be read or written.
        ImportError: an extra is not installed.
    """
    if jax.process_count() > 1:
        raise ValueError("dpsjax eval runs in one process: give each host problems of its own")
    begun = time.monotonic()
    task = build_task(subject.config)
    problems = task.test if arguments.split == "held-out" else task.train
    if arguments.problems is not None:
        problems = uniform_slice(problems, arguments.problems)
    folder = arguments.out or _folder(arguments, subject)
    _open(folder, _record(arguments, subject, task, problems), restart=arguments.restart)
    write_pool(folder, problems, HELD_OUT)

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    policy, params, mesh = subject_of.load(subject, task, arguments.mesh)
    asked = Asked(
        policy=policy,
        compute=subject.config.model.compute(),
        params=params,
        mesh=mesh,
        task=task,
        problems=problems,
        sampling=_sampling(arguments, task),
        samples=arguments.samples,
        rows=min(arguments.rows, len(problems)),
        seed=arguments.seed,
        step=subject.step,
        characters=arguments.characters,
    )
    say(f"{len(problems)} problems x {arguments.samples} responses, to {folder}")
    report = Progress(len(problems), arguments.samples, say)
    lines = answer(asked, folder / RESPONSES, report)
    result = measures(lines, arguments.samples, arguments.k or powers_of_two(arguments.samples))
    result |= {
        "model": arguments.model,
        "step": subject.step,
        "task": name_of(subject.config.task),
        "temperature": arguments.temperature,
        "seconds": round(time.monotonic() - begun, 1),
    }
    outputs.write_json(folder / EVALUATION, result)  # the measures in their order
    console.print(table(result))
    if result["unscored"]:
        say(f"{result['unscored']} responses without a verdict count as wrong")
    say(f"results in {folder}; dpsjax view {folder} shows the responses")
    return result


def _sampling(arguments: EvalArguments, task: Task) -> Sampling:
    return Sampling(
        max_tokens=task.response_tokens,
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        stop_ids=stop_ids(task.tokenizer),
        pad_id=task.tokenizer.pad_id,
    )


def _folder(arguments: EvalArguments, subject: Subject) -> Path:
    """A folder of its own for each policy and task."""
    settings = subject.config.task
    words = [subject.name(), name_of(settings).replace(":", "-")]
    if isinstance(settings, FileSettings):
        words += [path.stem for path in settings.test[:5]]
    words += [arguments.split] * (arguments.split != "held-out") + [f"x{arguments.samples}"]
    marks = {"t": "temperature", "k": "top_k", "p": "top_p", "of": "problems", "seed": "seed"}
    for mark, field in marks.items():  # what is asked in another way stands beside it
        value = getattr(arguments, field)
        words += [] if value == _usual(field) else [f"{mark}{value:g}"]
    name = "-".join(words)
    if subject.run is None:
        return Path("runs") / f"eval-{name}"
    return subject.run / "evaluations" / name


def _usual(field: str) -> Any:
    """The default of an option."""
    return next(f.default for f in dataclasses.fields(EvalArguments) if f.name == field)


def _record(
    arguments: EvalArguments, subject: Subject, task: Task, problems: Sequence[Problem]
) -> dict[str, Any]:
    """What decides the responses; an evaluation goes on only where it is the same."""
    of_no_account = ("out", "restart", "k", "mesh", "settings", "model", "task", "data")
    typed = dataclasses.asdict(arguments)
    values = {name: value for name, value in typed.items() if name not in of_no_account}
    return {
        **{n: list(v) if isinstance(v, tuple) else v for n, v in values.items()},
        "step": subject.step,
        "task": to_dict(subject.config)["task"],
        "weights": subject_of.digest(subject),
        "fingerprint": task.fingerprint(),
        "asked": len(problems),
        **dict(task.inputs),
    }


def _open(folder: Path, record: dict[str, Any], *, restart: bool) -> None:
    """Make the folder, or make sure that it holds an earlier part of the same."""
    path = folder / SETTINGS
    if path.exists() and not restart:
        before = read_json(path)
        other = sorted(n for n in {*before, *record} if before.get(n) != record.get(n))
        if other:
            raise ValueError(
                f"{folder} holds an evaluation with another {', '.join(other)}: choose another "
                "--out, or ask anew with --restart"
            )
    elif not path.exists() and (folder / RESPONSES).exists():
        raise ValueError(f"out={str(folder)!r} holds responses of something else: choose another")
    else:
        (folder / RESPONSES).unlink(missing_ok=True)
    (folder / EVALUATION).unlink(missing_ok=True)
    write_json(path, record)


def table(result: dict[str, Any]) -> Table:
    """A result for people: percent, with the 95 % interval.

    Args:
        result: of :func:`dpsjax.run.evaluation.answers.measures`.

    Returns:
        a row for each source, and for all.
    """
    names = list(result["all"]["measures"])
    shown = [name for name in names if name in ("pass@1", names[-1])]
    shown += [name for name in names if name.startswith("pass@") and name not in shown][-1:]
    shown = [name for name in names if name in shown]
    made = Table(box=None, pad_edge=False)
    made.add_column("source")
    made.add_column("problems", justify="right")
    for name in shown:
        made.add_column(f"{name} %", justify="right", no_wrap=True)
    several = len(result["sources"]) > 1
    rows = [*(result["sources"].items() if several else ()), ("all", result["all"])]
    for source, of in rows:
        cells = [
            f"{100 * m['value']:.1f} ({100 * m['low']:.1f}-{100 * m['high']:.1f})"
            for m in (of["measures"][name] for name in shown)
        ]
        made.add_row(source, f"{of['problems']:,}", *cells)
    return made
