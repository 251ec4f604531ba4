"""Ctrl-C and SIGTERM. Training stops after its current step; a second signal stops it immediately, like all else."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Terminated(KeyboardInterrupt):
    """Raised on SIGTERM, so that the process can report before it ends."""


def raise_on_sigterm() -> None:
    """Makes SIGTERM raise `Terminated`, so that it is handled like Ctrl-C."""

    def terminate(*_: Any) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)


class Interruption:
    """A context that, while it `defers`, records the first of `SIGNALS` instead of raising.

    Outside the main thread it does nothing, because signals cannot be caught there.
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
            print("\nstopping at the end of this step; a second signal stops immediately", file=sys.stderr, flush=True)
            return
        self.noted = number
        raise self.error()

    def error(self, message: str = "") -> KeyboardInterrupt:
        """The exception to raise, with its message."""
        return (Terminated if self.noted == signal.SIGTERM else KeyboardInterrupt)(*([message] if message else []))
