"""`repr` for all that is made from arguments: the class, and the arguments that differ from their defaults."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from normkit._names import parameters, with_keyword_hints

DIGITS = 12  # of a number that is shown in full

__all__ = ["ArrayLikeness", "Described", "called"]


class Described:
    """Base of classes that keep the arguments of `__init__` as attributes of the same name, or with a "_" before it.

    Their `repr` shows these arguments, and a mistyped keyword argument is answered with the one that was meant.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = with_keyword_hints(cls.__init__)  # type: ignore[method-assign]

    def _arguments(self) -> dict[str, Any]:
        """Return the arguments by name; those that are not kept are left out."""
        found = {}
        for name in parameters(type(self)):
            for attribute in (f"_{name}", name):
                if hasattr(self, attribute):
                    found[name] = getattr(self, attribute)
                    break
        return found

    def _state(self) -> dict[str, Any]:
        """Return what `repr` tells besides the arguments."""
        return {}

    def _goes_by(self, name: Any) -> bool:
        """Whether this name is the one of the class, which it has if none is given."""
        return isinstance(name, str) and name.lower().replace("_", "") == type(self).__name__.lower()

    @reprlib.recursive_repr()
    def __repr__(self) -> str:
        try:
            known, arguments = parameters(type(self)), self._arguments()
            shown: list[str] = []
            for name in sorted(arguments, key=list(known).index):
                value = arguments[name]
                parameter = known[name]
                if parameter.kind is parameter.VAR_POSITIONAL:
                    shown += [_written(part) for part in value]
                elif parameter.default is parameter.empty and parameter.kind is not parameter.KEYWORD_ONLY:
                    shown.append(_written(value))
                elif not (_is_default(value, parameter.default) or (name == "name" and self._goes_by(value))):
                    shown.append(f"{name}={_written(value)}")
            shown += [f"{name}={_written(value)}" for name, value in self._state().items()]
        except Exception:  # noqa: BLE001  # half-made, or a subclass with other ideas: a debugger shows these too
            shown = ["..."]
        return f"{type(self).__name__.lstrip('_')}({', '.join(shown)})"


class ArrayLikeness:
    """Stands for an array of which only dtype and shape are to be shown."""

    def __init__(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self.dtype, self.shape = dtype, shape

    def __repr__(self) -> str:
        return f"<{self.dtype} {self.shape}>"


def called(name: str, arguments: Mapping[str, Any]) -> str:
    """Return 'name(argument=value, ...)', each value in short."""
    return f"{name}({', '.join(f'{key}={_written(value)}' for key, value in arguments.items())})"


def _is_default(value: Any, default: Any) -> bool:
    if value is default:
        return True
    if isinstance(value, Described):  # made from a name, such as GlorotUniform() from 'glorot_uniform'
        made = f"{type(value).__name__.lower()}()"
        return isinstance(default, str) and made == f"{default.replace('_', '')}()" == repr(value).lower()
    try:
        value = os.fspath(value) if isinstance(value, os.PathLike) else value
        return bool(value == default or value == (default,))
    except Exception:  # noqa: BLE001  # arrays have no single truth
        return False


class _Short(reprlib.Repr):
    """Values in short: arrays by dtype and shape, long texts and lists cut, functions by name."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 120
        self.maxlong = 40
        self.maxtuple = self.maxlist = self.maxdict = 6
        self.maxlevel = 4

    def repr1(self, x: Any, level: int) -> str:
        if isinstance(x, np.ndarray):
            return f"<{x.dtype} {x.shape}>"
        if isinstance(x, np.generic):
            return self.repr1(x.item(), level)
        if isinstance(x, float):
            return repr(x) if len(repr(x)) <= DIGITS else f"{x:.6g}"
        if isinstance(x, np.dtype):
            return repr(x.name)
        if isinstance(x, Described):
            return repr(x)
        if isinstance(x, os.PathLike):
            return super().repr1(os.fspath(x), level)
        if callable(x) and hasattr(x, "__qualname__"):
            return str(x.__qualname__)
        return super().repr1(x, level)


_short = _Short()


def _written(value: Any) -> str:
    return _short.repr(value)
