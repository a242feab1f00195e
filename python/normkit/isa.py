"""Which instruction set the kernels run on.

The best one that this CPU supports is chosen at the first call, or the one that the environment variable
NORMKIT_ISA names. avx2, avx512, avx512_wide (the same with doubles in whole registers, for Intel)
and neon give the same bits.
"""

from __future__ import annotations

from types import TracebackType

from normkit import _core
from normkit._names import did_you_mean

__all__ = ["active", "available", "use"]


def available() -> list[str]:
    """Names of the instruction sets that this build has and this CPU runs, best first."""
    return _core.isa_available()


def active() -> str:
    """Name of the instruction set that the kernels run on."""
    return _core.isa_active()


def use(name: str) -> _Restore:
    """Run the kernels on the named instruction set from now on.

    Parameters
    ----------
    name : str
        One of `available()`.

    Returns
    -------
    context manager
        Use it in a ``with`` statement to go back at its end to the instruction set that was active before.

    Raises
    ------
    ValueError
        If the name is unknown or this CPU does not support it; the message lists what there is.
    TypeError
        If the name is no string.

    Notes
    -----
    The instruction set is the process's, not the thread's: other threads' calls that begin from now on run on it too. A
    call that is running keeps the one that it began with. What is made of several calls, as `ghost_batch_norm` is, may
    see a change between two of them.

    ``with`` blocks of several threads must not overlap. Each goes back to what was active as it began, so the block that
    ends last decides, and may leave the instruction set of another block behind.
    """
    if not isinstance(name, str):
        raise TypeError(
            f"isa.use: name must be one of {', '.join(available())}, got {name!r} of type {type(name).__name__}"
        )
    previous = active()
    try:
        _core.isa_use(name)
    except ValueError as error:
        raise ValueError(f"{error}{did_you_mean(name, available())}") from None
    return _Restore(previous)


class _Restore:
    """Goes back to an instruction set at the end of a ``with`` block."""

    def __init__(self, previous: str) -> None:
        self._previous = previous

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _core.isa_use(self._previous)
