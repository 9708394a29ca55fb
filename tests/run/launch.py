"""Run ``dpsjax train countdown`` in one or several processes, as the hosts of a pod would."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
# The shipped base solves some of these problems, so that there is something to learn from.
SETTINGS = (
    "--task.problems 64 --task.held-out 8 --prompts 8 --grpo.rollouts-per-prompt 4 "
    "--evaluation.every 2 --evaluation.problems 8 --evaluation.samples 1 --checkpoint.every 2"
)


class Processes:
    """Processes that have been started.

    Args:
        count: how many; one is started without a word about processes.
        devices: of each.
        words: options for all.
        own: further options of each.
    """

    def __init__(self, count: int, devices: int, words: list[str], own=()) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        flags = f"--xla_force_host_platform_device_count={devices}"
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
        self.running = []
        for number in range(count):
            command = [
                sys.executable,
                "-m",
                "dpsjax.cli",
                "train",
                "countdown",
                *SETTINGS.split(),
                *words,
            ]
            if count > 1:
                command += ["--coordinator", f"127.0.0.1:{port}"]
                command += ["--processes", str(count), "--process", str(number)]
            command += own[number] if own else []
            process = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            self.running.append(process)

    def wait(self, seconds: float = 300) -> tuple[list[int], list[str]]:
        """Exit codes and outputs; whoever is still there after ``seconds`` is killed."""
        ends = time.monotonic() + seconds
        outputs = []
        for process in self.running:
            try:
                text, _ = process.communicate(timeout=max(ends - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                process.kill()
                text = process.communicate()[0] + "\nKILLED: it was still there"
            outputs.append(text)
        return [process.returncode for process in self.running], outputs

    def wait_for_lines(self, metrics: Path, lines: int, seconds: float = 240) -> None:
        """Wait until a run has written so many steps."""
        ends = time.monotonic() + seconds
        while not metrics.exists() or metrics.read_bytes().count(b"\n") < lines:
            ended = [process for process in self.running if process.poll() is not None]
            if ended or time.monotonic() > ends:
                raise AssertionError(f"no {lines} steps: {self.wait(1)[1]}")
            time.sleep(0.1)


def run(count: int, devices: int, *words: str) -> list[str]:
    """Run to the end, which must be a success; the outputs."""
    codes, outputs = Processes(count, devices, list(words)).wait()
    assert codes == [0] * count, "\n".join(outputs)
    return outputs
