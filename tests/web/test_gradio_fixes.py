"""More requests than may wait: they are refused at the door."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

pytest.importorskip("gradio", reason="the page needs the extra 'app'")

from gradio.data_classes import PredictBodyInternal

from captioner.web.api import Metrics, add_endpoints
from captioner.web.gradio_fixes import refuse_beyond
from captioner.web.options import ServingOptions
from captioner.web.page import build_app, build_page
from captioner.web.service import Service
from tests.web.awaiting import run
from tests.web.hostile import good_png
from tests.web.serving import record, served
from tests.web.waiting import Narrow

BUSY = "The server is busy; try again in a moment."


def test_only_what_needs_the_model_is_refused(service: Service) -> None:
    metrics = Metrics(lambda: 0)
    page = build_page(service, add_endpoints=lambda: add_endpoints(service, metrics))
    page.queue()
    admitted, waiting = [], 0

    async def push(body: Any, **_: Any) -> Any:
        admitted.append(page.fns[body.fn_index].name)
        return True, "event", "success"

    page._queue.push = push  # type: ignore[method-assign]
    refuse_beyond(page, 3, lambda: waiting, metrics.refused)

    def ask() -> dict[str, Any]:
        return {
            function.name: run(
                page._queue.push(body=SimpleNamespace(fn_index=number), request=None, username=None)  # type: ignore[arg-type]
            )
            for number, function in page.fns.items()
        }

    assert {state for _, _, state in ask().values()} == {"success"}
    admitted.clear()
    waiting = 3
    answers = ask()
    for name in ("caption", "caption_batch", "score", "respond", "respond_again", "respond_to_sample"):
        assert answers[name] == (False, BUSY, "queue_full")
    assert {"when_ready", "edit", "stop_album"} <= set(admitted)
    assert 'captioner_errors_total{endpoint="/caption"} 1.0' in metrics.text().decode()


def test_only_what_needs_the_model_takes_a_place_in_the_queue(service: Service) -> None:
    page = build_page(service, add_endpoints=lambda: add_endpoints(service, Metrics(lambda: 0)))
    page.queue()
    refuse_beyond(page, 2, lambda: 0, Metrics(lambda: 0).refused)
    functions = {function.name: number for number, function in page.fns.items()}

    def admitted(name: str) -> bool:
        body = PredictBodyInternal(data=[], fn_index=functions[name], session_hash="mine", request=None)
        accepted, _, _ = run(page._queue.push(body=body, request=httpx.Request("POST", "/"), username=None))  # type: ignore[arg-type]
        return bool(accepted)

    assert [admitted(name) for name in ("when_ready", "edit", "respond", "when_ready", "caption")] == [True] * 5
    assert len(page._queue) == 5
    assert [admitted(name) for name in ("respond", "caption", "when_ready")] == [False, False, True]


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


def test_a_full_queue_is_status_503(narrow: Narrow, tmp_path: Path) -> None:
    with (
        served(build_app(narrow.service, ServingOptions(queue_size=1))) as address,
        httpx.Client(base_url=address, timeout=120) as http,
    ):

        def ask(colour: str) -> httpx.Response:
            upload = http.post("/gradio_api/upload", files={"files": ("x.png", good_png(colour))})
            return http.post("/gradio_api/call/v2/caption", json={"image": record(upload.json()[0])})

        begun = [ask("red")]
        narrow.wait_until_busy(waiting=0)
        begun.append(ask("green"))
        narrow.wait_until_busy(waiting=1)
        refused = ask("blue")
        assert (refused.status_code, refused.json()) == (503, {"detail": BUSY})
        assert http.get("/health").status_code == 200
        narrow.go_on()
        for answer in begun:
            text = http.get(f"/gradio_api/call/caption/{answer.json()['event_id']}").text
            assert "event: complete" in text
        assert ask("blue").status_code == 200
