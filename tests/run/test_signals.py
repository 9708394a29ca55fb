"""SIGTERM in every phase of a command: exit 0 and a message, and the same command goes on."""

import os
import signal
import time

import pytest

from dpsjax import cli
from dpsjax.run import run, training
from dpsjax.run.signals import Terminated, termination
from tests.test_cli import TINY


def signalled(real):
    """``real``, but SIGTERM comes when it begins, and it has a while to go."""

    def wrapped(*arguments, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000):
            time.sleep(0.001)
        return real(*arguments, **options)

    return wrapped


@pytest.mark.parametrize(
    ("module", "name"), [(run, "prepare"), (run, "_open"), (training, "_evaluate")]
)
def test_before_the_first_step_there_is_nothing_to_save(
    tmp_path, monkeypatch, capsys, module, name
):
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(module, name, signalled(getattr(module, name)))
    assert cli.main([*TINY, "--out", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr().out
    assert "stopped by SIGTERM" in shown and f"the same command continues {tmp_path}" in shown
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert signal.getsignal(signal.SIGTERM) is before


def test_after_the_last_step_everything_is_saved(tmp_path, monkeypatch, capsys):
    words = [*TINY, "--out", str(tmp_path / "run")]
    with monkeypatch.context() as patched:
        patched.setattr(run, "_export", signalled(run._export))
        assert cli.main(words) == 0
    assert "stopped by SIGTERM" in capsys.readouterr().out
    assert (tmp_path / "run" / "checkpoints" / "2").is_dir()
    assert not (tmp_path / "run" / "summary.json").exists()
    assert cli.main(words) == 0
    shown = capsys.readouterr().out
    assert "continuing after step 2" in shown and "results in" in shown and "step 1/2" not in shown
    assert (tmp_path / "run" / "summary.json").exists()


def test_a_request_waits_to_be_noticed_or_not():
    with termination() as asked:
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked
    with pytest.raises(Terminated), termination(at_once=True):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
    with termination(at_once=True) as asked:
        asked.at_once = False
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked
