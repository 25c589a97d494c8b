"""The three routes for programs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("gradio", reason="the page needs the extra 'app'")

from captioner.captioner import Captioner
from captioner.web.api import MOST_IMAGES
from captioner.web.options import ServingOptions
from captioner.web.page import build_app
from captioner.web.service import Service
from tests.web.hostile import HOSTILE, good_png
from tests.web.serving import Server, served
from tests.web.waiting import Narrow

ROOT = Path(__file__).parents[2]
RAW = {"content-type": "image/png"}
FORM_TYPE = "multipart/form-data; boundary=x"
FORM = (
    b"".join(
        b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % part
        for part in ((b'image"; filename="x.png', good_png()), (b"caption", b"+2AA- dog \\"))
    )
    + b"--x--"
)
Client = httpx.Client


def sent(*files: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("image", (f"{number}.png", data)) for number, data in enumerate(files)]


@pytest.fixture(scope="module")
def http(service: Service) -> Iterator[Client]:
    """A server in this process that takes images of up to a megabyte."""
    app = build_app(service, ServingOptions(max_upload_mb=1))
    with served(app) as address, Client(base_url=address, timeout=120) as client:
        yield client


def refusal(answer: httpx.Response, status: int) -> str:
    """The sentence of a refusal; nothing else is said."""
    assert answer.status_code == status, answer.text
    text: str = answer.json()["error"]
    assert text.endswith(".")
    assert "\n" not in text
    assert not re.search(r"/tmp|/work|Traceback|Error:", text)
    return text


def test_a_form_and_the_image_itself_get_what_the_captioner_writes(
    http: Client, captioner: Captioner, image: Path
) -> None:
    (best, *_) = captioner.caption([image])[0]
    form = http.post("/api/caption", files={"image": ("dog.png", image.read_bytes())}).json()
    raw = http.post("/api/caption", content=image.read_bytes(), headers=RAW).json()
    assert (form.pop("image"), raw.pop("image")) == ("dog.png", "the image")
    assert form == raw
    assert form["caption"] == best.text
    assert form["log_prob"] == pytest.approx(best.log_prob, abs=1e-4)
    assert [word["word"] for word in form["words"]] == [*best.words]
    total = sum(word["log_prob"] for word in form["words"]) + form["end_log_prob"]
    assert total == pytest.approx(form["log_prob"], abs=1e-3)
    assert form["captions"][0] == {"caption": best.text, "log_prob": form["log_prob"]}
    assert len(form["captions"]) == captioner.options.beam_size


def test_settings_are_form_fields_or_the_query(http: Client, captioner: Captioner) -> None:
    data = good_png()
    sampled = {"method": "sample", "temperature": "1.5", "top_p": "1", "draws": "3", "seed": "1"}
    form = http.post("/api/caption", files=sent(data), data=sampled).json()
    query = http.post("/api/caption", params=sampled, content=data, headers=RAW).json()
    assert [each["caption"] for each in form["captions"]] == [each["caption"] for each in query["captions"]]
    assert len(form["captions"]) == 3
    assert len(http.post("/api/caption?max_length=2", files=sent(data)).json()["words"]) <= 2


def test_records_are_those_of_the_command_line(http: Client, captioner: Captioner) -> None:
    good = http.post("/api/caption", files=sent(good_png())).json()
    records = http.post("/api/caption_batch", files=sent(good_png(), b"no image", good_png("red"))).json()
    assert records[0] == {name: good[name] for name in ("image", "caption", "log_prob")}
    assert records[1].keys() == {"image", "error"}
    assert records[1]["error"].startswith("1.png: not an image")
    assert records[2]["image"] == "2.png"


def test_sentences_are_scored(http: Client) -> None:
    best = http.post("/api/caption", files=sent(good_png())).json()
    own = " ".join(word["word"] for word in best["words"])
    answer = http.post("/api/score", files=sent(good_png()), data={"caption": [own, "a dog"]}).json()
    first, second = answer["captions"]
    assert first["log_prob"] == pytest.approx(best["log_prob"], abs=1e-4)
    assert first["perplexity"] > 1
    assert [word["word"] for word in second["words"]] == ["a", "dog"]
    raw = http.post("/api/score", params={"caption": "a dog"}, content=good_png(), headers=RAW).json()
    assert raw["captions"] == [second]


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_bad_images_are_refused_by_name(http: Client, name: str) -> None:
    content, message = HOSTILE[name]
    assert message in refusal(http.post("/api/caption", files={"image": (name, content())}), 400)
    assert message in refusal(http.post("/api/score?caption=dog", content=content(), headers=RAW), 400)


@pytest.mark.parametrize(
    ("route", "request_", "message"),
    [
        ("caption", {"files": {"file": ("x.png", b"")}}, "send images as files called image"),
        ("caption", {"files": {"image": ("x.png", b"")}, "data": {"fly": "1"}}, "there is no field 'fly'"),
        ("caption", {"files": sent(b"", b"")}, "send one image"),
        ("caption", {"files": sent(b""), "data": {"beam_size": "many"}}, "beam_size must be a whole number"),
        ("caption", {"files": sent(b""), "data": {"beam_size": "99"}}, "from 1 to 10, not 99"),
        ("caption", {"files": sent(b""), "params": {"temperature": "nan"}}, "temperature must be"),
        ("caption", {"files": sent(b""), "params": {"method": "fly"}}, "method must be one of"),
        ("caption", {"files": sent(b""), "params": {"seed": ["1", "2"]}}, "seed was sent twice"),
        ("caption", {"files": sent(b""), "params": {"seed": "1"}, "data": {"seed": "1"}}, "seed was sent twice"),
        ("score", {"content": FORM, "headers": {"content-type": f"{FORM_TYPE}; charset=punycode"}}, "send UTF-8"),
        ("score", {"content": FORM, "headers": {"content-type": f"{FORM_TYPE}; charset=undefined"}}, "send UTF-8"),
        ("score", {"content": FORM, "headers": {"content-type": f"{FORM_TYPE}; charset=utf-7"}}, "not valid UTF-8"),
        ("caption", {"content": b"", "headers": RAW}, "file is empty"),
        ("caption", {"content": b"x", "headers": {"content-type": "multipart/form-data"}}, "boundary"),
        ("caption", {"content": b"--x", "headers": {"content-type": "multipart/form-data; boundary=x"}}, "one image"),
        ("caption_batch", {"files": {"image": (None, "x")}}, "send images as files"),
        ("score", {"files": sent(good_png())}, "send 1 to 100 sentences"),
        ("score", {"files": sent(good_png()), "data": {"caption": ["dog"] * 101}}, "send 1 to 100 sentences"),
        ("score", {"files": sent(good_png()), "data": {"text": "dog"}}, "there is no field 'text'"),
        ("score", {"files": sent(good_png()), "data": {"caption": "a zebra"}}, "does not know"),
        ("score", {"files": sent(good_png()), "data": {"caption": "dog " * 200}}, "too long"),
    ],
)
def test_what_does_not_fit_is_400(http: Client, route: str, request_: dict[str, Any], message: str) -> None:
    assert message.lower() in refusal(http.post(f"/api/{route}", **request_), 400).lower()


def test_other_types_are_415(http: Client) -> None:
    for request in (
        {"json": {"image": "x"}},
        {"data": {"image": "x"}},
        {"content": b"x", "headers": {"content-type": "text/plain"}},
    ):
        assert "multipart/form-data" in refusal(http.post("/api/caption", **request), 415)  # type: ignore[arg-type]


def test_large_bodies_are_413_while_they_come(http: Client) -> None:
    asked = 0

    def endless() -> Iterator[bytes]:
        nonlocal asked
        for _ in range(300):
            asked += 1
            yield bytes(100_000)

    assert "larger than 1 MB" in refusal(http.post("/api/caption", content=bytes(1_500_000), headers=RAW), 413)
    assert "larger than" in refusal(http.post("/api/caption", files=sent(bytes(1_500_000))), 413)
    assert "larger than" in refusal(http.post("/api/caption_batch", files=sent(good_png(), bytes(1_500_000))), 413)
    assert "larger than" in refusal(http.post("/api/caption_batch", files=sent(*[bytes(900_000)] * 15)), 413)
    assert "larger than" in refusal(http.post("/api/caption", content=endless(), headers=RAW), 413)


def test_too_many_images_are_told(http: Client) -> None:
    assert "at most 100" in refusal(http.post("/api/caption_batch", files=sent(*[b"x"] * (MOST_IMAGES + 1))), 400)
    assert refusal(http.post("/api/caption_batch", files=sent(*[b"x"] * (MOST_IMAGES + 2))), 400)


def test_one_too_many_is_503_and_may_come_again(narrow: Narrow) -> None:
    with served(build_app(narrow.service, ServingOptions(queue_size=1))) as address:
        from concurrent.futures import ThreadPoolExecutor

        def ask(colour: str) -> httpx.Response:
            return httpx.post(f"{address}/api/caption", files=sent(good_png(colour)), timeout=120)

        with ThreadPoolExecutor(2) as pool:
            begun = [pool.submit(ask, "red")]
            narrow.wait_until_busy(waiting=0)
            begun.append(pool.submit(ask, "green"))
            narrow.wait_until_busy(waiting=1)
            refused = ask("blue")
            assert refusal(refused, 503) == "The server is busy; try again in a moment."
            assert int(refused.headers["retry-after"]) >= 1
            assert httpx.get(f"{address}/health").status_code == 200
            narrow.go_on()
            assert [answer.result().status_code for answer in begun] == [200, 200]
        assert ask("blue").status_code == 200
        figures = httpx.get(f"{address}/metrics").text
        assert 'captioner_errors_total{endpoint="/api/caption"} 1.0' in figures
        assert 'captioner_requests_total{endpoint="/api/caption"} 4.0' in figures


def test_without_a_model_it_is_503(tmp_path: Path) -> None:
    service = Service(tmp_path / "absent.safetensors")
    service.models.start()
    with served(build_app(service, ServingOptions())) as address:
        answer = httpx.post(f"{address}/api/caption", files=sent(good_png()), timeout=120)
        assert "cannot be loaded" in refusal(answer, 503)


def test_passwords_hold_for_programs(service: Service) -> None:
    with served(build_app(service, ServingOptions(), [("anna", "geheim"), ("zoë", "schön")])) as address:
        url = f"{address}/api/caption"
        for auth in (None, ("anna", "wrong"), ("", "")):
            refused = httpx.post(url, files=sent(good_png()), auth=auth, timeout=120)
            assert refusal(refused, 401)
            assert refused.headers["www-authenticate"].startswith("Basic")
        for auth in (("anna", "geheim"), ("zoë", "schön")):
            assert httpx.post(url, files=sent(good_png()), auth=auth, timeout=120).status_code == 200
        (strange,) = {httpx.get(f"{address}{path}").json()["error"] for path in ("/config", "/gradio_api/info")}
        assert strange == "Not authenticated."
        described = httpx.get(f"{address}/openapi.json", timeout=120).json()
        assert described["paths"]["/api/score"]["post"]["security"]


def test_the_description_is_complete(http: Client) -> None:
    described = http.get("/openapi.json").json()
    assert described["openapi"].startswith("3.1")
    operations = {path: methods["post"] for path, methods in described["paths"].items() if "post" in methods}
    assert set(operations) == {"/api/caption", "/api/caption_batch", "/api/score"}
    for path, operation in operations.items():
        assert operation["operationId"] == path.removeprefix("/api/")
        assert operation["description"]
        assert {"200", "400", "401", "408", "413", "415", "503"} == set(operation["responses"])
        form = operation["requestBody"]["content"]["multipart/form-data"]["schema"]
        assert "image" in form["required"]
    caption = operations["/api/caption"]
    sizes = {item["name"]: item["schema"] for item in caption["parameters"]}
    assert (sizes["beam_size"]["minimum"], sizes["beam_size"]["maximum"]) == (1, 10)
    assert sizes["method"]["enum"] == ["beam", "greedy", "sample"]
    references = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(described)))
    assert references == set(described["components"]["schemas"])
    page = http.get("/docs")
    assert "openapi.json" in page.text
    assert not re.search(r"https?://", page.text)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_curl_examples_of_readme_and_manual(server: Server, captioner: Captioner, images: list[Path]) -> None:
    cat = next(path for path in images if path.stem == "cat")
    for document in (ROOT / "README.md", ROOT / "docs" / "page.md"):
        text = document.read_text(encoding="utf-8")
        line = re.findall(r"^ *(curl -F \S+ http://127\.0\.0\.1:7860/api/caption)$", text, re.MULTILINE)[0]
        line = line.replace("http://127.0.0.1:7860/", f"{server.http.base_url}/").replace("photo.jpg", str(cat))
        done = subprocess.run(["sh", "-c", f"{line} -s"], capture_output=True, text=True, check=True, cwd=ROOT)
        assert json.loads(done.stdout)["caption"] == captioner.caption([cat])[0][0].text
