"""Command-line flags made from the fields of options dataclasses, so that the two cannot drift apart."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from captioner.errors import OptionError
from captioner.options import flag_of, is_needed, typed_fields, with_flags

T = TypeVar("T")


def add_options(
    parser: argparse.ArgumentParser, options: type, title: str, *, skip: Collection[str] = ()
) -> None:
    """Add one flag for each field: ``beam_size: int`` becomes ``--beam-size N``.

    A field's metadata give its ``help``, its ``choices`` where only some words are allowed, and the
    ``metavar`` that stands for its value. Booleans become a pair ``--x`` / ``--no-x``; tuples take several
    values.

    Args:
        parser: where the flags go.
        options: a dataclass.
        title: heading of the flags in ``--help``.
        skip: fields without a flag.
    """
    group = parser.add_argument_group(title)
    for item, kind in typed_fields(options):
        if item.name in skip:
            continue
        text = with_flags(item.metadata.get("help", "")).replace("%", "%%")
        if item.default not in (MISSING, None, ()):
            text += f" (default: {shown(item.default)})"
        flag = flag_of(item.name)
        settings: dict[str, Any] = {"dest": item.name, "default": None, "help": text}
        if kind is bool:
            settings["action"] = argparse.BooleanOptionalAction
        elif kind is tuple:
            # Both "--dataset a b" and "--dataset a --dataset b" are natural.
            settings |= {"nargs": "+", "action": "extend", "type": str}
            settings["metavar"] = item.metadata.get("metavar", "VALUE")
        else:
            settings |= {"type": kind, "choices": item.metadata.get("choices")}
            if settings["choices"] is None:
                usual = {int: "N", float: "X"}.get(kind, "VALUE")
                settings["metavar"] = item.metadata.get("metavar", usual)
        group.add_argument(flag, **settings)


def read_options(
    args: argparse.Namespace, options: type[T], base: T | None = None, values: Mapping[str, Any] | None = None
) -> T:
    """Build a dataclass from the flags that were given.

    Args:
        args: parsed arguments.
        options: the dataclass that :func:`add_options` made flags from.
        base: where flags that were not given take their values from; the fields' defaults if absent.
        values: values by field, such as those of a file; flags go before them, they before ``base``.

    Raises:
        OptionError: a value is refused by the dataclass, or a field without default was not given.
    """
    given = given_values(args, options, values)
    for item in fields(options):  # type: ignore[arg-type]  # T is a dataclass
        if not item.init or item.name in given:
            continue
        if base is not None:
            given[item.name] = getattr(base, item.name)
        elif is_needed(item):
            raise OptionError(f"`{item.name}` is missing", item.metadata.get("help", ""))
    return options(**given)


def given_values(
    args: argparse.Namespace, options: type, values: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What flags, or else ``values``, give to the fields of a dataclass; see :func:`read_options`."""
    given: dict[str, Any] = {}
    for item in fields(options):
        value = getattr(args, item.name, None)
        if value is None and values is not None:
            value = values.get(item.name)
        if item.init and value is not None:
            given[item.name] = tuple(value) if isinstance(value, list) else value
    return given


def one_line(text: str) -> str:
    """Make control characters visible (a file name may hold newlines), so that a text stays one line."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def shown(default: object) -> str:
    """A default in words."""
    if isinstance(default, bool):
        return "yes" if default else "no"
    return str(default)
