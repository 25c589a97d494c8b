"""Command-line flags made from the fields of options dataclasses, so that the two cannot drift apart."""

import argparse
import difflib
import json
import sys
import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from captioner.errors import OptionError
from captioner.options import flag_of, is_needed, typed_fields, with_flags

T = TypeVar("T")


def add_options(parser: argparse.ArgumentParser, options: type, title: str, *, skip: Collection[str] = ()) -> None:
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


def given_values(args: argparse.Namespace, options: type, values: Mapping[str, Any] | None = None) -> dict[str, Any]:
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


_MOST_BYTES = 1 << 20
_WIDTH = 100
_ONLY_FLAGS = ("config", "print_config", "resume", "overwrite")
_DEMANDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text in quotes",
    tuple: "a list of texts",
}


def read_configuration(path: str | Path, options: Sequence[type]) -> dict[str, Any]:
    """The values that a configuration file gives.

    Args:
        path: the file.
        options: dataclasses whose fields may stand in it.

    Raises:
        OptionError: the file is absent or no TOML, an option is unknown or given twice, or a value is of the
            wrong type; the message names the file and the option.
    """
    # Part of Python from 3.11 on; the package of 3.10 is the same code.
    toml = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        with Path(path).expanduser().open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise OptionError(f"--config {path}: is too large for a configuration file")
        table = toml.loads(content.decode("utf-8-sig"))
    except OSError as error:
        raise OptionError(f"--config {path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise OptionError(f"--config {path}: is not UTF-8 text (byte {error.start})") from error
    except (ValueError, RecursionError) as error:  # TOML's own error is a ValueError
        raise OptionError(f"--config {path}: is not valid TOML ({error})") from error
    return checked_values(table, options, where=f"--config {path}")


def checked_values(table: Mapping[str, object], options: Sequence[type], *, where: str) -> dict[str, Any]:
    """Values of the right types by the names of their fields.

    Args:
        table: what a file holds, by the names of options with ``-`` or ``_``.
        options: dataclasses whose fields these are.
        where: what messages begin with.

    Raises:
        OptionError: as :func:`read_configuration`.
    """
    known = {item.name: (item, kind) for group in options for item, kind in typed_fields(group)}
    values: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in known:
            raise OptionError(f"{where}: {_unknown(key, value, known)}")
        if name in values:
            raise OptionError(f"{where}: {key} is given twice, with - and with _")
        item, kind = known[name]
        values[name] = _converted(value, kind, f"{where}: {key}")
        choices = item.metadata.get("choices")
        if choices is not None and values[name] not in choices:
            raise OptionError(f"{where}: {key} must be one of {', '.join(choices)}, not {_quoted(value)}")
    return values


def write_configuration(values: Mapping[str, Any], groups: Mapping[str, type]) -> str:
    """A configuration file with every option, the help texts as comments.

    Args:
        values: by the names of fields; a field that is absent has its default.
        groups: dataclasses of the options, by their headings.

    Returns:
        TOML; :func:`read_configuration` gives the same values again. An option without a value is a comment.

    Raises:
        OptionError: a value cannot be written, such as a file name that is no text.
    """
    blocks = ["# Options of captioner train. A flag on the command line goes before a line of this file."]
    for heading, options in groups.items():
        blocks.append(f"# {heading} ".ljust(_WIDTH, "-"))
        blocks += ["\n".join(_lines(item, kind, values)) for item, kind in typed_fields(options)]
    return "\n\n".join(blocks) + "\n"


def _lines(item: Field[Any], kind: type, values: Mapping[str, Any]) -> Iterator[str]:
    default = None if item.default is MISSING else item.default
    text = with_flags(item.metadata.get("help", ""))
    if choices := item.metadata.get("choices"):
        text += f"; one of {', '.join(choices)}"
    if is_needed(item):
        text += " (must be given)"
    elif default not in (None, ()):
        text += f" (default: {shown(default)})"
    yield from textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="# ")
    value = values.get(item.name, default)
    name = flag_of(item.name)[2:]
    yield f"# {name} =" if value is None else f"{name} = {_toml(value, kind, name)}"


def _toml(value: Any, kind: type, name: str) -> str:
    if kind is tuple:
        return f"[{', '.join(_toml(part, str, name) for part in value)}]"
    if kind is bool:
        return "true" if value else "false"
    if kind is not str:
        return repr(kind(value))
    try:
        value.encode()
    except UnicodeEncodeError as error:  # bytes of a file name that are no text
        raise OptionError(f"--{name} cannot stand in a configuration file, it is not UTF-8 text") from error
    # JSON's escapes are TOML's, but for one control character that JSON leaves as it is.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _converted(value: object, kind: type, where: str) -> Any:
    """The value as its field holds it; a whole number may stand for a number, a text for a list of one."""
    if kind is tuple:
        parts = [value] if isinstance(value, str) else value
        if isinstance(parts, list) and all(isinstance(part, str) for part in parts):
            return tuple(_converted(part, str, where) for part in parts)
    elif kind is float and type(value) is int and abs(value) < 1 << 63:
        return float(value)
    elif type(value) is kind:
        if isinstance(value, str) and "\0" in value:
            raise OptionError(f"{where} must not hold a NUL character")
        return value
    raise OptionError(f"{where} must be {_DEMANDS[kind]}, not {_quoted(value)}")


def _unknown(key: str, value: object, known: Mapping[str, object]) -> str:
    name = key.replace("-", "_")
    if name in _ONLY_FLAGS:
        return f"{key} is a flag of the command line only"
    if isinstance(value, dict):
        return f"[{key}] is a table; write the options without tables"
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0].replace('_', '-')}?" if near else "--print-config lists all options"
    return f"there is no option {key}; {hint}"


def _quoted(value: object) -> str:
    """A value in short, as TOML or nearly so."""
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
