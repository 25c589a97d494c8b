"""The module paths of earlier releases, kept for one release.

``captioner.batch.runner.caption_paths`` is now ``captioner.caption_paths``, and
``captioner.batch.job.caption_folder`` is ``captioner.caption_folder``.
"""

import sys
import warnings
from types import ModuleType
from typing import Any

import captioner

_NAMES = {"runner": "caption_paths", "job": "caption_folder"}


class _Moved(ModuleType):
    """A module that is no file any more; it has one name."""

    def __getattr__(self, name: str) -> Any:
        old = self.__name__
        if name != _NAMES[old.rpartition(".")[2]]:
            raise AttributeError(f"module {old!r} has no attribute {name!r}")
        warnings.warn(f"{old}.{name} is now captioner.{name}", DeprecationWarning, stacklevel=2)
        return getattr(captioner, name)


for _module in _NAMES:
    # An import looks here before it looks for a file.
    globals()[_module] = sys.modules[f"{__name__}.{_module}"] = _Moved(f"{__name__}.{_module}")
