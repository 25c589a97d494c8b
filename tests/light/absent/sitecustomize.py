"""Hides packages from a process and its children, as if they were not installed; Python runs this at its start."""

import os
import sys
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any

ABSENT = frozenset(os.environ["CAPTIONER_ABSENT"].split())


class Finder(PathFinder):
    """Finds what the usual finder does, except what is to be absent."""

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return None if name.partition(".")[0] in ABSENT else super().find_spec(name, path, target)


sys.meta_path[:] = [Finder if finder is PathFinder else finder for finder in sys.meta_path]
