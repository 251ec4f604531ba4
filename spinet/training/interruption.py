"""Ctrl-C and SIGTERM: training ends at the end of its step, everything else at once; the second one always at once."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Terminated(KeyboardInterrupt):
    """SIGTERM, where it is not left to end the process without a word."""


def raise_on_sigterm() -> None:
    """Has SIGTERM raise `Terminated`, so that what is said and done on Ctrl-C is said and done on it."""

    def terminate(*_: Any) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)


class Interruption:
    """A block in which, while it `defers`, the first of these signals is noted instead of acted upon.

    Outside the main thread, where no signal can be caught, it does nothing.
    """

    def __init__(self) -> None:
        self.defers = False
        self.noted: int | None = None
        self.before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.defers and self.noted is None:
            self.noted = number
            print("\nstopping at the end of this step; a second signal stops at once", file=sys.stderr, flush=True)
            return
        self.noted = number
        raise self.error()

    def error(self, message: str = "") -> KeyboardInterrupt:
        """What to raise, with what it says."""
        return (Terminated if self.noted == signal.SIGTERM else KeyboardInterrupt)(*([message] if message else []))
