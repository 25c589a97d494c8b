"""Write captions for images, on your own machine.

>>> import captioner
>>> model = captioner.load()
>>> model.caption(["photo.jpg"])[0][0].text        # doctest: +SKIP
'A dog runs through the grass.'

These names are public; the modules behind them may move.

- Caption: ``load``, ``Captioner``, ``Caption``, ``DecodingOptions``, ``Score``
- Images: ``open_image``, ``find_images``, ``Preprocessing``
- Folders: ``caption_paths``, ``caption_folder``, ``caption_inside``, ``caption_on_cluster``, ``FolderOptions``
- Evaluate: ``score_captions``, ``tokenize``
- Data sets: ``read_records``, ``Record``, ``DatasetOptions``
- Train: ``train``, ``TrainingOptions``
- Checkpoints: ``load_checkpoint``, ``save_checkpoint``, ``Checkpoint``, ``Vocabulary``
- Errors: ``CaptionerError`` and its kinds ``CheckpointError``, ``DatasetError``, ``ImageError``, ``OptionError`` and
  ``UnknownWordsError``
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from captioner.bulk.options import FolderOptions
    from captioner.bulk.pipeline import caption_paths
    from captioner.bulk.run import caption_folder
    from captioner.caption import Caption
    from captioner.captioner import Captioner
    from captioner.checkpoint import Checkpoint, load_checkpoint
    from captioner.cluster.engine import caption_on_cluster
    from captioner.datasets import DatasetOptions, Record, read_records
    from captioner.decoding.options import DecodingOptions
    from captioner.embed.targets import caption_inside
    from captioner.errors import (
        CaptionerError,
        CheckpointError,
        DatasetError,
        ImageError,
        OptionError,
        UnknownWordsError,
    )
    from captioner.images import Preprocessing, open_image
    from captioner.images.find import find_images
    from captioner.metrics.evaluate import score as score_captions
    from captioner.metrics.ptb.tokenizer import tokenize
    from captioner.saving import save_checkpoint
    from captioner.scoring import Score
    from captioner.training.options import TrainingOptions
    from captioner.training.trainer import train
    from captioner.vocabulary import Vocabulary

__version__ = "0.1.0"
__all__ = [
    "Caption",
    "Captioner",
    "CaptionerError",
    "Checkpoint",
    "CheckpointError",
    "DatasetError",
    "DatasetOptions",
    "DecodingOptions",
    "FolderOptions",
    "ImageError",
    "OptionError",
    "Preprocessing",
    "Record",
    "Score",
    "TrainingOptions",
    "UnknownWordsError",
    "Vocabulary",
    "__version__",
    "caption_folder",
    "caption_inside",
    "caption_on_cluster",
    "caption_paths",
    "find_images",
    "load",
    "load_checkpoint",
    "open_image",
    "read_records",
    "save_checkpoint",
    "score_captions",
    "tokenize",
    "train",
]

# Loaded on first use: importing torch takes seconds, and ``captioner --help`` must not wait for it.
_MODULES = {
    "bulk.options": ("FolderOptions",),
    "bulk.pipeline": ("caption_paths",),
    "bulk.run": ("caption_folder",),
    "caption": ("Caption",),
    "captioner": ("Captioner",),
    "checkpoint": ("Checkpoint", "load_checkpoint"),
    "cluster.engine": ("caption_on_cluster",),
    "datasets": ("DatasetOptions", "Record", "read_records"),
    "decoding.options": ("DecodingOptions",),
    "embed.targets": ("caption_inside",),
    "errors": ("CaptionerError", "CheckpointError", "DatasetError", "ImageError", "OptionError", "UnknownWordsError"),
    "images": ("Preprocessing", "open_image"),
    "images.find": ("find_images",),
    "metrics.evaluate": ("score_captions",),
    "metrics.ptb.tokenizer": ("tokenize",),
    "saving": ("save_checkpoint",),
    "scoring": ("Score",),
    "training.options": ("TrainingOptions",),
    "training.trainer": ("train",),
    "vocabulary": ("Vocabulary",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}
_NAME_THERE = {"score_captions": "score"}


if not TYPE_CHECKING:  # so that type checkers report a name that does not exist

    def __getattr__(name: str) -> Any:
        if name not in _HOME:
            raise AttributeError(f"module 'captioner' has no attribute {name!r}")
        found = globals()[name] = getattr(import_module(f"captioner.{_HOME[name]}"), _NAME_THERE.get(name, name))
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def load(
    weights: str | Path | Sequence[str | Path] | None = None, *, device: str = "auto", precision: str = "auto"
) -> Captioner:
    """Load a captioner; :meth:`Captioner.load` has more options.

    Args:
        weights: a checkpoint file or a shipped name, by default the shipped weights; or a list of these, which write
            together.
        device: ``auto`` (cuda, mps or cpu) or the name of a torch device.
        precision: of the encoder: ``fp32``, ``bf16``, or ``auto``, which is fp32.

    Raises:
        CheckpointError: the file is missing, broken or not a checkpoint of captioner.
        OptionError: the device or the precision is not available, or the checkpoints do not fit together.
    """
    from captioner.captioner import Captioner

    return Captioner.load(weights, device=device, precision=precision)
