"""What training shows: a table with a row per finished epoch, and on a terminal a bar within the epoch."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from normkit.callbacks import Callback
from normkit.models import archive

__all__ = ["METRICS", "EpochBar", "EpochTable", "has_terminal"]

METRICS = ("loss", "accuracy", "val_loss", "val_accuracy")

Logs = Mapping[str, float] | None


class EpochTable(Callback):
    """Prints a row per finished epoch, keeps its numbers, and the weights that the model had then.

    Parameters
    ----------
    quiet : bool
        Print nothing.
    options : mapping, optional
        Those of the command. A backup of another 'seed' is not its own.

    Attributes
    ----------
    rows : list of dict
        METRICS of each finished epoch.
    weights : list of ndarray
        Weights at the end of the last finished epoch.
    """

    def __init__(self, quiet: bool, options: Mapping[str, Any] | None = None) -> None:
        self.options = dict(options or {})
        self.rows: list[dict[str, float]] = []
        self.weights: list[NDArray[Any]] = []
        self._quiet = quiet
        self._started = 0.0

    def on_train_begin(self, logs: Logs = None) -> None:
        """Print the head."""
        self._print("epoch  " + "  ".join(f"{name:>9}" for name in METRICS) + "      time")

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Print a row, and keep it."""
        row = {name: float((logs or {})[name]) for name in METRICS}
        self.weights, self.rows = self.model.get_weights(), [*self.rows, row]
        cells = "  ".join(f"{_number(row[name]):>{max(9, len(name))}}" for name in METRICS)
        self._print(f"{epoch + 1:5}  {cells}  {time.perf_counter() - self._started:6.2f} s")

    @property
    def state_label(self) -> str:
        """See `Callback.state_label`."""
        return f"--seed {self.options.get('seed', 0)}"

    def get_state(self) -> dict[str, Any]:
        """Return the rows, the weights and the options."""
        return {"rows": self.rows, "weights": self.weights, "options": self.options}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take over rows and weights of epochs that an earlier process trained."""
        self.rows, self.weights = list(state["rows"]), list(state["weights"])
        if self.rows:
            self._print(f"going on after epoch {len(self.rows)}")

    def other_options(self, backup: Path) -> str:
        """Tell which options a backup was made with, and which there are now; nothing where they are the same."""
        with archive.reading(backup):
            saved = archive.read(backup)[0]["progress"]["callbacks"]
            states = [one["state"] for one in saved if one["class_name"] == type(self).__name__]
            then = dict(states[0]["options"]) if states else self.options
        names = [name for name, value in self.options.items() if then.get(name) != value]
        if not names:
            return ""
        before, now = (
            ", ".join(_option(name, side.get(name)) for name in names) for side in (then, self.options)
        )
        return f"was made with {before}, now {now}"

    def _print(self, line: str) -> None:
        if not self._quiet:
            print(line, flush=True)


class EpochBar(Callback):
    """A bar of tqdm's that is gone when the epoch ends. To be called before an `EpochTable`.

    Raises
    ------
    ModuleNotFoundError
        If tqdm is not installed.
    """

    def __init__(self) -> None:
        from tqdm import tqdm

        self._tqdm = tqdm
        self._bar: Any = None

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Start the bar."""
        self._bar = self._tqdm(
            total=self.params["steps"], desc=f"{epoch + 1:5}", unit="batch", leave=False, dynamic_ncols=True
        )

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Move the bar."""
        self._bar.update()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Clear the bar."""
        self.close()

    def close(self) -> None:
        """Clear the bar, if there is one."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def has_terminal() -> bool:
    """Whether there is a terminal to draw on: the table is on standard output, a bar on standard error."""
    return sys.stdout.isatty() and sys.stderr.isatty()


def _option(name: str, value: Any) -> str:
    """Write an option as on the command line."""
    option = f"--{name.replace('_', '-')}"
    if value is None or value is False:
        return f"no {option}"
    return option if value is True else f"{option} {','.join(value) if isinstance(value, list) else value}"


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.3e}"
