"""The network at work on many images, so that a caption depends on nothing but its image.

Two things would make it depend on more. Kernels choose their order of summation by the shape of the batch, so
an image alone and the same image among others differ in the last bits, and now and then in a word: here
each image is encoded alone, or in a batch of fixed shape, and a model's steps do not depend on how many images
take them (:class:`captioner.runtime.model.State`). And the share of the threads in one sum depends on
their number: here each thread computes on its own, on other images than the others.

The second is faster too. Threads that share the work of one layer wait for each other after each layer.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from captioner.caption import Caption
from captioner.captioner import Captioner
from captioner.decoding.options import DecodingOptions
from captioner.images import Pixels
from captioner.runtime.model import Floats

_WRITTEN_TOGETHER = 8  # twice as many take a quarter more memory, and are 2 % faster


class Engine:
    """Captions images in threads.

    Args:
        captioner: the model.
        options: decoding options.

    Attributes:
        threads: how many compute at the same time.
        seen_together: how many images the encoder is given at once.
    """

    def __init__(self, captioner: Captioner, options: DecodingOptions) -> None:
        self.captioner, self.options = captioner, options
        self.seen_together, self.threads = captioner.model.seen_together, captioner.model.threads
        self._pool = ThreadPoolExecutor(self.threads, "network", initializer=captioner.model.begin_thread)

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def submit(self, pixels: list[Pixels]) -> list[Future[list[list[Caption]]]]:
        """Begin with a batch.

        Returns:
            Futures for consecutive parts of the batch; each gives the captions of its images.
        """
        return [self._begin(pixels[i : i + _WRITTEN_TOGETHER]) for i in range(0, len(pixels), _WRITTEN_TOGETHER)]

    def write(self, regions: Floats, seeds: list[int]) -> list[list[Caption]]:
        """Write captions for encoded images, 8 at a time: ``(images, regions, channels)``, and a seed for each."""
        starts = range(0, len(regions), _WRITTEN_TOGETHER)
        groups = [slice(start, start + _WRITTEN_TOGETHER) for start in starts]
        parts = [self._pool.submit(self._write, regions[group], seeds[group]) for group in groups]
        return [captions for part in parts for captions in part.result()]

    def _begin(self, pixels: list[Pixels]) -> Future[list[list[Caption]]]:
        """Begin with up to 8 images: all are encoded, and then written of together."""
        captions: Future[list[list[Caption]]] = Future()
        captions.set_running_or_notify_cancel()
        starts = range(0, len(pixels), self.seen_together)
        regions: dict[int, Floats] = {}
        lock = threading.Lock()

        def attempt(work: Callable[..., None], *arguments: int) -> None:
            try:
                work(*arguments)
            except BaseException as error:  # handed to the thread that waits for the captions
                if not captions.done():
                    captions.set_exception(error)

        def see(start: int) -> None:
            seen = self._see(pixels[start : start + self.seen_together])
            with lock:
                regions[start] = seen
                complete = len(regions) == len(starts)
            if complete:
                self._pool.submit(attempt, write)

        def write() -> None:
            seeds = self.captioner.seeds(pixels, self.options)
            captions.set_result(self._write(np.concatenate([regions[start] for start in starts]), seeds))

        for start in starts:
            self._pool.submit(attempt, see, start)
        return captions

    def _see(self, pixels: list[Pixels]) -> Floats:
        """Region features of at most ``seen_together`` images: ``(images, regions, channels)``.

        A decoder without attention asks for their mean only; that alone is kept.
        """
        filled = pixels + pixels[:1] * (self.seen_together - len(pixels))
        regions = self.captioner.encode(filled)[: len(pixels)]
        return regions.mean(axis=1, keepdims=True) if self.captioner.config.attention == "none" else regions

    def _write(self, regions: Floats, seeds: list[int]) -> list[list[Caption]]:
        """Captions of at most 8 encoded images."""
        return self.captioner.decode(regions, self.options, seeds=seeds, attention=False)
