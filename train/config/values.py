"""Reads the values of a config strictly from JSON; errors name the key, the value and what is expected."""

import dataclasses
import functools
import json
import operator
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import dacite

from earvae_jax.errors import UserError

_Config = TypeVar("_Config")
_LARGEST = 1e300  # larger numbers are mistakes
_LARGEST_INT = 2**31 - 1  # JAX's default integers have 32 bits
_WRONG = object()  # no field has this type, so dacite refuses it


class ConfigError(UserError, dacite.DaciteFieldError):
    """What is wrong with a key; inside a nested config, dacite puts the parents of the key before it."""

    def __init__(self, key: str, problem: str):
        dacite.DaciteFieldError.__init__(self, key)
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.field_path} {self.problem}"


def expect(condition: bool, key: str, value: Any, expected: str) -> None:
    """Raises the `ConfigError` of a wrong value unless the condition holds."""
    if not condition:
        raise _refusal(key, value, expected)


def _refusal(key: str, value: Any, expected: str) -> ConfigError:
    return ConfigError(key, f"is {json.dumps(value, default=str)}; expected {expected}")


def expect_positive(config: Any, *names: str) -> None:
    """Raises a `ConfigError` unless all these fields of a config are above 0."""
    for name in names:
        expect(getattr(config, name) > 0, name, getattr(config, name), "a positive number")


def expect_not_negative(config: Any, *names: str) -> None:
    """Raises a `ConfigError` if one of these fields of a config is below 0."""
    for name in names:
        expect(getattr(config, name) >= 0, name, getattr(config, name), "0 or a positive number")


def read_config(kind: type[_Config], values: Mapping[str, Any]) -> _Config:
    """Builds a config dataclass, and those inside it, from JSON values; one string may stand for a list.

    Raises:
      UserError: a key is unknown or missing, a value has another type, or a dataclass refuses it.
    """
    if unknown := list(_unknown_keys(kind, values)):
        raise UserError(f"unknown key {', '.join(unknown)}")
    try:
        return dacite.from_dict(kind, values, dacite.Config(type_hooks=_HOOKS))
    except dacite.MissingValueError as error:
        raise ConfigError(str(error.field_path), "is missing") from None
    except dacite.WrongTypeError as error:
        key = str(error.field_path)
        value = functools.reduce(operator.getitem, key.split("."), values)
        raise _refusal(key, value, _described(error.field_type)) from None


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
    """Sets one dotted key; adds the levels that are missing."""
    *parents, last = key.split(".")
    for parent in parents:
        level = values.get(parent)
        values[parent] = dict(level) if isinstance(level, Mapping) else {}
        values = values[parent]
    values[last] = value


def _unknown_keys(kind: type, values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Unknown keys with their parents, which dacite's strict mode does not name."""
    hints = typing.get_type_hints(kind)
    for key, value in values.items():
        if key not in hints:
            yield prefix + key
        for option in (hints.get(key), *typing.get_args(hints.get(key))):
            if isinstance(option, type) and dataclasses.is_dataclass(option) and isinstance(value, Mapping):
                yield from _unknown_keys(option, value, f"{prefix}{key}.")


def _number(value: Any) -> Any:
    return float(value) if type(value) in (int, float) and abs(value) < _LARGEST else _WRONG


def _int(value: Any) -> Any:
    return value if type(value) is int and abs(value) <= _LARGEST_INT else _WRONG


def _ints(value: Any) -> Any:
    return tuple(map(_int, value)) if isinstance(value, (list, tuple)) else _WRONG


def _list(value: Any) -> Any:
    return tuple(value) if isinstance(value, (list, tuple)) else _WRONG


_HOOKS = {  # not in dacite: true is not a number, 1 stands for 1.0, a list for a tuple
    int: _int,
    float: _number,
    tuple[int, ...]: _ints,
    tuple[float, float]: _list,
    tuple[str, ...]: lambda value: (value,) if isinstance(value, str) else _list(value),
}
_NAMES = {
    types.NoneType: "null",
    bool: "true or false",
    int: "a whole number below 2^31",
    float: "a number",
    tuple[int, ...]: "a list of whole numbers below 2^31",
    tuple[float, float]: "a list of 2 numbers",
    tuple[str, ...]: "a string or a list of strings",
}


def _described(kind: Any) -> str:
    if typing.get_origin(kind) in (typing.Union, types.UnionType, typing.Literal):
        return " or ".join(map(_described, typing.get_args(kind)))
    return json.dumps(kind) if isinstance(kind, str) else _NAMES.get(kind, "an object")
