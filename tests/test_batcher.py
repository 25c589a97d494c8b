from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from captioner.batcher import Batcher
from captioner.errors import BusyError


class Machine:
    """Doubles numbers, and waits at a gate so that a test decides when it works."""

    def __init__(self) -> None:
        self.gate = threading.Semaphore(0)
        self.began = threading.Semaphore(0)
        self.batches: list[tuple[str, list[int]]] = []

    def __call__(self, key: str, items: Sequence[int]) -> list[int]:
        self.began.release()
        assert self.gate.acquire(timeout=30)
        self.batches.append((key, list(items)))
        if 13 in items:
            raise ValueError("unlucky")
        return [2 * item for item in items]

    def open(self) -> None:
        self.gate.release(1000)


def batcher(machine: Machine, most: int = 8, queue_size: int = 100, timeout: float = 30) -> Batcher:
    return Batcher(machine, most=most, queue_size=queue_size, timeout=timeout)


def wait_for(calls: Batcher, count: int) -> None:
    pause = threading.Event()
    for _ in range(3000):
        if len(calls) == count:
            return
        pause.wait(0.01)
    raise AssertionError(f"{len(calls)} calls wait, not {count}")


def in_turn(pool: ThreadPoolExecutor, calls: Batcher, machine: Machine, keys: str) -> list[int]:
    """Results of 0, 1 and so on: the first is computed while the others come, one after the other, and wait."""
    found = [pool.submit(calls, keys[0], 0)]
    assert machine.began.acquire(timeout=30)
    for number, key in enumerate(keys[1:], start=1):
        found.append(pool.submit(calls, key, number))
        wait_for(calls, number)
    machine.open()
    return [each.result() for each in found]


def test_calls_that_wait_become_one_batch_and_each_gets_its_own_result() -> None:
    machine = Machine()
    calls = batcher(machine)
    with ThreadPoolExecutor(6) as pool:
        assert in_turn(pool, calls, machine, "aaaaaa") == [0, 2, 4, 6, 8, 10]
    assert machine.batches == [("a", [0]), ("a", [1, 2, 3, 4, 5])]


def test_keys_are_never_mixed_and_a_batch_is_not_too_large() -> None:
    machine = Machine()
    calls = batcher(machine, most=2)
    with ThreadPoolExecutor(8) as pool:
        assert in_turn(pool, calls, machine, "aababab") == [0, 2, 4, 6, 8, 10, 12]
    assert machine.batches == [("a", [0]), ("a", [1, 3]), ("b", [2, 4]), ("a", [5]), ("b", [6])]


def test_an_item_that_fails_does_not_fail_the_others_of_its_batch() -> None:
    machine = Machine()
    calls = batcher(machine)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(calls, "a", 1)
        assert machine.began.acquire(timeout=30)
        unlucky = pool.submit(calls, "a", 13)
        wait_for(calls, 1)
        lucky = pool.submit(calls, "a", 14)
        wait_for(calls, 2)
        machine.open()
        assert (first.result(), lucky.result()) == (2, 28)
        with pytest.raises(ValueError, match="unlucky"):
            unlucky.result()


def test_one_call_too_many_is_refused_at_once() -> None:
    machine = Machine()
    calls = batcher(machine, queue_size=2)
    with ThreadPoolExecutor(3) as pool:
        running = pool.submit(calls, "a", 1)
        assert machine.began.acquire(timeout=30)
        waiting = []
        for number in (2, 3):
            waiting.append(pool.submit(calls, "a", number))
            wait_for(calls, number - 1)
        with pytest.raises(BusyError, match="busy"):
            calls("a", 4)
        machine.open()
        assert [running.result(), *(call.result() for call in waiting)] == [2, 4, 6]


def test_a_call_that_gave_up_is_not_computed() -> None:
    machine = Machine()
    calls = batcher(machine, timeout=0.2)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(calls, "a", 1)
        assert machine.began.acquire(timeout=30)
        with pytest.raises(BusyError, match="too long"):
            calls("a", 2)
        with pytest.raises(BusyError):
            running.result()
    machine.open()
    assert calls("a", 3) == 6
    assert [items for _, items in machine.batches] == [[1], [3]]


def test_a_timeout_inside_the_computation_is_not_taken_for_ours() -> None:
    def late(key: str, items: Sequence[int]) -> list[int]:
        raise TimeoutError("of the computation")

    with pytest.raises(TimeoutError, match="of the computation"):
        Batcher(late, most=2, queue_size=2, timeout=30)("a", 1)


def test_a_thousand_calls_from_thirty_two_threads_lose_nothing() -> None:
    calls: Batcher[int, int, int] = Batcher(
        lambda key, items: [key + item for item in items], most=8, queue_size=1000, timeout=60
    )
    with ThreadPoolExecutor(32) as pool:
        results = list(pool.map(lambda number: calls(number % 3, number), range(1000)))
    assert results == [number % 3 + number for number in range(1000)]


def test_calls_that_come_during_the_preparation_join_the_batch() -> None:
    batches: list[list[int]] = []
    prepared = threading.Semaphore(0)

    def compute(key: str, items: Sequence[int]) -> list[int]:
        batches.append(list(items))
        return list(items)

    def prepare(key: str, item: int) -> None:
        if item == 13:
            raise ValueError("unlucky")
        if item == 0:
            assert prepared.acquire(timeout=30)

    calls: Batcher[str, int, int] = Batcher(compute, most=8, queue_size=8, timeout=30, prepare=prepare)
    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(calls, "a", 0)]
        for number in (1, 13, 2):
            wait_for(calls, len(found) - 1)
            found.append(pool.submit(calls, "a", number))
        wait_for(calls, 3)
        prepared.release()
        assert [found[place].result() for place in (0, 1, 3)] == [0, 1, 2]
        with pytest.raises(ValueError, match="unlucky"):
            found[2].result()
    assert batches == [[0, 1, 2]]
