"""Configuration files of ``captioner train``: its options as TOML, checked as the flags are."""

import difflib
import json
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field
from importlib import import_module
from pathlib import Path
from typing import Any

from captioner.cli.flags import default_text
from captioner.datasets.options import DatasetOptions
from captioner.errors import OptionError
from captioner.options import flag_of, is_needed, typed_fields, with_flags
from captioner.training.options import TrainingOptions

GROUPS: Mapping[str, type] = {"data": DatasetOptions, "training": TrainingOptions}
"""All options of ``captioner train``, by the headings of ``--help`` and of a configuration file."""

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


def read_configuration(path: str | Path, groups: Mapping[str, type] = GROUPS) -> dict[str, Any]:
    """Read the values that a configuration file gives.

    Args:
        path: the file.
        groups: dataclasses of the options that may stand in it, by their headings.

    Raises:
        OptionError: the file is absent or not TOML, an option is unknown or given twice, or a value is of the
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
    return checked_values(table, where=f"--config {path}", groups=groups)


def checked_values(table: Mapping[str, object], *, where: str, groups: Mapping[str, type] = GROUPS) -> dict[str, Any]:
    """Give values of the right types by the names of their fields.

    Args:
        table: what a file holds, by the names of options with ``-`` or ``_``.
        where: what messages begin with.
        groups: as for :func:`read_configuration`.

    Raises:
        OptionError: as :func:`read_configuration`.
    """
    known = {item.name: (item, kind) for options in groups.values() for item, kind in typed_fields(options)}
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


def write_configuration(values: Mapping[str, Any], groups: Mapping[str, type] = GROUPS) -> str:
    """Write a configuration file with every option, the help texts as comments.

    Args:
        values: by the names of fields; a field that is absent has its default.
        groups: as for :func:`read_configuration`.

    Returns:
        TOML; :func:`read_configuration` gives the same values again. An option without a value is a comment.

    Raises:
        OptionError: a value cannot be written, such as a file name that is not UTF-8.
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
    else:
        text += default_text(item)
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
        raise OptionError(f"--{name} cannot be written to a configuration file, it is not UTF-8 text") from error
    # JSON's escapes are TOML's, but for one control character that JSON leaves as it is.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _converted(value: object, kind: type, where: str) -> Any:
    """Convert a value to what its field holds; a whole number may stand for a number, a text for a list of one."""
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
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
