"""`ProgbarLogger`: what Keras's `verbose` shows."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Mapping
from typing import Any, Literal, Protocol

import numpy as np

from normkit._checks import shown
from normkit.callbacks.base import Callback, Logs

__all__ = ["ProgbarLogger", "check_verbose"]


def check_verbose(verbose: int | str) -> None:
    """Raise ValueError if this is not 'auto', 0, 1 or 2."""
    if not np.isscalar(verbose) or verbose not in ("auto", 0, 1, 2):
        raise ValueError(f"verbose must be 'auto', 0, 1 or 2, got {shown(verbose)}")


class _Display(Protocol):
    """What an epoch, an evaluation or a prediction is shown on."""

    def advance(self, logs: Logs) -> None:
        """Count a batch."""

    def finish(self, logs: Logs) -> None:
        """Show the end."""

    def close(self) -> None:
        """Leave it as it stands."""


class _Bar:
    """A bar of tqdm's on the error stream."""

    def __init__(self, title: str, steps: int | None) -> None:
        from tqdm.auto import tqdm

        self._bar = tqdm(total=steps, desc=title, unit="batch", dynamic_ncols=True, file=sys.stderr)

    def advance(self, logs: Logs) -> None:
        if logs:
            self._bar.set_postfix_str(format_logs(logs), refresh=False)
        self._bar.update()

    def finish(self, logs: Logs) -> None:
        if logs:
            self._bar.set_postfix_str(format_logs(logs))
        self._bar.close()

    def close(self) -> None:
        self._bar.close()


class _Line:
    """One printed line at the end."""

    def __init__(self, title: str, steps: int | None) -> None:
        self._title = title
        self._start = time.perf_counter()

    def advance(self, logs: Logs) -> None:
        pass

    def finish(self, logs: Logs) -> None:
        seconds = f"{time.perf_counter() - self._start:.2f}s"
        print(
            " - ".join(part for part in (self._title, seconds, format_logs(logs or {})) if part), flush=True
        )

    def close(self) -> None:
        pass


class ProgbarLogger(Callback):
    """Shows an epoch, an evaluation or a prediction as the `verbose` of that call says.

    ======  ==================================================================================
    0       nothing
    1       a bar on a terminal or in a notebook, if tqdm is installed; else as 2
    2       a printed line at the end
    "auto"  as 1 on a terminal or in a notebook; else nothing
    ======  ==================================================================================
    """

    writes = True

    def __init__(self) -> None:
        self._display: _Display | None = None
        self._fitting = False

    @staticmethod
    def style(verbose: int | str) -> Literal["bar", "line"] | None:
        """Return what `verbose` means here and now."""
        interactive = "ipykernel" in sys.modules or (sys.stderr is not None and sys.stderr.isatty())
        if verbose == 0 or (verbose == "auto" and not interactive):
            return None
        has_bar = interactive and importlib.util.find_spec("tqdm") is not None
        return "bar" if verbose != 2 and has_bar else "line"

    def _open(self, title: str) -> None:
        self.close()
        style = self.style(self.params["verbose"])
        if style is not None:
            self._display = (_Bar if style == "bar" else _Line)(title, self.params["steps"])

    def _finish(self, logs: Logs = None) -> None:
        if self._display is not None:
            self._display.finish(logs)
            self._display = None

    def _advance(self, logs: Logs = None) -> None:
        if self._display is not None:
            self._display.advance(logs)

    def close(self) -> None:
        """Leave an open bar as it stands."""
        if self._display is not None:
            self._display.close()
            self._display = None

    def on_train_begin(self, logs: Logs = None) -> None:
        """From now on validations are not shown."""
        self._fitting = True

    def on_train_end(self, logs: Logs = None) -> None:
        """Show evaluations again."""
        self._fitting = False

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Start an epoch."""
        self._open(f"Epoch {epoch + 1}/{self.params['epochs']}")

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Count a batch."""
        self._advance(logs)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Show the logs of the epoch and of its validation."""
        self._finish(logs)

    def on_test_begin(self, logs: Logs = None) -> None:
        """Start an evaluation."""
        if not self._fitting:
            self._open("Evaluate")

    def on_test_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Count a batch."""
        if not self._fitting:
            self._advance(logs)

    def on_test_end(self, logs: Logs = None) -> None:
        """Show the logs of an evaluation."""
        if not self._fitting:
            self._finish(logs)

    def on_predict_begin(self, logs: Logs = None) -> None:
        """Start a prediction."""
        self._open("Predict")

    def on_predict_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Count a batch."""
        self._advance()

    def on_predict_end(self, logs: Logs = None) -> None:
        """Show the end."""
        self._finish()


def format_logs(logs: Mapping[str, float]) -> str:
    """Return 'loss: 0.1234 - accuracy: 0.9876'; small values as '1.2000e-04'."""
    return " - ".join(f"{name}: {_number(value)}" for name, value in logs.items())


def _number(value: Any) -> str:
    number = float(np.mean(value))
    return f"{number:.4e}" if 0 < abs(number) <= 1e-3 else f"{number:.4f}"
