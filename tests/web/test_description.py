"""The OpenAPI description, put to the test: requests that are made from it, right and wrong ones, fail no server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("schemathesis", reason="needs schemathesis: pip install 'captioner[dev]'")
pytest.importorskip("gradio", reason="the page needs the extra 'app'")

import schemathesis
from hypothesis import HealthCheck, given, settings

from captioner.web.options import ServingOptions
from captioner.web.page import build_app
from captioner.web.service import Service
from tests.web.hostile import good_png
from tests.web.serving import served

ROUTES = ("/api/caption", "/api/caption_batch", "/api/score")
FEW = settings(max_examples=6, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def schema(service: Service) -> Iterator[Any]:
    with served(build_app(service, ServingOptions(max_upload_mb=1))) as address:
        yield schemathesis.openapi.from_url(f"{address}/openapi.json")


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=str)
def test_no_request_fails_the_server(schema: Any, path: str, mode: Any) -> None:
    operation = schema[path]["POST"]

    @FEW
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        answer = case.call()
        assert answer.status_code < 500
        if answer.status_code >= 400:
            assert answer.json()["error"].strip()
        else:
            assert answer.status_code == 200

    ask()


def test_a_good_request_is_answered_as_described(schema: Any) -> None:
    for path, fields in (("/api/caption", {"beam_size": "2"}), ("/api/score", {"caption": "a dog"})):
        case = schema[path]["POST"].Case(media_type="multipart/form-data", body={"image": good_png(), **fields})
        case.call_and_validate()
