"""The command line: ``dpsjax train TASK [options]`` and others.

Every command is a dataclass of settings; tyro makes the options and their help from it.
"""

import errno
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any

# Before JAX is imported: the C++ logs of XLA say nothing that a user could act on.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

import tyro
from rich.console import Console
from rich.markup import escape

import dpsjax
from dpsjax.loop.compilation import use_compilation_cache
from dpsjax.run.backend import require_backend
from dpsjax.run.config import TrainConfig, to_dict
from dpsjax.run.language import is_checkpoint_folder
from dpsjax.run.presets import resolved
from dpsjax.run.processes import connect, is_first, run_together
from dpsjax.tasks.registry import ENTRIES, name_of
from dpsjax.train_arguments import TrainArguments, option, parse_train, read_record

_TASKS = "\n".join(f"  train {entry.name:<12}{entry.summary}" for entry in ENTRIES)
USAGE = f"""\
usage: dpsjax COMMAND [OPTIONS]

Vectorized Bayesian curricula for RL finetuning.

commands:
{_TASKS}
  train MODULE:CLASS  a task of your own
  compare           compare selectors on simulated students or on recorded rollouts
  doctor TRACE      what is wasted in recorded rollouts, anybody's
  eval DIR|MODEL    pass@1, pass@k and maj@k of a run's policy or a model's
  log DIR           send a run's metrics to TensorBoard, Weights & Biases or MLflow
  view DIR          one page of a run to look at: curves, prompts, responses
  plan              will a run fit on a TPU slice, and how long will a step take

options:
  -h, --help        show this message; after a command: its options
  --version         show the version
"""

# 1 is a failure of the program, 2 a mistake in what was typed, 3 a plan that does not fit, 130 the
# shell's for Ctrl-C.
FAILED, BAD_INPUT, DOES_NOT_FIT, INTERRUPTED = 1, 2, 3, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: what was typed after ``dpsjax``; the process's own by default.

    Returns:
        the exit code: 0, 1 when a run had to stop, 2 for a mistake in what was typed, 130 when
        interrupted.
    """
    if arguments is None:
        _use_utf8()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if other := [word for word in words if word != word.encode("utf-8", "ignore").decode()]:
        return _complain(f"{other[0]!a} is not UTF-8: rename it, or type it in UTF-8")
    if words[:1] == ["--version"]:
        print(f"dpsjax {dpsjax.__version__}")
        return 0
    if words[:1] == ["train"] and words[1:2] and _is_task(words[1]):
        return train(words[1], words[2:])
    if words and words[0] in _COMMANDS:
        return _COMMANDS[words[0]](words[1:])
    if not words or words[words[0] == "train" :][:1] in (["-h"], ["--help"]):
        print(USAGE, end="")
        return 0
    return _complain(f"there is no command {' '.join(words[:2])!r}; see dpsjax --help")


def _is_task(word: str) -> bool:
    return ":" in word or word in [entry.name for entry in ENTRIES]


def _use_utf8() -> None:
    """Start again in UTF-8 mode where the locale has other paths: checkpoints know UTF-8 alone."""
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def train(task: str, words: Sequence[str]) -> int:
    """``dpsjax train TASK``.

    Args:
        task: its name.
        words: the options.

    Returns:
        the exit code.
    """
    try:
        parsed = parse_train(words, task)
        if parsed.plan is not None:
            return _plan_train(parsed, parsed.plan)
        connect(parsed.hosts)
        require_backend()
        use_compilation_cache()
    except (ValueError, OSError) as error:
        return _complain(str(error))
    return run_together(lambda: _train(parsed, words))


def _plan_train(parsed: TrainArguments, topology: str) -> int:
    from dpsjax.plan import command  # only a plan needs the models and the compiler

    auto = parsed.layout == "auto"
    return _planned(
        lambda console: (
            command.run_train(parsed.config, topology, auto, parsed.planning, console).fits
        )
    )


def _train(parsed: TrainArguments, words: Sequence[str]) -> int:
    import jax  # it and the rest are not needed to show help

    from dpsjax.run.checkpoint import one_report
    from dpsjax.run.signals import Terminated, termination

    console = Console(quiet=not is_first())
    folder = str(parsed.config.folder())

    def say(text: str) -> None:
        console.print(escape(text), highlight=False, soft_wrap=True)

    try:
        # Before the first step and after the last there is nothing that is not on the disk; but of
        # several processes none may leave the others alone.
        with one_report(), termination(at_once=jax.process_count() == 1):
            return _start_and_finish(parsed, words, console, say)
    except Terminated:
        say(f"stopped by SIGTERM, there was nothing to save; the same command continues {folder}")
        return 0
    except KeyboardInterrupt:
        say(f"interrupted; the same command continues from the last checkpoint in {folder}")
        return INTERRUPTED


def _start_and_finish(
    parsed: TrainArguments, words: Sequence[str], console: Console, say: Callable[[str], None]
) -> int:
    from dpsjax.plan.layout import auto_layout
    from dpsjax.report.trackers import Live
    from dpsjax.run import run as runs
    from dpsjax.run.agreement import DisagreementError
    from dpsjax.run.faults import NonFiniteError

    folder = str(parsed.config.folder())
    if is_checkpoint_folder(parsed.config.model.init):
        say(_of_language_model(parsed.config))
    if parsed.preset:
        say(resolved(parsed.preset, to_dict(parsed.config)))
    command = shlex.join(["dpsjax", "train", name_of(parsed.config.task), *words])
    try:
        trackers = [Live(name) for name in dict.fromkeys(parsed.log)]
        config = parsed.config
        if parsed.layout == "auto":
            config, sentence = auto_layout(config, parsed.restart)
            say(sentence)
        started = runs.start(
            config,
            command,
            say,
            allow=parsed.allow,
            restart=parsed.restart,
            recorded=read_record(parsed.from_)["inputs"] if parsed.from_ else None,
        )
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return _cannot_write(error, folder)
        return _complain(str(error))
    except (ValueError, ImportError) as error:
        return _complain(str(error))
    if started.finished:
        started.close()
        say(f"{folder} is finished: {started.position.step} steps are done; --steps for more")
        return 0
    try:
        summary = runs.finish(started, console, trackers)
    except OSError as error:  # a full disk
        return _cannot_write(error, folder)
    except (NonFiniteError, DisagreementError, ValueError) as error:
        return _complain(str(error), FAILED)
    if summary is None:
        say(f"stopped by SIGTERM, everything is saved; the same command continues {folder}")
        return 0
    say(
        f"held-out accuracy {summary['accuracy_before']:.3f} -> {summary['accuracy_after']:.3f}, "
        f"greedy {summary['greedy_before']:.3f} -> {summary['greedy_after']:.3f}, "
        f"effective ratio {summary['effective_ratio']:.2f}, "
        f"{summary['coverage']} of {summary['pool']} prompts visited, "
        f"{summary['rollouts']:,} rollouts in {summary['seconds']:.0f} s; results in {folder}"
    )
    return 0


def _cannot_write(error: OSError, folder: str) -> int:
    fix = f"nothing saved is lost: once that is mended, the same command continues {folder}"
    return _complain(f"{error}; {fix}", FAILED)


def _of_language_model(config: TrainConfig) -> str:
    """The settings that a language model does not share with a small policy, as they were resolved.

    >>> from dpsjax.run.config import TrainConfig
    >>> _of_language_model(TrainConfig())
    'learning rate 0.0005, float32, remat none, layers unrolled, responses of 14 tokens'
    """
    model, tokens = config.model, vars(config.task).get("response_tokens")
    layers = "scanned" if model.scan_layers else "unrolled"
    return (
        f"learning rate {config.grpo.learning_rate:g}, {model.dtype}, remat {model.remat}, layers "
        f"{layers}" + ("" if tokens is None else f", responses of {tokens:,} tokens")
    )


def compare(words: Sequence[str]) -> int:
    """``dpsjax compare``: the words after it; the exit code."""
    from dpsjax.lab import command  # the laboratory is not needed to train

    def run(arguments: command.CompareArguments) -> str:
        require_backend()
        command.run(arguments, Console())
        return ""

    return _tool("compare", command.CompareArguments, run, words)


def doctor(words: Sequence[str]) -> int:
    """``dpsjax doctor``: the words after it; the exit code."""
    from dpsjax.lab.doctor import command

    return _tool("doctor", command.DoctorArguments, command.run, words)


def evaluate(words: Sequence[str]) -> int:
    """``dpsjax eval``: the words after it; the exit code."""
    from dpsjax.run.evaluation import command  # the policy is not needed to show help

    try:
        arguments, subject = command.parse(words, option)
        require_backend()
        use_compilation_cache()
        command.run(arguments, subject, Console())
    except (ValueError, OSError, ImportError) as error:
        return _complain(str(error))
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def log(words: Sequence[str]) -> int:
    """``dpsjax log``: the words after it; the exit code."""
    from dpsjax.report import log_command

    return _tool("log", log_command.LogArguments, log_command.run, words)


def view(words: Sequence[str]) -> int:
    """``dpsjax view``: the words after it; the exit code."""
    from dpsjax.report.view import command

    return _tool("view", command.ViewArguments, command.run, words)


def _tool(name: str, settings: type, run: Callable[[Any], str], words: Sequence[str]) -> int:
    """A command that prints a text."""
    try:
        print(run(tyro.cli(settings, args=list(words), prog=f"dpsjax {name}")), end="")
    except (ValueError, OSError, ImportError) as error:
        return _complain(str(error))
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def plan(words: Sequence[str]) -> int:
    """``dpsjax plan``: the words after it; the exit code, 3 where the run does not fit."""
    from dpsjax.plan import command

    try:
        arguments = tyro.cli(command.PlanArguments, args=list(words), prog="dpsjax plan")
    except ValueError as error:
        return _complain(str(error))
    return _planned(lambda console: command.run(arguments, console).fits)


def _planned(fits: Callable[[Console], bool]) -> int:
    """The exit code of a plan; ``fits`` makes it."""
    from dpsjax.plan.compiler import is_abandoned

    try:
        code = 0 if fits(Console()) else DOES_NOT_FIT
    except (ValueError, OSError, ImportError) as error:
        code = _complain(str(error))
    except KeyboardInterrupt:
        code = INTERRUPTED
    if is_abandoned():  # the interpreter cannot end under a compiler that works on
        sys.stdout.flush()
        os._exit(code)
    return code


_COMMANDS = {
    "compare": compare,
    "doctor": doctor,
    "eval": evaluate,
    "log": log,
    "plan": plan,
    "view": view,
}


def _complain(message: str, code: int = BAD_INPUT) -> int:
    console = Console(stderr=True)
    console.print(f"[bold red]dpsjax:[/] {escape(message)}", highlight=False, soft_wrap=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
