"""captioner looks at an image and writes a sentence about it.

>>> import captioner
>>> model = captioner.load()
>>> model.caption(["photo.jpg"])[0][0].text        # doctest: +SKIP
'A dog runs through the grass.'
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from captioner.caption import Caption
    from captioner.captioner import Captioner
    from captioner.decoding.options import DecodingOptions

__version__ = "0.1.0"
__all__ = ["Caption", "Captioner", "DecodingOptions", "__version__", "load"]

# Loaded on first use: importing torch takes seconds, and ``captioner --help`` must not wait for it.
_HOME = {
    "Caption": "captioner.caption",
    "Captioner": "captioner.captioner",
    "DecodingOptions": "captioner.decoding.options",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'captioner' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def load(weights: str | Path | None = None, *, device: str = "auto", precision: str = "auto") -> Captioner:
    """Load a captioner; see :meth:`captioner.Captioner.load`."""
    from captioner.captioner import Captioner

    return Captioner.load(weights, device=device, precision=precision)
