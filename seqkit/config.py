"""Configurations: frozen dataclasses, from TOML and back.

A config dataclass stands beside what it configures and knows nothing of files. This module turns a TOML table into
such a dataclass and a dataclass into a TOML table, so that a run folder can keep its resolved configuration. An unknown
key is an error that offers the nearest name; a value of the wrong type is an error that says which type was expected.

A field's help is the string in ``field(metadata={"help": …})``; `option` writes one.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import tomllib
import types
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import tomli_w

from seqkit.errors import InputError

Config = TypeVar("Config")


def option(default: Any, help: str, *, choices: tuple[str, ...] = ()) -> Any:
    """A dataclass field with a default, one line of help, and the allowed values where they are few."""
    metadata = {"help": help, "choices": choices}
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def nearest(name: str, known: Iterable[str]) -> str:
    """`` (did you mean `…`?)`` with the known name closest to `name`, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean `{close[0]}`?)" if close else ""


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        InputError: the file is missing or is not TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InputError(f"{path}: the config file must be readable, got: {reason}") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: the config file must be TOML, got: {error}") from None


def write_toml(tables: dict[str, Any]) -> str:
    """TOML text of nested tables; keys whose value is None are left out."""
    return tomli_w.dumps(_without_none(tables))


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return value


def from_table(cls: type[Config], table: dict[str, Any], *, where: str) -> Config:
    """The dataclass `cls` with the values of a TOML table.

    Args:
        where: what to call the table in an error, such as ``config.toml [training]``.

    Raises:
        InputError: an unknown key, a value of the wrong type, or a missing key that has no default.
    """
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in table:
        if key not in fields:
            raise InputError(f"{where}: `{key}` must be a known key, got an unknown one{nearest(key, fields)}")
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name in table:
            values[name] = _checked(table[name], hints[name], where=f"{where}: `{name}`")
            choices = field.metadata.get("choices")
            if choices and values[name] not in choices:
                allowed = ", ".join(choices)
                hint = nearest(str(values[name]), choices)
                raise InputError(f"{where}: `{name}` must be one of {allowed}, got `{values[name]}`{hint}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise InputError(f"{where}: `{name}` must be given, got nothing")
    return cls(**values)


def _checked(value: Any, expected: Any, *, where: str) -> Any:
    origin = typing.get_origin(expected)
    if origin in (typing.Union, types.UnionType):
        members = [member for member in typing.get_args(expected) if member is not type(None)]
        for member in members:
            try:
                return _checked(value, member, where=where)
            except InputError:
                continue
        wanted = " or ".join(getattr(member, "__name__", str(member)) for member in members)
        raise InputError(f"{where} must be {wanted}, got {value!r}")
    if origin in (list, tuple):
        (item, *_) = typing.get_args(expected)
        if not isinstance(value, list | tuple):
            raise InputError(f"{where} must be a list, got {value!r}")
        return origin(_checked(each, item, where=where) for each in value)
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        names = {int: "a whole number", float: "a number", str: "a string", bool: "true or false", dict: "a table"}
        raise InputError(f"{where} must be {names.get(expected, expected.__name__)}, got {value!r}")
    return value


def to_table(config: Any) -> dict[str, Any]:
    """A TOML table of a dataclass, every default written out."""
    return {
        field.name: list(value) if isinstance(value := getattr(config, field.name), tuple) else value
        for field in dataclasses.fields(config)
    }


def apply_overrides(tables: dict[str, Any], overrides: list[str]) -> None:
    """Sets ``section.key=value`` in the tables; the value is read as TOML, else taken as a string.

    Raises:
        InputError: an override is not of that form.
    """
    for override in overrides:
        name, equals, text = override.partition("=")
        path = name.strip().split(".")
        if not equals or not all(path):
            raise InputError(f"--set: an override must be section.key=value, got `{override}`")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        table = tables
        for part in path[:-1]:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise InputError(f"--set: `{part}` must be a section, got a value")
        table[path[-1]] = value


def resolve_path(text: str, folder: Path) -> str:
    """A data path of a config: ``$NAME`` is taken from the environment, a relative path starts at the config's folder.

    Raises:
        InputError: the variable is not set.
    """
    for name in re.findall(r"\$\{?(\w+)\}?", text):
        if name not in os.environ:
            raise InputError(f"{text}: the environment variable {name} must be set, got nothing")
    path = Path(os.path.expandvars(text)).expanduser()
    return str(path if path.is_absolute() else folder / path)
