"""Preemption: the first signal asks the run to save and end, the second ends it at once."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Terminated(BaseException):
    """SIGTERM came while there was nothing to save."""


class Request:
    """Whether the run was asked to end.

    Attributes:
        made: it was.
        at_once: it would raise :class:`Terminated`, because nothing has to be saved first.
    """

    def __init__(self, at_once: bool = False) -> None:
        self.made, self.at_once = False, at_once

    def __bool__(self) -> bool:
        return self.made


@contextmanager
def termination(at_once: bool = False) -> Iterator[Request]:
    """Turn SIGTERM into a request while the context is open.

    A second SIGTERM, or Ctrl-C after the first, ends the process at once. Outside the main thread,
    where Python takes no signal handlers, the request is never made.

    Args:
        at_once: raise :class:`Terminated` where the program is, instead of waiting to be noticed.
            The request can change its mind.

    Yields:
        the request.
    """
    request = Request(at_once)
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def ask(number, _frame):
        if request.made:
            os._exit(128 + number)
        request.made = True
        signal.signal(signal.SIGINT, ask)
        if request.at_once:
            raise Terminated

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGTERM, ask)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
