"""The network at work on many pictures, so that a caption depends on nothing but its picture.

Two things would make it depend on more. Kernels choose their order of summation by the shape of the batch, so
a picture alone and the same picture among others differ in the last bits, and now and then in a word: here
every computation has a fixed shape, whatever the batch. And the share of the threads in one sum depends on
their number: here each thread computes on its own, on other pictures than the others.

The second is faster too. Threads that share the work of one layer wait for each other after each layer.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from captioner.caption import Caption
from captioner.captioner import Captioner
from captioner.decoding.options import DecodingOptions
from captioner.images import Pixels

_WRITTEN_TOGETHER = 16
_SEEN_TOGETHER = 16


class Engine:
    """Captions pictures in threads.

    Args:
        captioner: the model.
        options: decoding options.

    Attributes:
        threads: how many compute at the same time.
        seen_together: how many pictures the encoder is given at once.
    """

    def __init__(self, captioner: Captioner, options: DecodingOptions) -> None:
        self.captioner, self.options = captioner, options
        on_cpu = captioner.device.type == "cpu"
        # An accelerator needs many pictures at once; a processor is as fast with one after the other.
        self.seen_together = 1 if on_cpu else _SEEN_TOGETHER
        self._threads_before = torch.get_num_threads()
        self.threads = self._threads_before if on_cpu else 1
        self._pool = ThreadPoolExecutor(
            self.threads,
            thread_name_prefix="network",
            initializer=torch.set_num_threads,
            initargs=(1,),
        )

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(self._threads_before)

    def submit(self, pixels: list[Pixels]) -> list[Future[list[list[Caption]]]]:
        """Begin with a batch.

        Returns:
            Futures for consecutive parts of the batch; each gives the captions of its pictures.
        """
        parts = [pixels[i : i + _WRITTEN_TOGETHER] for i in range(0, len(pixels), _WRITTEN_TOGETHER)]
        return [_Part(self, self._pool, part).captions for part in parts]

    def see(self, pixels: list[Pixels]) -> Tensor:
        """Region features of at most ``seen_together`` pictures: ``(pictures, regions, channels)``.

        A decoder without attention asks for their mean only; that alone is kept.
        """
        filled = pixels + pixels[:1] * (self.seen_together - len(pixels))
        regions = self.captioner.encode(filled)[: len(pixels)]
        return regions.mean(dim=1, keepdim=True) if self.captioner.config.attention == "none" else regions

    def write(self, regions: Tensor, seeds: list[int]) -> list[list[Caption]]:
        """Captions of at most 16 encoded pictures."""
        missing = _WRITTEN_TOGETHER - len(regions)
        filled = torch.cat((regions, regions[:1].expand(missing, -1, -1)))
        return self.captioner.decode(
            filled, self.options, seeds=seeds + seeds[:1] * missing, attention=False
        )[: len(regions)]


class _Part:
    """Up to 16 pictures: all are encoded, and then written of together."""

    def __init__(self, engine: Engine, pool: ThreadPoolExecutor, pixels: list[Pixels]) -> None:
        self._engine, self._pool, self._pixels = engine, pool, pixels
        self._lock = threading.Lock()
        self.captions: Future[list[list[Caption]]] = Future()
        self.captions.set_running_or_notify_cancel()
        starts = range(0, len(pixels), engine.seen_together)
        self._regions: dict[int, Tensor] = {}
        self._missing = len(starts)
        for start in starts:
            pool.submit(self._try, self._see, start)

    def _try(self, work: Any, *arguments: int) -> None:
        try:
            work(*arguments)
        except BaseException as error:  # handed to whoever waits for the captions
            if not self.captions.done():
                self.captions.set_exception(error)

    def _see(self, start: int) -> None:
        regions = self._engine.see(self._pixels[start : start + self._engine.seen_together])
        with self._lock:
            self._regions[start] = regions
            self._missing -= 1
            complete = self._missing == 0
        if complete:
            self._pool.submit(self._try, self._write)

    def _write(self) -> None:
        engine = self._engine
        seeds = engine.captioner.seeds(self._pixels, engine.options)
        regions = torch.cat([self._regions[start] for start in sorted(self._regions)])
        self.captions.set_result(engine.write(regions, seeds))
