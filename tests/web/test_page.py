from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from captioner.captioner import Captioner

gr = pytest.importorskip("gradio", reason="the page needs the extra 'app'")

from captioner.web.page import build_page, caption_upload  # noqa: E402 (needs gradio)

SAMPLES = Path(__file__).parents[2] / "data" / "samples"


@pytest.fixture(scope="module")
def shipped() -> Captioner:
    return Captioner.load()


@pytest.fixture(scope="module")
def address(shipped: Captioner) -> Iterator[str]:
    """A running page."""
    page = build_page(shipped)
    _, url, _ = page.launch(
        server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, ssr_mode=False, max_file_size="5mb"
    )
    yield url
    page.close()


def test_the_page_writes_what_the_captioner_writes(shipped: Captioner) -> None:
    path = SAMPLES / "dogs.jpg"
    text, likelihood = caption_upload(shipped, {"path": str(path)}, 3)
    ((best, *_),) = shipped.caption([path])
    assert text == best.text
    assert f"{best.log_prob:.2f}" in likelihood


def test_orientation_is_applied(shipped: Captioner, tmp_path: Path) -> None:
    upright = Image.open(SAMPLES / "coffee.jpg").convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = tmp_path / "lying.png"
    upright.transpose(Image.Transpose.ROTATE_90).save(lying, exif=exif)
    standing = tmp_path / "standing.png"
    upright.save(standing)
    assert caption_upload(shipped, {"path": str(lying)}, 3) == caption_upload(
        shipped, {"path": str(standing)}, 3
    )


@pytest.mark.parametrize("upload", [None, {}, {"path": ""}])
def test_no_picture_is_told_kindly(shipped: Captioner, upload: dict[str, str] | None) -> None:
    with pytest.raises(gr.Error, match="Choose a picture first"):
        caption_upload(shipped, upload, 3)


def test_a_broken_picture_is_named_without_the_servers_path(shipped: Captioner, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes((SAMPLES / "coffee.jpg").read_bytes()[:2000])
    with pytest.raises(gr.Error) as caught:
        caption_upload(shipped, {"path": str(broken), "orig_name": "holiday.jpg"}, 3)
    assert "holiday.jpg" in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_a_program_can_ask_the_running_page(address: str, shipped: Captioner) -> None:
    from gradio_client import Client, handle_file

    client = Client(address, verbose=False)
    path = SAMPLES / "cat.jpg"
    text, _ = client.predict(handle_file(str(path)), 3, api_name="/caption")
    assert text == shipped.caption([path])[0][0].text


def test_a_broken_upload_gets_a_plain_sentence_and_the_next_visitor_is_served(
    address: str, tmp_path: Path
) -> None:
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not a picture")
    client = Client(address, verbose=False)
    with pytest.raises(AppError, match=r"broken\.png"):
        client.predict(handle_file(str(broken)), 3, api_name="/caption")
    text, _ = client.predict(handle_file(str(SAMPLES / "dogs.jpg")), 1, api_name="/caption")
    assert text.endswith(".")


def test_many_visitors_at_once_get_their_own_captions(address: str, shipped: Captioner) -> None:
    from gradio_client import Client, handle_file

    client = Client(address, verbose=False)
    paths = [SAMPLES / name for name in ("dogs.jpg", "cat.jpg", "coffee.jpg", "tulips.jpg")]
    answers: dict[Path, str] = {}

    def ask(path: Path) -> None:
        answers[path] = client.predict(handle_file(str(path)), 3, api_name="/caption")[0]

    threads = [threading.Thread(target=ask, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {path: shipped.caption([path])[0][0].text for path in paths}
