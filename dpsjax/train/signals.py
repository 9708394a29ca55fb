"""Preemption: the first signal asks the run to save and end, the second ends it at once."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Request:
    """Whether the run was asked to end."""

    def __init__(self) -> None:
        self.made = False

    def __bool__(self) -> bool:
        return self.made


@contextmanager
def termination() -> Iterator[Request]:
    """Turn SIGTERM into a request while the context is open.

    A second SIGTERM, or Ctrl-C after the first, ends the process at once. Outside the main thread,
    where Python takes no signal handlers, the request is never made.

    Yields:
        the request.
    """
    request = Request()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def ask(number, _frame):
        if request.made:
            os._exit(128 + number)
        request.made = True
        signal.signal(signal.SIGINT, ask)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGTERM, ask)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
