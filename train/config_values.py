"""The values of a config: read strictly from JSON, refused with their key, value and what is expected."""

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from earvae_jax.errors import UserError

_Config = TypeVar("_Config")
_WRONG = object()  # a value of another type
_LARGEST = 1e300  # numbers beyond are slips
_NAMES = {  # of one and of several
    bool: ("true or false", "true or false"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("a string", "strings"),
    types.NoneType: ("null", ""),
}


def expect(condition: bool, key: str, value: Any, expected: str) -> None:
    """Raises the `UserError` of a wrong value unless the condition holds."""
    if not condition:
        raise UserError(f"{key} is {json.dumps(value, default=str)}; expected {expected}")


def expect_positive(config: Any, *names: str) -> None:
    """All these fields of a config."""
    for name in names:
        expect(getattr(config, name) > 0, name, getattr(config, name), "a positive number")


def expect_not_negative(config: Any, *names: str) -> None:
    """All these fields of a config."""
    for name in names:
        expect(getattr(config, name) >= 0, name, getattr(config, name), "0 or a positive number")


def read_config(kind: type[_Config], values: Mapping[str, Any], key: str = "") -> _Config:
    """Builds a config dataclass, and those inside it, of JSON values; `key` is where they stand.

    Fields are booleans, numbers, strings, literals, tuples of these, mappings of anything, dataclasses and
    unions. One string may stand for a list of them.

    Raises:
      UserError: unknown and missing keys, values of another type, and what the dataclasses refuse themselves.
    """
    prefix = f"{key}." if key else ""
    fields, hints = dataclasses.fields(kind), typing.get_type_hints(kind)
    if unknown := [prefix + name for name in values if name not in hints]:
        raise UserError(f"unknown key {', '.join(unknown)}")
    for field in fields:
        required = field.default is field.default_factory is dataclasses.MISSING
        if required and field.name not in values:
            raise UserError(f"{prefix}{field.name} is missing")
    read = {name: _read(hints[name], value, prefix + name) for name, value in values.items()}
    try:
        return kind(**read)
    except UserError as error:
        raise UserError(f"{prefix}{error}") from None


def without_comments(values: Any) -> Any:
    """Leaves out the keys that begin with a #, on every level."""
    if not isinstance(values, Mapping):
        return values
    return {key: without_comments(value) for key, value in values.items() if not key.startswith("#")}


def parse_override(override: str) -> tuple[str, Any]:
    """The dotted key and the value of `key.key=value`: JSON, or a plain string."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"--set {override}: expected key=value, such as optimizer.learning_rate=1e-4")
    try:
        return key, json.loads(text)
    except ValueError:
        if text.lstrip().startswith(("[", "{", '"')):
            raise UserError(
                f'--set {override}: not JSON; quote it for the shell: \'{key}=["a", "b"]\''
            ) from None
        return key, text


def override(values: dict[str, Any], key: str, value: Any) -> None:
    """Sets one dotted key; levels that are not there are added."""
    *parents, last = key.split(".")
    for parent in parents:
        level = values.get(parent)
        values[parent] = dict(level) if isinstance(level, Mapping) else {}
        values = values[parent]
    values[last] = value


def _read(kind: Any, value: Any, key: str) -> Any:
    for option in _options(kind):
        if dataclasses.is_dataclass(option) and isinstance(value, Mapping):
            return read_config(option, value, key)
        converted = _converted(option, value)
        if converted is not _WRONG:
            return converted
    expect(False, key, value, " or ".join(map(_described, _options(kind))))


def _options(kind: Any) -> tuple[Any, ...]:
    is_union = typing.get_origin(kind) in (typing.Union, types.UnionType)
    return typing.get_args(kind) if is_union else (kind,)


def _converted(kind: Any, value: Any) -> Any:
    """A value as a type that is no dataclass, or `_WRONG`."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        return _converted_tuple(arguments, value)
    if origin is typing.Literal:
        fits = isinstance(value, str) and value in arguments
    elif kind is float:  # JSON may write 1 for 1.0
        fits = type(value) in (int, float) and abs(value) < _LARGEST
        value = float(value) if fits else value
    else:
        fits = isinstance(value, origin) if origin else type(value) is kind
    return value if fits else _WRONG


def _converted_tuple(arguments: tuple[Any, ...], value: Any) -> Any:
    item, open_end = arguments[0], arguments[-1] is ...
    if item is str and open_end and isinstance(value, str):
        value = [value]
    if not isinstance(value, (list, tuple)) or not (open_end or len(value) == len(arguments)):
        return _WRONG
    items = tuple(_converted(item, each) for each in value)
    return _WRONG if _WRONG in items else items


def _described(kind: Any) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return " or ".join(map(json.dumps, arguments))
    if origin is tuple:
        single, several = _NAMES[arguments[0]]
        if arguments[-1] is not ...:
            return f"a list of {len(arguments)} {several}"
        return f"{single} or a list of {several}" if arguments[0] is str else f"a list of {several}"
    return _NAMES[kind][0] if kind in _NAMES else "an object"
