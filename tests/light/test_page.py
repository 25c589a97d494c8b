from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="the page needs the extra 'app'")

from tests.light.conftest import DOGS
from tests.light.installing import light_environment
from tests.web.serving import running


def test_the_page_runs_without_torch(tmp_path: Path, images: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in light_environment("app").items():
        monkeypatch.setenv(name, value)
    (dogs,) = (image for image in images if image.name == "dogs.jpg")
    with running(tmp_path) as server:
        answer = server.call("caption", image=server.upload(dogs.read_bytes(), "dogs.jpg"))
        assert answer.values is not None, answer.error
        assert answer.values[0] == DOGS
        assert server.stop() == 0
    assert "Traceback" not in (tmp_path / "log").read_text()
