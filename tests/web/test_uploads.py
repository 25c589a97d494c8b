from __future__ import annotations

import json
import os
import time
from pathlib import Path

import httpx
import pytest

pytest.importorskip("gradio", reason="the page needs the extra 'app'")

import gradio as gr

from captioner.errors import CaptionerError
from captioner.web import page, uploads
from captioner.web.gradio_fixes import guard, uploaded_file
from captioner.web.options import ServingOptions
from captioner.web.page import build_app, build_page
from captioner.web.server import private_uploads
from captioner.web.service import Service
from captioner.web.uploads import Uploads
from tests.web.awaiting import run
from tests.web.hostile import good_png
from tests.web.serving import record, served


def test_uploads_are_what_lies_in_their_folder(image: Path) -> None:
    assert uploaded_file({"path": str(image)}) == image


@pytest.mark.parametrize("path", ["/etc/passwd", "{}/../../x.png", "a\0b", "{}/link", "captioner/errors.py"])
def test_nothing_else_is(tmp_path: Path, path: str) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(CaptionerError, match="was not uploaded"):
        uploaded_file({"path": path.format(tmp_path)})


@pytest.mark.parametrize("upload", [None, {}, {"path": None}, {"path": ""}])
def test_no_file_is_told(upload: dict[str, str] | None) -> None:
    with pytest.raises(CaptionerError, match="choose an image first"):
        uploaded_file(upload)


@pytest.mark.parametrize("kind", [gr.Image, gr.File])
def test_addresses_are_not_fetched(kind: type, image: Path) -> None:
    with gr.Blocks() as page:
        component = kind()
    guard(page)
    with pytest.raises(gr.Error, match="not its address"):
        run(component.async_move_resource_to_block_cache("http://127.0.0.1:1/x.png"))
    kept = run(component.async_move_resource_to_block_cache(str(image)))
    assert Path(kept).read_bytes() == image.read_bytes()


def test_the_private_folder_is_gone_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRADIO_TEMP_DIR")
    with private_uploads() as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "x.png").write_bytes(b"x")
        assert os.environ["GRADIO_TEMP_DIR"] == str(folder)
    assert "GRADIO_TEMP_DIR" not in os.environ
    assert not folder.exists()


def test_uploads_do_not_grow_old(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "KEPT", 2)
    monkeypatch.setattr(page, "_SWEEP", 1)
    with served(build_app(service, ServingOptions())) as address:
        files = {"files": ("x.png", good_png())}
        (name,) = httpx.post(f"{address}/gradio_api/upload", files=files, timeout=120).json()
        path = tmp_path.parent / name
        assert path.is_relative_to(tmp_path)
        end = time.monotonic() + 60
        while path.exists():
            assert time.monotonic() < end, "it is still there"
            time.sleep(0.1)


def test_uploads_are_kept_for_an_hour_and_no_longer(service: Service) -> None:
    between, age = build_page(service).delete_cache or (0, 0)
    assert between + age == 3600
    assert age > 3500


def test_the_oldest_go_when_there_are_too_many(tmp_path: Path) -> None:
    now = time.time()
    for age, name in ((9, "first"), (5, "second"), (1, "third"), (4000, "yesterday")):
        path = tmp_path / name / "x.png"
        path.parent.mkdir()
        path.write_bytes(bytes(1000))
        os.utime(path, (now - age, now - age))

    def kept() -> set[str]:
        return {path.parent.name for path in tmp_path.rglob("x.png")}

    Uploads(tmp_path, 0, 10_000).trim()
    assert kept() == {"first", "second", "third"}
    Uploads(tmp_path, 0, 2500).trim()
    assert kept() == {"second", "third"}
    Uploads(tmp_path, 0, 0).trim()
    assert kept() == set()


def test_one_visitor_does_not_push_out_the_others(tmp_path: Path) -> None:
    kept = Uploads(tmp_path, 2500, 100_000)
    for number in range(12):
        path = tmp_path / str(number) / "x.png"
        path.parent.mkdir()
        path.write_bytes(bytes(1000))
        os.utime(path, (time.time() - 20 + number,) * 2)
        kept.note("greedy" if number else "modest", json.dumps([str(path)]).encode())
    kept.trim()
    assert {path.parent.name for path in tmp_path.rglob("x.png")} == {"0", "10", "11"}


def test_one_visitor_cannot_fill_the_disk(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "_MOST_UPLOADS", (3, 100))
    with served(build_app(service, ServingOptions(max_upload_mb=0.1))) as address:
        url = f"{address}/gradio_api/upload"
        for number in range(8):
            files = {"files": ("x.png", bytes([number]) * 90_000)}
            assert httpx.post(url, files=files, timeout=120).status_code == 200
        end = time.monotonic() + 60
        while len([*tmp_path.rglob("x.png")]) > 3:  # removed behind the answer
            assert time.monotonic() < end
            time.sleep(0.1)
        broken = httpx.post(url, files={"files": ("x.png", bytes(9_000_000))}, timeout=120)
        assert broken.status_code == 413


def test_no_answer_names_a_folder_of_the_server(service: Service, tmp_path: Path) -> None:
    with (
        served(build_app(service, ServingOptions())) as address,
        httpx.Client(base_url=address, timeout=120) as http,
    ):
        sent = http.post("/gradio_api/upload", files={"files": ("x.png", good_png())})
        (name,) = sent.json()
        seen = [sent.text, http.get("/").text, http.get("/config").text, http.get("/gradio_api/info").text]
        assert http.get(f"/gradio_api/file={name}").content == good_png()
        sample = {"session_hash": "x", "trigger_id": None, "event_data": {"name": "cat"}}
        config = http.get("/config").json()
        event = next(each for each in config["dependencies"] if each["targets"][0][1] == "select")
        values = [None, "beam", 5, 0.8, 0.9, 5, 30, 0, ""]
        seen.append(http.post("/gradio_api/queue/join", json=sample | {"fn_index": event["id"], "data": values}).text)
        with http.stream("GET", "/gradio_api/queue/data?session_hash=x") as stream:
            for line in stream.iter_lines():
                seen.append(line)
                if "process_completed" in line:
                    break
        assert "/gradio_api/file=" in seen[-1] + "".join(seen)
        body = json.dumps({"image": record(name)}).replace("/", "\\/")  # as PHP writes it
        asked = http.post("/gradio_api/call/v2/caption", content=body, headers={"content-type": "application/json"})
        assert "event: complete" in http.get(f"/gradio_api/call/caption/{asked.json()['event_id']}").text
        for text in seen:
            assert str(tmp_path.parent) not in text
            assert str(Path(page.__file__).parents[2]) not in text
