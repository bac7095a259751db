"""Flags from the fields of a config dataclass, so that an option is written down once."""

from __future__ import annotations

import argparse
import dataclasses
import typing
from typing import Any, TypeVar

Config = TypeVar("Config")


def add_flags(
    parser: argparse._ActionsContainer, config: type, *, names: dict[str, str], skip: tuple[str, ...] = ()
) -> None:
    """One flag for each field of `config`; a flag that is not given leaves no value.

    Args:
        names: shorter flags for some fields, as ``{"beam_size": "--beam"}``.
        skip: fields without a flag.
    """
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        if field.name in skip:
            continue
        flag = names.get(field.name, "--" + field.name.replace("_", "-"))
        text = field.metadata["help"].replace("%", "%%")
        if hints[field.name] is bool:
            parser.add_argument(
                flag, dest=field.name, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text
            )
            continue
        parser.add_argument(
            flag, dest=field.name, type=hints[field.name], default=argparse.SUPPRESS, help=text,
            choices=field.metadata.get("choices") or None, metavar=None if field.metadata.get("choices") else "X",
        )  # fmt: skip


def with_flags(config: Config, parsed: argparse.Namespace) -> Config:
    """The config with the values of the flags that were given."""
    given: dict[str, Any] = {
        field.name: value
        for field in dataclasses.fields(config)  # type: ignore[arg-type]
        if (value := getattr(parsed, field.name, None)) is not None
    }
    return dataclasses.replace(config, **given)  # type: ignore[type-var]
