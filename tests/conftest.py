from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

# Imported by the fixtures that need them, so that tests of what does without torch do without it.
if TYPE_CHECKING:
    from captioner.captioner import Captioner
    from captioner.checkpoint import Checkpoint

pytest_plugins = ("tests.skips",)


# A slow or busy machine is no failure.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets; not part of the project."""
    from tests.skips import data_folder

    return data_folder()


@pytest.fixture(scope="session")
def checkpoint() -> Checkpoint:
    """A small model that writes varied nonsense; not to be changed."""
    from tests.small_model import small_checkpoint

    return small_checkpoint()


@pytest.fixture(scope="session")
def checkpoint_file(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model as a file; not to be changed."""
    from captioner.saving import save_checkpoint

    path = tmp_path_factory.mktemp("checkpoint") / "small.safetensors"
    save_checkpoint(path, checkpoint)
    return path


@pytest.fixture(scope="session")
def attentive_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model with adaptive attention as a file; not to be changed."""
    from captioner.saving import save_checkpoint
    from tests.small_model import small_checkpoint

    path = tmp_path_factory.mktemp("attentive") / "small.safetensors"
    save_checkpoint(path, small_checkpoint(attention="adaptive"))
    return path


@pytest.fixture(scope="session")
def captioner(checkpoint_file: Path) -> Captioner:
    """The small model, ready to caption, in float32 on the CPU."""
    from captioner.captioner import Captioner

    return Captioner.load(checkpoint_file, device="cpu", precision="fp32")


@pytest.fixture(scope="session")
def images() -> list[Path]:
    """The sample images that come with the project."""
    folder = Path(__file__).parent.parent / "data" / "samples"
    return sorted(path for path in folder.iterdir() if path.suffix in (".jpg", ".png"))


@pytest.fixture
def double() -> Iterator[None]:
    """The test computes in float64, see ``tests/tolerance.py``."""
    from tests.tolerance import in_double

    with in_double():
        yield
