from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.training import processes


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session", autouse=True)
def _fork_server() -> None:
    processes.preload()
