"""Calls of many threads become batches for the few that compute."""

import threading
from collections.abc import Callable, Sequence
from concurrent import futures
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from captioner.errors import BusyError

Key = TypeVar("Key")
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(eq=False)
class _Call(Generic[Key, Item, Result]):
    key: Key
    item: Item
    future: futures.Future[Result] = field(default_factory=futures.Future)


class Batcher(Generic[Key, Item, Result]):
    """Worker threads that compute batches for many threads.

    A call that finds a worker idle is prepared at once; those that come meanwhile join its batch, which is computed
    as soon as no other call waits. So a lonely call waits for nothing. Calls that gave up waiting are not computed.

    Args:
        compute: from a key and some items to as many results; called by the workers alone, as ``prepare``.
        most: items in a batch.
        queue_size: calls that may wait; one more is refused.
        timeout: seconds after which a call gives up.
        workers: how many there may be for a key.
        begin: called by each worker once, with its first key.
        prepare: what can be done for an item alone.
    """

    def __init__(
        self,
        compute: Callable[[Key, Sequence[Item]], Sequence[Result]],
        *,
        most: int,
        queue_size: int,
        timeout: float,
        workers: Callable[[Key], int] = lambda key: 1,
        begin: Callable[[Key], None] = lambda key: None,
        prepare: Callable[[Key, Item], None] = lambda key, item: None,
    ) -> None:
        self._compute, self._most, self._queue_size, self._timeout = compute, most, queue_size, timeout
        self._workers, self._begin, self._prepare = workers, begin, prepare
        self._waiting: list[_Call[Key, Item, Result]] = []
        self._changed = threading.Condition()
        self._started = self._idle = 0  # workers

    def __len__(self) -> int:
        """Count the calls that wait."""
        return len(self._waiting)

    def __call__(self, key: Key, item: Item) -> Result:
        """Have an item computed, together with others of the same key; or raise what ``compute`` raises for it.

        Raises:
            BusyError: too many wait already, or it took too long.
        """
        call: _Call[Key, Item, Result] = _Call(key, item)
        with self._changed:
            if len(self._waiting) >= self._queue_size:
                raise busy()
            self._waiting.append(call)
            if len(self._waiting) > self._idle and self._started < self._workers(key):
                self._started += 1
                threading.Thread(target=self._work, args=[key], name="batcher", daemon=True).start()
            self._changed.notify()
        try:
            return call.future.result(self._timeout)
        except futures.TimeoutError as error:
            # Since Python 3.11 this is the built-in TimeoutError, which compute could raise as well.
            if call.future.done() and not call.future.cancelled():
                raise
            call.future.cancel()
            raise busy("this took too long, and the server is busy") from error

    def _work(self, key: Key) -> None:
        self._begin(key)
        while True:
            batch: list[_Call[Key, Item, Result]] = []
            while (call := self._next(batch)) is not None:
                if self._is_prepared(call):
                    batch.append(call)
            if batch:
                self._run(batch)

    def _next(self, batch: list[_Call[Key, Item, Result]]) -> _Call[Key, Item, Result] | None:
        """Take the oldest call that can join the batch; wait only where there is no batch yet."""
        with self._changed:
            if not batch:
                self._idle += 1
                self._changed.wait_for(lambda: self._waiting)
                self._idle -= 1
            for call in self._waiting[:] if len(batch) < self._most else ():
                if not batch or call.key == batch[0].key:
                    self._waiting.remove(call)
                    if call.future.set_running_or_notify_cancel():
                        return call
        return None

    def _is_prepared(self, call: _Call[Key, Item, Result]) -> bool:
        try:
            self._prepare(call.key, call.item)
        except Exception as error:
            call.future.set_exception(error)
        return not call.future.done()

    def _run(self, batch: list[_Call[Key, Item, Result]]) -> None:
        try:
            results = self._compute(batch[0].key, [call.item for call in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0].future.set_exception(error)
            else:
                for call in batch:  # one bad item must not fail the others
                    self._run([call])
            return
        for call, result in zip(batch, results, strict=True):
            call.future.set_result(result)


def busy(what: str = "the server is busy") -> BusyError:
    """Make what is raised where too many wait."""
    return BusyError(what, "try again in a moment")
