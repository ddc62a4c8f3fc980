"""Ctrl-C and SIGTERM as requests that the loop answers when its state is whole."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

ONE_REQUEST = 1.0
"""Seconds within which signals are one request: a Ctrl-C comes from the terminal and again from a launcher."""


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C or SIGTERM into a polite request; a second Ctrl-C stops at once.

    Yields a function that says whether a stop was asked for. Outside the main thread, where Python sets no handlers, it
    always says no: the caller decides.
    """
    asked: list[float] = []

    def ask(number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if asked and number == signal.SIGINT and now - asked[0] > ONE_REQUEST:
            raise KeyboardInterrupt
        asked.append(now)

    try:
        old = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread
        old = {}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
