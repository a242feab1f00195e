"""Names that somebody types: what was meant by a mistyped one, and which names a module shows."""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

__all__ = ["choices", "did_you_mean", "parameters", "show_public_names", "with_keyword_hints"]

F = TypeVar("F", bound=Callable[..., Any])

LONGEST = 100  # characters of a name that is worth comparing


def did_you_mean(name: object, names: Iterable[str]) -> str:
    """Return "; did you mean 'adam'?" for 'adma', to be put at the end of a message; "" if nothing is close.

    Case and underscores do not count. Close are, the first first: names with the same letters; those that begin with what
    was given, 'BatchNorm'; those that have its letters in this order, 'sparse_crossentropy'; those that differ in a few
    letters; and those whose words begin with its letters, 'lr' for 'learning_rate' and 'mse' for 'MeanSquaredError'.
    """
    import difflib  # needed by errors alone

    there_are = list(names)
    if not isinstance(name, str) or len(name) > LONGEST or name in there_are:
        return ""
    given = _letters(name)
    known = sorted({_letters(other): other for other in reversed(there_are)}.items(), key=lambda n: len(n[0]))
    close = difflib.get_close_matches(given, [letters for letters, _ in known])
    meant = [letters for letters, _ in known if letters == given]
    meant += [letters for letters in close if sorted(letters) == sorted(given)]
    if len(given) > 2:
        meant += [letters for letters, _ in known if letters.startswith(given)]
        meant += [letters for letters, _ in known if _has_in_order(letters, given)]
    meant += close
    meant += [letters for letters, other in known if given == _initials(other)]
    return f"; did you mean '{dict(known)[meant[0]]}'?" if meant else ""


def _letters(name: str) -> str:
    return name.lower().replace("_", "") or name


def _has_in_order(letters: str, given: str) -> bool:
    """Whether all letters that were given are in a name, in this order, the first first, and not too few."""
    rest = iter(letters)
    return letters[:1] == given[:1] and 2 * len(given) >= len(letters) and all(sign in rest for sign in given)


def _initials(name: str) -> str:
    """'mse' of 'MeanSquaredError', 'lr' of 'learning_rate'."""
    return "".join(word[:1] for word in re.findall("[A-Z]?[a-z0-9]+|[A-Z]+", name)).lower()


def choices(name: object, names: Iterable[str]) -> str:
    """Return `did_you_mean`, and all that there are: the end of a message about a name that was not found."""
    listed = list(names)
    hint = did_you_mean(name, listed)
    return f"{hint} There are: {', '.join(listed)}" if hint else f"; there are: {', '.join(listed) or 'none'}"


def with_keyword_hints(function: F) -> F:
    """Let the TypeError for a mistyped keyword argument of a method or function name the one that was meant.

    One that takes any keyword is returned as it is: what it passes them on to will answer.
    """
    code = getattr(function, "__code__", None)  # which one that is written in C has not
    if code is None or code.co_flags & inspect.CO_VARKEYWORDS:
        return function
    by_position = code.co_varnames[: code.co_argcount]
    by_name = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    known = frozenset((*by_position[code.co_posonlyargcount :], *by_name))
    most = sys.maxsize if code.co_flags & inspect.CO_VARARGS or not by_name else code.co_argcount

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        if len(args) > most or not known.issuperset(kwargs):
            what, names = function.__name__, known - {"self"}
            if what == "__init__":
                what, names = type(args[0]).__name__, frozenset(parameters(type(args[0])))
            for name in kwargs:
                if name not in known:
                    hint = did_you_mean(name, names) or choices(name, sorted(names))
                    raise TypeError(f"{what}: unexpected keyword argument '{name}'{hint}")
            own = "self" in by_position
            raise TypeError(
                f"{what}: takes {most - own} positional arguments, got {len(args) - own}; "
                f"by name: {', '.join(by_name)}"
            )
        return function(*args, **kwargs)

    return checked  # type: ignore[return-value]  # of the same signature


def parameters(cls: type) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of `__init__`; where it takes any keyword, also those with a default of the next base."""
    found: dict[str, inspect.Parameter] = {}
    made_by = [base for base in cls.__mro__ if inspect.isfunction(vars(base).get("__init__"))]
    for base in made_by:
        own = list(inspect.signature(base.__init__).parameters.values())[1:]  # type: ignore[misc]
        for parameter in own:
            if parameter.kind is not parameter.VAR_KEYWORD and (
                base is made_by[0] or parameter.default is not parameter.empty
            ):
                found.setdefault(parameter.name, parameter)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in own):
            break
    return found


def show_public_names(module_name: str, lazy: Mapping[str, str] | None = None) -> None:
    """Let `dir` of a module return its ``__all__``, and answer a mistyped attribute with the one that was meant.

    Parameters
    ----------
    module_name : str
        ``__name__`` of the module, which calls this after its ``__all__``.
    lazy : mapping, optional
        Attributes that are imported when they are first used: name and module. One that has the name of its own
        module is that module.
    """
    module = sys.modules[module_name]
    imported_later = lazy or {}

    def __getattr__(name: str) -> Any:  # noqa: N807
        import importlib

        if name in imported_later:
            found = importlib.import_module(imported_later[name])
            value = found if found.__name__.endswith(f".{name}") else getattr(found, name)
            setattr(module, name, value)
            return value
        hint = ""
        if not name.startswith("_"):
            elsewhere = _names_of(imported_later.values())
            hint = f"; did you mean '{elsewhere[name]}'?" if name in elsewhere else ""
            hint = hint or did_you_mean(name, module.__all__)
            if not hint and (close := did_you_mean(name, elsewhere)):
                meant = close.split("'")[1]
                hint = close.replace(meant, elsewhere[meant])
        # With a name and without an object Python has nothing to add a second hint to.
        raise AttributeError(f"module '{module_name}' has no attribute '{name}'{hint}", name=name, obj=None)

    # Set from here, as a type checker that sees a `__getattr__` takes every misspelt name for an attribute.
    module.__getattr__ = __getattr__  # type: ignore[method-assign]
    module.__dir__ = lambda: sorted(module.__all__)  # type: ignore[method-assign]


def _names_of(modules: Iterable[str]) -> dict[str, str]:
    """Return the public names of modules, each with its module before it.

    They are read from the source: to import the trainer for the sake of an error would take longer than all else.
    """
    import importlib.util

    names: dict[str, str] = {}
    for module in sorted(set(modules)):
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
            continue
        with open(spec.origin, encoding="utf-8") as file:  # noqa: PTH123
            listed = file.read().partition("\n__all__ = [")[2].partition("]")[0]
        for name in re.findall(r'"(\w+)"', listed):
            names.setdefault(name, f"{module}.{name}")
    return names
