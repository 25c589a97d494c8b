"""Calls from many threads, brought together so that they go through the network as one batch."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from captioner.errors import BusyError

Key = TypeVar("Key")
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass
class _Call(Generic[Key, Item, Result]):
    key: Key
    item: Item
    future: Future[Result] = field(default_factory=Future)


class Batcher(Generic[Key, Item, Result]):
    """One worker thread that computes what many threads ask for.

    Nothing waits for company: a call that finds the worker idle is computed at once, and those that come
    while it works are its next batch. Calls that gave up waiting are not computed.

    Args:
        compute: from a key and some items to as many results; called by the worker alone.
        most: items in a batch.
        queue_size: calls that may wait; one more is refused.
        timeout: seconds after which a call gives up.
    """

    def __init__(
        self,
        compute: Callable[[Key, Sequence[Item]], Sequence[Result]],
        *,
        most: int,
        queue_size: int,
        timeout: float,
    ) -> None:
        self._compute, self._most, self._queue_size, self._timeout = compute, most, queue_size, timeout
        self._waiting: deque[_Call[Key, Item, Result]] = deque()
        self._changed = threading.Condition()
        self._worker: threading.Thread | None = None

    def __len__(self) -> int:
        """Calls that wait."""
        return len(self._waiting)

    def __call__(self, key: Key, item: Item) -> Result:
        """Have an item computed, together with others of the same key.

        Raises:
            BusyError: too many wait already, or it took too long.
            Exception: whatever ``compute`` raises for this item.
        """
        call: _Call[Key, Item, Result] = _Call(key, item)
        with self._changed:
            if len(self._waiting) >= self._queue_size:
                raise BusyError("the server is busy", "try again in a moment")
            self._waiting.append(call)
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, name="batcher", daemon=True)
                self._worker.start()
            self._changed.notify()
        try:
            return call.future.result(self._timeout)
        except FutureTimeoutError as error:
            # Since Python 3.11 this is the built-in TimeoutError, which compute could raise as well.
            if call.future.done() and not call.future.cancelled():
                raise
            call.future.cancel()
            raise BusyError("this took too long, and the server is busy", "try again in a moment") from error

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
                batch = self._take()
            started = [call for call in batch if call.future.set_running_or_notify_cancel()]
            if started:
                self._run(started)

    def _take(self) -> list[_Call[Key, Item, Result]]:
        """The oldest call and those behind it that have the same key."""
        key = self._waiting[0].key
        batch: list[_Call[Key, Item, Result]] = []
        others: deque[_Call[Key, Item, Result]] = deque()
        while self._waiting:
            call = self._waiting.popleft()
            fits = call.key == key and len(batch) < self._most
            (batch if fits else others).append(call)
        self._waiting = others
        return batch

    def _run(self, batch: list[_Call[Key, Item, Result]]) -> None:
        try:
            results = self._compute(batch[0].key, [call.item for call in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0].future.set_exception(error)
                return
            for call in batch:  # one bad item must not fail the others
                self._run([call])
            return
        for call, result in zip(batch, results, strict=True):
            call.future.set_result(result)
