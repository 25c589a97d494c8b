"""Runs over tars that are begun, interrupted, split and gone on with, as those over files are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from captioner.bulk.merge import merge
from captioner.errors import OutputError
from tests.bulk import fakes
from tests.bulk.tarring import colour, cut, good, make_tar, records, run, samples


@pytest.fixture(autouse=True)
def _colours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("captioner.engine.Engine", fakes.ColourEngine)
    monkeypatch.chdir(tmp_path)
    fakes.SEEN.clear()


def test_going_on_captions_what_is_missing_and_notices_changes(capsys: pytest.CaptureFixture[str]) -> None:
    make_tar(Path("a.tar"), samples(0, 1))
    assert run("{a,b}.tar", "c.tar").failed == 2
    make_tar(Path("b.tar"), samples(2, 3), "w:gz")
    make_tar(Path("c.tar"), samples(4))
    cut(Path("c.tar"), 512 * 3)
    fakes.SEEN.clear()
    summary = run("{a,b}.tar", "c.tar")
    assert (summary.captioned, summary.skipped, summary.failed) == (3, 2, 1)
    assert [fakes.caption_of(number) for number in (2, 3, 4)] == fakes.SEEN
    make_tar(Path("a.tar"), samples(0, 1))  # the same at another time
    make_tar(Path("b.tar"), [*samples(2), ("000003.jpg", colour(30))], "w:gz")
    make_tar(Path("c.tar"), samples(4))
    fakes.SEEN.clear()
    capsys.readouterr()
    summary = run("{a,b}.tar", "c.tar")
    assert (summary.captioned, summary.skipped, summary.failed) == (1, 4, 0)
    assert [fakes.caption_of(30)] == fakes.SEEN
    assert "b.tar/000003.jpg: has changed; it is captioned anew" in capsys.readouterr().err
    run("{a,b}.tar", "c.tar", output="whole.jsonl")
    assert Path("out.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()  # no missing tars any more
    written = Path("out.jsonl").stat().st_mtime_ns
    assert run("{a,b}.tar", "c.tar").skipped == 5
    assert Path("out.jsonl").stat().st_mtime_ns == written


@pytest.mark.parametrize("kind", ["text", "csv", "coco"])
def test_a_tar_that_was_missing_leaves_no_trace_in_any_format(kind: str) -> None:
    make_tar(Path("a.tar"), [(f"{1:012}.png", colour(1))])
    annotations = Path("ids.json")
    annotations.write_text(json.dumps({"images": [{"file_name": f"{n:012}.png", "id": n} for n in (1, 2)]}))
    more = {"format": kind}
    assert run("{a,b}.tar", **more).failed == 1
    make_tar(Path("b.tar"), [(f"{2:012}.png", colour(2))])
    run("{a,b}.tar", **more)
    run("{a,b}.tar", output="whole", **more)
    assert Path("out.jsonl").read_bytes() == Path("whole").read_bytes()


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_merged_shards_equal_one_run(count: int) -> None:
    for number in range(3):
        make_tar(Path(f"p-{number}.tar"), samples(*range(5 * number, 5 * number + number + 1)))
    Path("p-1.tar").write_bytes(Path("p-1.tar").read_bytes()[: 512 * 7])
    run("p-*.tar")
    parts = [f"part-{number}.jsonl" for number in range(1, count + 1)]
    for number, part in enumerate(parts, 1):
        run("p-*.tar", output=part, shard=f"{number}/{count}")
    assert merge(parts[::-1], "merged.jsonl")
    assert Path("merged.jsonl").read_bytes() == Path("out.jsonl").read_bytes()


def test_a_shard_does_not_look_into_the_tars_of_others() -> None:
    for number in range(4):
        make_tar(Path(f"p-{number}.tar"), samples(number))
    Path("p-3.tar").unlink()
    run("p-{0..3}.tar", shard="1/2")
    assert records() == [*good("p-0.tar", 0), *good("p-1.tar", 1)]
    with pytest.raises(OutputError, match="was begun with tars 4, not 5"):
        run("p-{0..4}.tar", shard="1/2")


def test_a_dry_run_names_images_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_tar(Path("t.tar"), [*samples(1), ("a.txt", b"")])
    summary = run("t.tar", dry_run=True)
    assert capsys.readouterr().out == "caption\tt.tar/000001.jpg\ncaption\tt.tar/a\n"
    assert summary.remaining == 2
    assert [path.name for path in tmp_path.iterdir()] == ["t.tar"]
