from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from captioner.web.service import Service
from tests.web.hostile import HOSTILE
from tests.web.waiting import Narrow

if TYPE_CHECKING:
    from tests.web.serving import Server


@pytest.fixture(autouse=True)
def _uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of a test count as uploaded."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))


@pytest.fixture(scope="session")
def service(checkpoint_file: Path) -> Service:
    """The small model, loaded; the shipped weights can be asked for by name."""
    service = Service(checkpoint_file, device="cpu")
    service.models.start()
    service.models.load()
    return service


@pytest.fixture
def narrow(checkpoint_file: Path) -> Iterator[Narrow]:
    """A service that holds its first image, and in which one may wait."""
    narrow = Narrow(checkpoint_file)
    yield narrow
    narrow.go_on()


@pytest.fixture(params=sorted(HOSTILE))
def hostile(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    """A file that is no good image, and a part of what a visitor is told of it."""
    content, message = HOSTILE[request.param]
    path = tmp_path / f"secret-folder-{request.param}"
    path.write_bytes(content())
    return path, message


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A small image in two colours."""
    image = Image.new("RGB", (96, 64), "navy")
    image.paste("orange", (20, 10, 60, 50))
    path = tmp_path / "picture.png"
    image.save(path)
    return path


@pytest.fixture(scope="session")
def server(checkpoint_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The small model behind a real server that takes uploads of up to a megabyte."""
    pytest.importorskip("gradio", reason="the page needs the extra 'app'")
    from tests.web.serving import running

    folder = tmp_path_factory.mktemp("server")
    with running(folder, "--weights", str(checkpoint_file), "--max-upload-mb", "1") as server:
        yield server
