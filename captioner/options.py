"""Options as dataclasses: one field with its help and its bounds, one check of them all.

Flags (:mod:`captioner.cli.flags`), configuration files and the page's sliders read the same metadata.
"""

import math
import operator
import types
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, field, fields
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from captioner.errors import OptionError, reworded

T = TypeVar("T")
_BOUNDS = (
    ("low", "at least", operator.ge),
    ("above", "above", operator.gt),
    ("high", "at most", operator.le),
    ("below", "below", operator.lt),
)
_LONGEST_VALUE = 100


def option(
    default: Any = MISSING,
    help: str = "",  # noqa: A002  # as argparse calls it
    *,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] | None = None,
    metavar: str | None = None,
) -> Any:
    """A field of a dataclass of options.

    Args:
        default: its value where none is given; without one it must be given.
        help: one line for ``--help`` and for configuration files.
        low: the least value.
        above: a bound that every value must exceed.
        high: the greatest value.
        below: a bound that no value may reach.
        choices: all allowed texts.
        metavar: what stands for the value in ``--help``.
    """
    given = {"low": low, "above": above, "high": high, "below": below, "choices": choices, "metavar": metavar}
    metadata = {"help": help} | {name: value for name, value in given.items() if value is not None}
    return field(default=default, metadata=metadata)


def check(options: Any, what: str = "") -> None:
    """Check each field of a dataclass of options by its type and by the metadata of :func:`option`.

    Numbers must be finite and within their bounds, booleans are no numbers, and None is for fields whose
    type has it. Texts are checked only where they have choices, lists not at all.

    Args:
        options: the dataclass.
        what: what messages call it where its fields are not options that a user gives.

    Raises:
        OptionError: a value is none of those allowed; the message begins with the field's name.
    """
    for item, kind, optional in _checked_fields(type(options)):  # type: ignore[arg-type]  # hashable
        value = getattr(options, item.name)
        if value is None and optional:
            continue
        if demand := _unmet(value, kind, item.metadata):
            shown = repr(value)
            if len(shown) > _LONGEST_VALUE:
                shown = shown[: _LONGEST_VALUE - 3] + "..."
            name = f"{what}: {item.name}" if what else f"`{item.name}`"
            raise OptionError(f"{name} must be {demand}, not {shown}")


def from_dict(options: type[T], data: object, what: str) -> T:
    """Build a dataclass of options from plain values, such as those of JSON.

    Args:
        options: the dataclass.
        data: its values by the names of fields; one that has a default may be absent.
        what: what messages call the whole.

    Raises:
        OptionError: ``data`` is no mapping, or a field is absent, unknown or has an impossible value.
    """
    if not isinstance(data, dict):
        raise OptionError(f"{what}: must be a mapping, not {type(data).__name__}")
    known = {item.name: item for item in fields(options)}  # type: ignore[arg-type]  # T is a dataclass
    absent = {name for name, item in known.items() if is_needed(item) and name not in data}
    if odd := sorted(map(str, (set(data) - set(known)) | absent)):
        raise OptionError(f"{what}: absent or unknown fields: {', '.join(odd)}")
    return options(**data)


def typed_fields(options: type) -> Iterator[tuple[Field[Any], type]]:
    """Every field that is an option, and what it holds, None aside: ``int`` of ``int | None``."""
    hints = get_type_hints(options)
    for item in fields(options):
        if item.init:
            hint = hints[item.name]
            if get_origin(hint) in (types.UnionType, Union):
                hint = next(part for part in get_args(hint) if part is not type(None))
            yield item, get_origin(hint) or hint


def is_needed(item: Field[Any]) -> bool:
    """Say whether a field has no default."""
    return item.default is MISSING and item.default_factory is MISSING


def flag_of(name: str) -> str:
    """``--beam-size`` of ``beam_size``."""
    return "--" + name.replace("_", "-")


def with_flags(text: str) -> str:
    """Spell a message or help text as the command line does: ``--beam-size`` for a `` `beam_size` `` in it."""
    return reworded(text, flag_of)


@cache
def _checked_fields(options: type) -> tuple[tuple[Field[Any], type, bool], ...]:
    """The fields to check, what each holds, and whether that may be None."""
    hints = get_type_hints(options)
    return tuple(
        (item, kind, type(None) in get_args(hints[item.name]))
        for item, kind in typed_fields(options)
        if kind in (bool, int, float) or "choices" in item.metadata
    )


def _unmet(value: Any, kind: type, about: Mapping[str, Any]) -> str:
    """What a value must be and is not; empty for one that is as it must be."""
    if "choices" in about:
        return "" if value in about["choices"] else f"one of {', '.join(about['choices'])}"
    if kind is bool:
        return "" if type(value) is bool else "true or false"
    if kind is int:
        good = type(value) is int
    else:
        good = isinstance(value, int | float) and type(value) is not bool and math.isfinite(value)
    bounds = [(words, about[name], keeps) for name, words, keeps in _BOUNDS if name in about]
    if good and all(keeps(value, bound) for _, bound, keeps in bounds):
        return ""
    if "low" in about and "high" in about:
        demand = f"from {about['low']} to {about['high']}"
        return f"a whole number {demand}" if kind is int else demand
    demands = [f"{words} {bound}" for words, bound, _ in bounds]
    if kind is float and not {"high", "below"} & set(about):
        demands.append("finite")
    if kind is int and not good:
        return " of ".join(("a whole number", *demands))
    return " and ".join(demands)
