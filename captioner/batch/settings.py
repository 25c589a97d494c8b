"""What captions were made with, as plain values, so that two runs can be compared before they are mixed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from captioner import __version__
from captioner.batch.options import FolderOptions
from captioner.errors import OutputError

Settings = dict[str, object]


def output_settings(
    model: Mapping[str, object], options: FolderOptions, whole: Mapping[str, int]
) -> Settings:
    """Everything that a caption, or what is written of it, depends on besides its picture.

    Args:
        model: of the model and its decoding.
        options: of the run.
        whole: how much all shards have to do, if there are any: shards of lists that differ overlap.
    """
    settings = {
        "captioner": __version__,
        **model,
        "format": options.kind,
        "log_prob": options.log_prob,
        "prepend": options.prepend or "",
        "append": options.append or "",
    }
    if options.kind == "html" and options.link_folder is not None:  # links to pictures depend on it
        settings["folder"] = os.path.relpath(Path.cwd(), options.link_folder)
    return settings if options.shard is None else {**settings, "shard": options.shard, **whole}


def differences(old: Mapping[str, object], new: Mapping[str, object]) -> str:
    """In words, how settings differ; empty if they do not. The version is noted, but may differ."""
    return ", ".join(_differences(old, new))


def check_same(output: Path, old: Mapping[str, object], new: Mapping[str, object]) -> None:
    """Accept to go on with an output.

    Raises:
        OutputError: it was begun with other settings.
    """
    if differing := differences(old, new):
        raise OutputError(
            f"{output}: was begun with {differing}",
            "give the same options to go on, or `overwrite` to begin anew",
        )


def _differences(old: Mapping[str, object], new: Mapping[str, object]) -> Iterator[str]:
    for name in {**old, **new}:
        before, now = old.get(name), new.get(name)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            yield from _differences(before, now)
        elif before != now and name != "captioner":
            yield f"{name} {_shown(before)}, not {_shown(now)}"


def _shown(value: object) -> str:
    return "none" if value in (None, "") else str(value)
