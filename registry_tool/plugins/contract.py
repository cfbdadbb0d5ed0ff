"""contract.py: holds a plugin to the specification of its hooks: guards its code, checks its answers' types."""

from __future__ import annotations

import collections.abc
import dataclasses
import os
import signal
import sys
import threading
import types
import typing
from collections.abc import Callable, Hashable, Iterator
from functools import cache
from typing import Any, ClassVar, TypeVar

import click

from registry_tool import hookspec
from registry_tool.errors import InputError, PluginError, RejectedError, WorldError
from registry_tool.values import Json

UNION_TYPES = (types.UnionType, typing.Union)
PLAIN_TYPES = {type(None), bool, int, float, str}  # types of JSON values that hold no others
# What a hook of a kind's owner may raise; other hooks may raise nothing.
MAY_RAISE = (InputError, RejectedError, WorldError)


# Seconds of wall clock that a hook may take: of a busy machine, and of a large entry. Hooks that learn, or read rows,
# take as long as their rows; Ctrl-C ends them.
LOADING_SECONDS, CHECKING_SECONDS = 60.0, 900.0
CHECKING_HOOKS = tuple(f"registry_{name}" for name in ("verify", "gate", "oof", "load", "figures", "migrate"))
HOOK_SECONDS = {
    **dict.fromkeys(("import", "registration", "registry_kinds", "registry_commands"), LOADING_SECONDS),
    **dict.fromkeys(CHECKING_HOOKS, CHECKING_SECONDS),
}


class HookTimeoutError(BaseException):
    """Raised inside a hook that takes too long; no `except Exception` of the plugin holds it up."""


class Guard:
    """Around every piece of a plugin's code: what it prints goes to standard error, what it raises is a PluginError.

    A SystemExit too: no plugin ends the run. So does what takes longer than HOOK_SECONDS, after `limit_hooks`; code of
    C is interrupted when it returns. Ctrl-C passes, and so does what it `may_raise`.
    plugin: its name and version. action: the hook, or what else was done, for the message and the limit.
    """

    __slots__ = ("_action", "_limit", "_passes", "_plugin", "_stdout")
    timed: ClassVar[Guard | None] = None  # the one whose limit runs
    limited: ClassVar[bool] = False

    def __init__(self, plugin: str, action: str, may_raise: tuple[type[BaseException], ...] = ()) -> None:
        self._plugin, self._action, self._passes = plugin, action, may_raise

    def __enter__(self) -> None:
        self._stdout, sys.stdout = sys.stdout, sys.stderr
        if Guard.limited and Guard.timed is None and threading.current_thread() is threading.main_thread():
            self._limit = HOOK_SECONDS.get(self._action.partition(" ")[0])
            if self._limit is not None:
                Guard.timed = self
                signal.setitimer(signal.ITIMER_REAL, self._limit)

    @staticmethod
    def interrupt(_: int, __: object) -> None:
        """What the timer calls."""
        if Guard.timed is not None:
            raise HookTimeoutError(f"it took longer than {Guard.timed._limit:g} seconds")

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if Guard.timed is self:
            signal.setitimer(signal.ITIMER_REAL, 0)
            Guard.timed = None
        sys.stdout = self._stdout
        if sys.stderr is not None and sys.stderr.closed:
            sys.stderr = os.fdopen(2, "w", errors="backslashreplace", closefd=False)
            error = error or OSError("it closed standard error")
        if error is not None and not isinstance(error, (KeyboardInterrupt, *self._passes)):
            failure = f"plugin {self._plugin}: {self._action} failed: {error_line(error)}"
            hint = "use less, or free some" if isinstance(error, MemoryError) else "report it to its author"
            raise PluginError(f"{failure}: {hint}") from error


def limit_hooks() -> None:
    """Hold hooks to HOOK_SECONDS from now on, where the system has timers: for a program that owns its process."""
    if hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGALRM, Guard.interrupt)
        Guard.limited = True


def error_line(error: BaseException) -> str:
    """The type and the text of an exception, whatever it does when it is asked for its text."""
    try:
        text = " ".join(str(error).split())
    except BaseException:
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


HookAnswer = TypeVar("HookAnswer")


@dataclasses.dataclass(frozen=True, slots=True)
class AnswerType:
    """What a hook gives, by its specification. many: it is an iterable of `item`; None is allowed everywhere."""

    item: Any
    many: bool
    container: Any = None

    def checked(self, value: HookAnswer) -> HookAnswer:
        """The value, or TypeError where it, or anything inside it, is of another type."""
        if value is not None and (wrong := mistyped(value, self.item)):
            raise TypeError(f"it gave {wrong}")
        return value

    def items(self, value: Any) -> Iterator[Any]:
        """The items of an iterable, each checked when it is taken."""
        if value is not None and not isinstance(value, self.container):
            raise TypeError(f"it gave {_a(value)}, expected {self.container.__name__} of {self.item.__name__}")
        return map(self._item, () if value is None else value)

    def _item(self, item: object) -> object:
        if wrong := mistyped(item, self.item):
            raise TypeError(f"it gave {wrong}")
        return item


@cache
def answer_of(hook: Callable[..., Any]) -> AnswerType:
    """The answer of a hook, from the annotations of its specification."""
    names = {**vars(hookspec), "click": click}
    hint = typing.get_type_hints(hook, names, include_extras=True)["return"]
    if typing.get_origin(hint) in UNION_TYPES:
        (hint,) = (one for one in typing.get_args(hint) if one is not types.NoneType)
    container = typing.get_origin(hint)
    return AnswerType(hint, False) if container is None else AnswerType(typing.get_args(hint)[0], True, container)


def mistyped(value: object, hint: Any, path: str = "") -> str | None:
    """What in a value is not of its type, and where; None where all is. Looks into fields, mappings and sequences."""
    if hint is Any or (hint is Json and type(value) in PLAIN_TYPES):
        return None
    if hint is Json:
        return None if _is_plain_json(value) else _not_json(value, path)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in UNION_TYPES:
        options = [option for option in arguments if (option is type(None)) is (value is None)] or arguments
        wrong = [mistyped(value, option, path) for option in options]
        return None if None in wrong else wrong[0]
    kind = origin or hint
    if kind is collections.abc.Callable:
        return None if callable(value) else _wrong(value, path, "a callable")
    if kind in (int, float):
        number = isinstance(value, int | float if kind is float else int) and not isinstance(value, bool)
        return None if number else _wrong(value, path, "a number" if kind is float else "an integer")
    if not isinstance(value, kind) or (kind is collections.abc.Sequence and isinstance(value, str | bytes)):
        return _wrong(value, path, kind.__name__)
    return _first_wrong((one, hint, path + name) for name, one, hint in _parts(value, kind, arguments))


def _parts(value: Any, kind: Any, arguments: tuple[Any, ...]) -> Iterator[tuple[str, Any, Any]]:
    """(its place, a part of the value, the part's type)."""
    if dataclasses.is_dataclass(kind):
        for name, hint, plain in _fields(typing.cast(Hashable, kind)):
            if type(part := getattr(value, name)) not in plain:
                yield f".{name}", part, hint
    elif arguments and issubclass(kind, collections.abc.Mapping):
        key, item = arguments
        yield from ((f" key {name!r:.40}", name, key) for name in value)
        yield from ((f"[{name!r:.40}]", one, item) for name, one in value.items())
    elif kind is tuple and arguments[-1] is not Ellipsis:
        yield from ((f"[{i}]", one, item) for i, (one, item) in enumerate(zip(value, arguments, strict=True)))
    elif arguments and not (arguments[0] is Json and {*map(type, value)} <= PLAIN_TYPES):
        yield from ((f"[{index}]", one, arguments[0]) for index, one in enumerate(value))


def _is_plain_json(value: Any) -> bool:
    """Whether a value is made of dicts, lists and plain values alone: most are, and no path is spelt out for them."""
    if type(value) in PLAIN_TYPES:
        return True
    if type(value) is dict:
        return {*map(type, value)} <= {str} and all(map(_is_plain_json, value.values()))
    return type(value) in (list, tuple) and all(map(_is_plain_json, value))


def _not_json(value: object, path: str) -> str | None:
    match value:
        case collections.abc.Mapping():
            return mistyped(value, collections.abc.Mapping[str, Json], path)
        case list() | tuple():
            return mistyped(value, collections.abc.Sequence[Json], path)
        case None | bool() | int() | float() | str():
            return None
    return _wrong(value, path, "a JSON value")


def _first_wrong(parts: Iterator[tuple[Any, Any, str]]) -> str | None:
    return next((wrong for one, hint, path in parts if (wrong := mistyped(one, hint, path))), None)


@cache
def _fields(kind: type) -> tuple[tuple[str, Any, frozenset[type]], ...]:
    """(name, type, the plain types that are of that type and hold nothing) of the fields of a dataclass."""
    hints = typing.get_type_hints(kind, localns={"click": click}, include_extras=True)
    named = ((field.name, hints[field.name]) for field in dataclasses.fields(kind))
    return tuple((name, hint, frozenset(t for t in PLAIN_TYPES if _takes(hint, t))) for name, hint in named)


def _takes(hint: Any, plain: type) -> bool:
    if typing.get_origin(hint) in UNION_TYPES:
        return any(_takes(option, plain) for option in typing.get_args(hint))
    return hint in (plain, Json, Any) or (hint is float and plain is int)


def _a(value: object) -> str:
    name = type(value).__name__
    return f"an {name}" if name[:1].lower() in "aeiou" else f"a {name}"


def _wrong(value: object, path: str, expected: str) -> str:
    place = f" at {path.lstrip('.')}" if path else ""
    return f"{_a(value)}{place}, expected {expected}"
