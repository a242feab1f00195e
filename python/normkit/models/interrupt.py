"""`Interrupts`: Ctrl-C during training waits until the model is whole and training could go on from there."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self

__all__ = ["Interrupts"]


class Interrupts:
    """Holds back KeyboardInterrupt until `check`, or raises it at once in an `allowed` block.

    A second Ctrl-C does not wait. Acts only in the main thread, and only if Python's own handler is installed.

    Attributes
    ----------
    resumable : bool
        Whether the KeyboardInterrupt that was raised has waited for such a place.
    """

    def __init__(self) -> None:
        self.resumable = False
        self._pending = False
        self._allowed = False
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
        if exc is None:
            self.check()

    def check(self) -> None:
        """Raise KeyboardInterrupt if it was held back: training can go on from here."""
        if self._pending:
            self._pending = False
            self.resumable = True
            raise KeyboardInterrupt

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Let KeyboardInterrupt be raised anywhere in a block that training can go on from as if it had not begun."""
        self.check()
        self._allowed = True
        try:
            yield
        finally:
            self._allowed = False

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self._allowed:
            self._allowed = False
            self.resumable = True
            raise KeyboardInterrupt
        if self._pending:
            self._pending = self.resumable = False
            raise KeyboardInterrupt
        self._pending = True
