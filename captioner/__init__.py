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

from typing import Any

import lazy_loader

from captioner.errors import needing

# Loaded on first use: importing torch takes seconds, and ``captioner --help`` must not wait for it.
_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__.append("__version__")
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    with needing(f"captioner.{name}"):
        return _load(name)
