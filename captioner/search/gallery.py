"""Encoded pictures that can be asked how probable texts are for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from captioner.checkpoint import Checkpoint
from captioner.devices import choose_device, choose_dtype
from captioner.features.store import FeatureStore
from captioner.likelihood.matrix import PICTURES, log_prob_matrix


class Gallery:
    """Pictures, encoded now or earlier; features come from the cache on disk as they are needed.

    A picture that cannot be read is left out and listed in ``broken``.

    Args:
        checkpoint: the model.
        paths: picture files.
        cache: folder that keeps features, see :class:`captioner.features.store.FeatureStore`.
        device: ``auto`` or the name of a torch device.
        precision: of the encoder, as :class:`captioner.captioner.Captioner` takes it.

    Attributes:
        vocabulary: the words that the model knows.
        paths: the pictures that could be read, in the order given.
        broken: why the others could not, by their position among those given.

    Raises:
        CacheError: features cannot be kept on disk.
        EncoderError: the checkpoint cannot encode pictures.
        OptionError: the device or the precision is not to be had.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        paths: Sequence[Path],
        *,
        cache: str | Path,
        device: str = "auto",
        precision: str = "auto",
    ) -> None:
        self._device = choose_device(device)
        self._decoder = checkpoint.network.decoder.eval().to(self._device)
        self.vocabulary = checkpoint.vocabulary
        store = FeatureStore(
            cache,
            checkpoint.network.encoder.eval(),
            checkpoint.preprocessing,
            pooled=checkpoint.network.config.attention == "none",
            device=self._device,
            dtype=choose_dtype("fp32" if precision == "auto" else precision, self._device),
        )
        self._features = store.collect(paths)
        self._sound = [place for place, row in enumerate(self._features.rows) if row >= 0]
        self.paths = tuple(paths[place] for place in self._sound)
        self.broken: Mapping[int, str] = self._features.broken

    def log_probs(
        self, sentences: Sequence[Sequence[int]], *, on_progress: Callable[[int], Any] = lambda steps: None
    ) -> Tensor:
        """Log P(text | picture) of each text for each picture.

        Args:
            sentences: ids of the words of each text.
            on_progress: see :func:`captioner.likelihood.matrix.log_prob_matrix`.

        Returns:
            float64 ``(texts, pictures)``.
        """
        return log_prob_matrix(self._decoder, self._blocks(), sentences, on_progress=on_progress)

    def _blocks(self) -> Iterator[Tensor]:
        for start in range(0, len(self._sound), PICTURES):
            yield self._features.fetch(self._sound[start : start + PICTURES], self._device)
