"""``captioner alt`` with the small model: what is reported, what is written, and what is wrong use."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import html5lib
import pytest

from captioner.captioner import Captioner
from captioner.cli import main
from tests.bulk.folders import contents, save_image

Run = Callable[..., tuple[int, str, str]]

PAGE = """<!doctype html>
<title>A page</title>
<img src="one.png"><a href="/"><IMG SRC=/img/two.png></a>
<img src=one.png alt="By hand"> <img src=one.png alt>
<img src=gone.png><img src="https://example.org/a.png"><img src=broken.png>
"""


@pytest.fixture
def run(checkpoint_file: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs ``captioner alt``: exit code, standard output, standard error."""

    def alt(*arguments: str | Path) -> tuple[int, str, str]:
        code = main(["alt", *map(str, arguments), "--weights", str(checkpoint_file), "--device", "cpu"])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return alt


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    save_image(folder / "one.png", 1)
    save_image(folder / "img" / "two.png", 2)
    (folder / "broken.png").write_text("not an image")
    (folder / "index.html").write_text(PAGE)
    (folder / "img" / "odd.html").write_bytes(b"<meta charset=klingon><img src=two.png>")
    return folder


@pytest.fixture
def said(captioner: Captioner, site: Path) -> list[str]:
    """What the model says of the two images."""
    images = (site / "one.png", site / "img" / "two.png")
    return [captioner.caption([image])[0][0].text for image in images]


def test_first_a_report_then_the_pages(run: Run, site: Path, said: list[str]) -> None:
    before = contents(site)
    page = site / "index.html"
    lines = [
        f"{page}:3\tone.png\t{said[0]}",
        f"{page}:3\t/img/two.png\t{said[1]}",
        f"{page}:5\tgone.png\t[no file]",
        f"{page}:5\thttps://example.org/a.png\t[remote]",
        f"{page}:5\tbroken.png\t[failed]",
    ]
    problems = [
        f"captioner: {site / 'broken.png'}: not an image in a known format",
        f"captioner: {site / 'img' / 'odd.html'}: is not a page in the encoding klingon",
    ]
    counts = "1 with alt text, 1 decorative, 1 no file, 1 remote, 1 failed"
    for flags, end in ([], f"2 to write, {counts}; --in-place writes them"), (["--in-place"], f"2 written, {counts}"):
        code, out, err = run(site, *flags)
        assert (code, out.splitlines()) == (1, lines)
        assert [line[: len(start)] for line, start in zip(err.splitlines(), problems, strict=False)] == problems
        assert err.splitlines()[-1] == f"captioner: 2 pages: {end}"
        assert bool(flags) or contents(site) == before
    alts = [f'alt="{text}"' for text in said]
    expected = PAGE.replace("<img src", f"<img {alts[0]} src", 1).replace("<IMG", f"<IMG {alts[1]}")
    assert contents(site) == before | {"index.html": expected.encode()}
    assert [element.get("alt") for element in html5lib.parse(expected, namespaceHTMLElements=False).iter("img")] == [
        *(*said, "By hand", ""),
        *(None, None, None),
    ]
    assert run(page, "--in-place")[1].splitlines() == lines[2:]
    assert contents(site) == before | {"index.html": expected.encode()}


def test_a_report_for_programs_has_every_image(run: Run, site: Path, said: list[str]) -> None:
    code, out, _ = run(site / "index.html", "--format", "jsonl")
    records = [json.loads(line) for line in out.splitlines()]
    assert code == 1
    assert [record["state"] for record in records] == [
        *("to write", "to write", "with alt text", "decorative", "no file", "remote", "failed")
    ]
    first = {"page": str(site / "index.html"), "line": 3, "src": "one.png", "state": "to write"}
    assert records[0] == {**first, "image": str((site / "one.png").resolve()), "alt": said[0], "error": None}
    assert records[-1]["alt"] is None
    assert "not an image" in records[-1]["error"]


def test_decoding_options_and_root_are_heeded(run: Run, site: Path, captioner: Captioner) -> None:
    page = site / "img" / "deep.html"
    page.write_text("<img src=/one.png>")
    assert "[no file]" in run(page)[1]
    code, out, err = run(page, "--root", site, "--max-length", "5", "--batch-size", "1")
    assert (code, err) == (0, "captioner: 1 page: 1 to write; --in-place writes them\n")
    assert len(out.split("\t")[2].split()) <= 5


def test_a_page_without_images_is_no_mistake(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty.html").touch()
    assert run(tmp_path) == (0, "", "captioner: 1 page: no images\n")


def test_wrong_use(run: Run, tmp_path: Path) -> None:
    for arguments, message in (
        ([tmp_path / "a.html"], f"{tmp_path}/a.html: no such page or folder"),
        ([tmp_path], f"no web pages in {tmp_path}"),
        ([tmp_path, "--root", tmp_path / "x"], f"--root {tmp_path}/x: no such folder"),
        ([tmp_path, "--batch-size", "0"], "batch_size"),
        ([tmp_path, "--beam-size", "0"], "--beam-size must be"),
    ):
        code, out, err = run(*arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert message in err
