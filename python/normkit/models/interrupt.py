"""`StepGuard`: Ctrl-C during training waits for the end of the step, so that no weight is half updated."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Self

__all__ = ["StepGuard"]


class StepGuard:
    """Holds back KeyboardInterrupt between `begin` and `end`; elsewhere it is raised at once.

    A second Ctrl-C within a step does not wait. Acts only in the main thread, and only if Python's own
    handler is installed.
    """

    def __init__(self) -> None:
        self._in_step = False
        self._pending = False
        self._active = False

    def __enter__(self) -> Self:
        self._active = (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )
        if self._active:
            signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._active:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def begin(self) -> None:
        """Start a step."""
        self._in_step = True

    def end(self) -> None:
        """End the step, and raise KeyboardInterrupt if it was held back."""
        self._in_step = False
        if self._pending:
            self._pending = False
            raise KeyboardInterrupt

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if not self._in_step or self._pending:
            raise KeyboardInterrupt
        self._pending = True
