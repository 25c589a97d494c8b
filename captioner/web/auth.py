"""Who may come in: a file with names and passwords."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from captioner.errors import OptionError


def read_users(file: Path) -> list[tuple[str, str]]:
    """Read an ``--auth-file``: a line ``USER:PASSWORD`` for each visitor, and comments after ``#``.

    Raises:
        OptionError: the file cannot be read, or a line is no such pair.
    """
    try:
        text = file.read_text(encoding="utf-8")
        mode = file.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(
            f"{file}: cannot be read ({getattr(error, 'strerror', None) or 'not UTF-8'})"
        ) from error
    if os.name == "posix" and mode & (stat.S_IRGRP | stat.S_IROTH):
        print(f"captioner: warning: others can read {file}; run: chmod 600 {file}", file=sys.stderr)
    users = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, password = line.strip().partition(":")
        if not (name and colon and password):
            raise OptionError(f"{file}, line {number}: must be USER:PASSWORD")
        users.append((name, password))
    if not users:
        raise OptionError(f"{file}: names nobody; give a line USER:PASSWORD")
    return users
