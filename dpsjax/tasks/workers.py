"""Scoring in processes of its own, with a deadline: a verifier may hang, die or eat all memory.

Plain Python that ends by itself, such as Countdown's, needs none of this. Symbolic mathematics,
code that is run, and anything that only works in a main thread do.
"""

import dataclasses
import json
import multiprocessing
import os
import pickle
import signal
import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

from dpsjax import checks
from dpsjax.tasks.base import LostScores, Problem, Score, Scorer

# A worker imports the verifier, and that may import anything.
_START_SECONDS = 120.0
# After so many lost workers in a row the rest of a call is given up: every one costs a deadline.
_MOST_LOST = 4
# What a worker may need beyond what it has when it is ready, where responses are graded one by one.
_MEMORY_BYTES = 2 << 30


class _Worker(NamedTuple):
    """A process and the pipe to it."""

    process: Any
    pipe: Connection

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


class _Job(NamedTuple):
    """Responses ``start..stop`` on a worker's desk; the next ``size`` are due at ``deadline``."""

    worker: _Worker
    start: int
    stop: int
    size: int
    deadline: float


class ScoringWorkers:
    """A scorer that has others do its work, and does not wait for them for ever.

    Responses to the same problem go to a worker together. If it does not answer in time, or dies,
    it is killed and replaced, and only these responses have no verdict. Workers see no accelerator
    (``JAX_PLATFORMS=cpu``), are started when they are first needed, and end with this process.

    Args:
        score: the verifier; a function that can be pickled, so one of a module.
        count: workers.
        seconds: what a worker may take for the responses to one problem, or for one response.
        one_by_one: each response by itself: what hangs or dies costs one response, and a worker
            has two gigabytes for it.

    Raises:
        TypeError: ``score`` is no function, or ``count`` or ``seconds`` no number.
        ValueError: ``count`` or ``seconds`` is out of range, or ``score`` cannot be pickled.
    """

    def __init__(
        self, score: Scorer, count: int = 2, seconds: float = 30.0, *, one_by_one: bool = False
    ) -> None:
        checks.require_callable(score=score)
        checks.require_counts(count=count)
        checks.require_real(seconds=seconds)
        if not 0 < seconds < float("inf"):
            raise ValueError(f"seconds={seconds!r} must be above 0 and finite")
        try:
            pickle.dumps(score)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ValueError(
                f"score={score!r} cannot be sent to another process ({error}): make it a function "
                "at the top level of a module"
            ) from error
        checks.require_type(bool, "a boolean", one_by_one=one_by_one)
        self.score, self.count, self.seconds = score, count, seconds
        self.one_by_one = one_by_one
        self._idle: list[_Worker] = []

    def __call__(self, problems: Sequence[Problem], responses: Sequence[str]) -> list[Score]:
        """Score responses.

        Args:
            problems: one for each response.
            responses: decoded.

        Returns:
            their scores.

        Raises:
            LostScores: some have none; it holds those of the others.
        """
        scores: list[Score | None] = [None] * len(responses)
        errors: list[str] = []
        waiting, busy, lost = deque(runs(problems)), {}, 0
        while waiting or busy:
            if waiting and lost >= _MOST_LOST:
                errors += [f"given up: {lost} workers were lost before"] * len(waiting)
                waiting.clear()
            while waiting and len(busy) < self.count:
                job = self._hand_out(*waiting.popleft(), problems, responses)
                busy[job.worker.pipe] = job
            for pipe in _next(busy.values()):
                job = busy.pop(pipe)
                answer, alive = self._collect(job)
                lost = 0 if alive else lost + 1
                done = job.start + job.size
                if isinstance(answer, str):
                    errors.append(answer)
                else:
                    scores[job.start : done] = answer
                if done == job.stop:
                    self._idle += [job.worker] * alive
                elif alive:
                    due = time.monotonic() + self.seconds
                    busy[pipe] = job._replace(start=done, deadline=due)
                else:
                    waiting.appendleft((done, job.stop))
        if errors:
            raise LostScores(scores, errors)
        return [score for score in scores if score is not None]

    def start(self) -> None:
        """Start a first worker now, so that what can never start is an error before any rollout.

        Raises:
            ValueError: it ended, or did not answer in time; with the likely cause.
        """
        if not self._idle:
            self._idle.append(self._start())

    def close(self) -> None:
        """End the workers; a later call starts others."""
        while self._idle:
            self._idle.pop().kill()

    def _hand_out(
        self, start: int, stop: int, problems: Sequence[Problem], responses: Sequence[str]
    ) -> _Job:
        worker = self._idle.pop() if self._idle else self._start()
        try:
            worker.pipe.send((_blind(problems[start:stop]), list(responses[start:stop])))
        except OSError:  # it died while it was idle, or at its start
            worker.kill()
            worker = self._start()
            worker.pipe.send((_blind(problems[start:stop]), list(responses[start:stop])))
        size = 1 if self.one_by_one else stop - start
        return _Job(worker, start, stop, size, time.monotonic() + self.seconds)

    def _start(self) -> _Worker:
        return _start(self.score, self.one_by_one)

    def _collect(self, job: _Job) -> tuple[list[Score] | str, bool]:
        """What a worker has to say, and whether it lives; one that has nothing is killed."""
        try:
            if job.worker.pipe.poll():
                answer = json.loads(job.worker.pipe.recv_bytes())
                if not isinstance(answer, str):
                    answer = [Score(*score) for score in answer]
                if isinstance(answer, list) and len(answer) != job.size:
                    return f"{len(answer)} scores came back for {job.size} responses", True
                return answer, True
            fault = f"no answer within {self.seconds} seconds, the worker was killed"
        except Exception as error:  # whatever cannot be received or read
            job.worker.process.join(1)
            code = job.worker.process.exitcode
            fault = f"a worker ended with code {code} ({type(error).__name__})"
        job.worker.kill()
        return fault, False


def _blind(problems: Sequence[Problem]) -> list[Problem]:
    """The problem of a run without its pictures, which verdicts do not need."""
    first = problems[0]
    return [dataclasses.replace(first, images=()) if first.images else first] * len(problems)


def runs(problems: Sequence[Problem]) -> Iterator[tuple[int, int]]:
    """Bounds of each run of the same problem.

    >>> a, b = Problem("a", 1, ""), Problem("b", 2, "")
    >>> list(runs([a, a, b]))
    [(0, 2), (2, 3)]
    """
    checks.require_type(Sequence, "a sequence of problems", problems=problems)
    start = 0
    for place in range(1, len(problems) + 1):
        if place == len(problems) or problems[place] is not problems[start]:
            yield start, place
            start = place


def _next(jobs: Collection[_Job]) -> list[Connection]:
    """Pipes of the jobs that are over, one way or the other; waits for the first."""
    first = min(job.deadline for job in jobs)
    ready = wait([job.worker.pipe for job in jobs], max(first - time.monotonic(), 0))
    over = [job.worker.pipe for job in jobs if job.deadline <= time.monotonic()]
    return list({pipe: None for pipe in (*ready, *over) if isinstance(pipe, Connection)})


def _start(score: Scorer, one_by_one: bool) -> _Worker:
    """Start a worker and wait until it has imported the verifier."""
    context = multiprocessing.get_context("spawn")  # a fork would share locks and devices
    ours, theirs = context.Pipe()
    pipe: Any = ours  # typed as another class on Windows
    process = context.Process(target=_serve, args=(theirs, score, one_by_one), daemon=True)
    before = os.environ.get("JAX_PLATFORMS")
    os.environ["JAX_PLATFORMS"] = "cpu"  # read by the child alone: JAX is imported here
    try:
        process.start()
    finally:
        if before is None:
            del os.environ["JAX_PLATFORMS"]
        else:
            os.environ["JAX_PLATFORMS"] = before
    theirs.close()
    worker = _Worker(process, pipe)
    try:
        if ours.poll(_START_SECONDS):
            ours.recv_bytes()
            return worker
        fault = f"did not start within {_START_SECONDS:.0f} seconds"
    except EOFError:
        process.join()
        fault = f"ended with code {process.exitcode} at its start"
    worker.kill()
    raise ValueError(
        f"a worker that scores responses {fault}: what it printed stands above. A script that "
        "trains needs `if __name__ == '__main__':` around its calls, for a worker imports it; the "
        "verifier's module must import without this process's state"
    )


def _serve(pipe: Connection, score: Scorer, one_by_one: bool) -> None:
    """What a worker does until its parent is gone.

    It answers in JSON: a worker handles hostile text, so what it sends is never unpickled.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    if one_by_one:
        score([], [])  # a verifier imports what it needs, which is no response's fault
        _limit_memory()
    pipe.send_bytes(b"ready")
    while True:
        try:
            problems, responses = pipe.recv()
        except EOFError:
            return
        size = 1 if one_by_one else len(problems)
        for start in range(0, len(problems), max(size, 1)):
            part = slice(start, start + size)
            pipe.send_bytes(_answer(score, problems[part], responses[part]))


def _answer(score: Scorer, problems: Sequence[Problem], responses: Sequence[str]) -> bytes:
    """Scores, or what went wrong, as JSON."""
    try:
        scores = score(problems, responses)
        plain = [(float(s.reward), bool(s.correct), str(s.reason), str(s.answer)) for s in scores]
        return json.dumps(plain).encode()
    except Exception as error:  # a verifier is foreign code
        return json.dumps(f"{type(error).__name__}: {str(error)[:1000]}").encode()


def _limit_memory() -> None:
    """Let an allocation beyond the limit fail in this process, where the system can do that."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
        most = pages * resource.getpagesize() + _MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))
    except (ImportError, OSError, ValueError):
        return  # another system; the deadline holds everywhere
