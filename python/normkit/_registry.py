"""Names and configurations: how 'adam' becomes `Adam()`, and how a saved configuration becomes an object again."""

from __future__ import annotations

import gc
import inspect
import re
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from normkit._checks import shown
from normkit._names import choices
from normkit._repr import Described

__all__ = ["Configurable", "Configured", "Owned", "Registry", "snake_case"]


class Configurable(Protocol):
    """An object that tells the arguments that make it again."""

    def get_config(self) -> dict[str, Any]:
        """Return keyword arguments for the class."""


class Configured(Described):
    """Base of classes that keep each argument of `__init__` as the attribute of that name."""

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this object again, without any state."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}


class Owned(Configured):
    """Base of those with state besides, which therefore belong to one model at a time; a copy belongs to none."""

    _owner: weakref.ref[Any] | None = None

    def claim(self, owner: Any) -> None:
        """Belong to `owner`, which has the attribute `network`, for as long as it lives.

        Raises
        ------
        ValueError
            If an owner with another network lives.
        """
        if self._is_of_another(owner.network):
            gc.collect()  # a model and what it owns refer to each other, so a dead one may still be about
            if self._is_of_another(owner.network):
                raise ValueError(
                    f"this {type(self).__name__} is part of another model, and would mix up the state of both; "
                    "give each model its own"
                )
        self._owner = weakref.ref(owner)

    def _is_of_another(self, network: Any) -> bool:
        owner = None if self._owner is None else self._owner()
        return owner is not None and owner.network is not network

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_owner"}


def snake_case(name: str) -> str:
    """Return the name of a class as Keras writes it in logs and layers: 'top_k_categorical_accuracy'."""
    words = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", words).lower()


T = TypeVar("T", bound=Configurable)


class Registry(Generic[T]):
    """The classes of one kind, by name.

    A class is found by its own name ('GlorotUniform') or by one of the given names, in any case.

    Parameters
    ----------
    kind : str
        What they are, for error messages: "optimizer".
    base : type
        Their common base.
    classes : mapping
        Class by name; the first name of a class is the one that error messages show.
    others : sequence of str, optional
        Names that whoever asks takes for more than a class, which error messages show as well.
    """

    def __init__(
        self, kind: str, base: type[T], classes: Mapping[str, type[T]], others: Sequence[str] = ()
    ) -> None:
        self.kind = kind
        self._base = base
        self._classes = dict(classes)
        self._others = tuple(others)
        self._lookup = {name.lower(): cls for name, cls in classes.items()}
        self._lookup |= {cls.__name__.lower(): cls for cls in classes.values()}

    @property
    def names(self) -> list[str]:
        """The names that there are."""
        return list(self._classes)

    def get(self, identifier: str | Mapping[str, Any] | T) -> T:
        """Return a new object for a name or a saved configuration; an object is returned as it is.

        Raises
        ------
        ValueError
            If there is no such name; the message lists what there is.
        TypeError
            If the identifier is neither a name, a configuration nor an object of this kind.
        """
        if isinstance(identifier, str):
            return self.find(identifier)()
        if isinstance(identifier, Mapping):
            if not isinstance(identifier.get("class_name"), str):
                raise ValueError(  # noqa: TRY004
                    f"{self.kind} as a dict must have the keys 'class_name' and 'config', as a saved one has, "
                    f"got {sorted(map(str, identifier))}"
                )
            config = identifier.get("config", {})
            if not isinstance(config, Mapping):
                raise TypeError(f"{self.kind}: 'config' must be a dict of arguments, got {shown(config)}")
            return self.find(identifier["class_name"])(**config)
        if isinstance(identifier, self._base):
            return identifier
        if isinstance(identifier, type):
            raise TypeError(f"{self.kind} must be an instance or a name, got {shown(identifier)}")
        raise TypeError(
            f"{self.kind} must be one of {', '.join((*self._others, *self.names))} or an instance of "
            f"{self._base.__name__}, got {shown(identifier)}"
        )

    def serialize(self, instance: T) -> dict[str, Any]:
        """Return the configuration from which `get` makes the object again.

        Raises
        ------
        ValueError
            If `get` would make another object, for the class is not one of these.
        """
        cls = type(instance)
        if self._lookup.get(cls.__name__.lower()) is not cls:
            raise ValueError(
                f"cannot save {self.kind} of class {cls.__module__}.{cls.__qualname__}; "
                f"can: {', '.join(dict.fromkeys(c.__name__ for c in self._classes.values()))}"
            )
        return {"class_name": type(instance).__name__, "config": instance.get_config()}

    def find(self, name: str) -> type[T]:
        """Return the class of that name.

        Raises
        ------
        ValueError
            If there is none; the message lists what there is.
        """
        try:
            return self._lookup[name.lower()]
        except KeyError:
            raise ValueError(
                f"no {self.kind} '{name}'{choices(name, (*self._others, *self.names))}"
            ) from None
