"""What is repaired of Gradio, for its own client and for the page."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

pytest.importorskip("gradio", reason="the page needs the extra 'app'")

from captioner.web.options import ServingOptions
from captioner.web.page import build_app, build_page
from captioner.web.service import Service
from tests.web.hostile import good_png
from tests.web.serving import Server, record, served
from tests.web.waiting import Narrow

BUSY = "The server is busy; try again in a moment."


def test_what_is_kept_of_visitors_is_bounded(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captioner.web.page._MOST_SESSIONS", 3)
    pages: list[Any] = []
    monkeypatch.setattr(
        "captioner.web.page.build_page", lambda *a, **more: pages.append(build_page(*a, **more)) or pages[0]
    )
    with (
        served(build_app(service, ServingOptions())) as address,
        httpx.Client(base_url=address, timeout=120) as http,
    ):
        seen = []
        for _ in range(6):
            upload = http.post("/gradio_api/upload", files={"files": ("x.png", good_png())})
            asked = {"image": record(upload.json()[0])}
            event = http.post("/gradio_api/call/v2/caption", json=asked).json()["event_id"]
            assert "event: complete" in http.get(f"/gradio_api/call/caption/{event}").text
            seen.append(len(pages[0].state_holder.session_data))
        assert seen[0] >= 1
        assert max(seen) <= 4  # one that is just made is counted at its next use


def test_one_too_many_is_told_so_and_may_come_again(narrow: Narrow) -> None:
    with (
        served(build_app(narrow.service, ServingOptions(queue_size=1))) as address,
        httpx.Client(base_url=address, timeout=120) as http,
    ):

        def ask(colour: str) -> str:
            upload = http.post("/gradio_api/upload", files={"files": ("x.png", good_png(colour))})
            event = http.post("/gradio_api/call/v2/caption", json={"image": record(upload.json()[0])})
            return f"/gradio_api/call/caption/{event.json()['event_id']}"

        begun = [ask("red")]
        narrow.wait_until_busy(waiting=0)
        begun.append(ask("green"))
        narrow.wait_until_busy(waiting=1)
        assert BUSY in http.get(ask("blue")).text
        narrow.go_on()
        assert all("event: complete" in http.get(address).text for address in begun)
        assert "event: complete" in http.get(ask("blue")).text


def test_gradios_client_calls_the_functions(server: Server, captioner: Any, image: Any) -> None:
    from gradio_client import Client, handle_file

    client = Client(str(server.http.base_url), verbose=False)
    (best, *_) = captioner.caption([image])[0]
    text, details = client.predict(handle_file(image), api_name="/caption")
    assert text == best.text
    assert details["log_prob"] == pytest.approx(best.log_prob, abs=1e-4)
    assert details["image"] == image.name
    log_prob, scored = client.predict(handle_file(image), " ".join(best.words), api_name="/score")
    assert log_prob == pytest.approx(best.log_prob, abs=1e-4)
    assert scored["perplexity"] > 1
    (found,) = client.predict([handle_file(image)], api_name="/caption_batch")
    assert (found["image"], found["caption"]) == (image.name, text)
    with pytest.raises(Exception, match="does not know"):
        client.predict(handle_file(image), "a zebra", api_name="/score")
