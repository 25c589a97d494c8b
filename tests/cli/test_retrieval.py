from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from captioner.cli import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(checkpoint_file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, images: list[Path]) -> Run:
    """Runs ``captioner retrieval`` on a table of six images: exit code, standard output, standard error."""
    captions = [
        "a dog runs",
        "the man 's unicorn",
        "two ball",
        "a dragon , a unicorn",
        "a cat sits",
        "a tree",
    ]
    rows = ["image,caption,split"]
    for image, caption in zip(images, captions, strict=False):
        shutil.copy(image, tmp_path / image.name)
        rows += [f'{image.name},"{caption}",val', f"{image.name},not this one,val"]
    (tmp_path / "captions.csv").write_text("\n".join(rows))

    def retrieval(*arguments: str) -> tuple[int, str, str]:
        model = ["--weights", str(checkpoint_file), "--device", "cpu", "--cache", str(tmp_path / "cache")]
        data = ["--dataset", f"table:{tmp_path}", "--split", "val", "--images", str(tmp_path)]
        code = main(["retrieval", *data, *arguments, *model])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return retrieval


def test_figures_for_people_and_for_programs(run: Run) -> None:
    code, out, _ = run()
    table = dict(line.rsplit(maxsplit=2)[:2] for line in out.splitlines()[2:5])
    code_of_json, json_out, _ = run("--json")
    record = json.loads(json_out)
    assert (code, code_of_json) == (0, 0)
    assert out.splitlines()[0] == (
        "table val: 6 images, the first caption of each as query; 3 unknown words left out of 2 captions"
    )
    for most in (1, 5, 10):
        assert float(table[f"recall@{most}"]) == pytest.approx(100 * record[f"recall@{most}"], abs=0.05)
    assert record["recall@10"] == 1
    assert out.splitlines()[5].split() == ["median", "rank", f"{record['median_rank']:g}", "of", "6"]
    assert (record["photos"], record["dropped_words"], record["shortened_queries"]) == (6, 3, 2)


def test_a_limit(run: Run) -> None:
    assert json.loads(run("--json", "--limit", "2")[1])["photos"] == 2
    code, _, err = run("--limit", "0")
    assert (code, err) == (2, "captioner: error: --limit must be at least 1, not 0\n")


def test_images_that_are_absent_or_broken(run: Run, tmp_path: Path, images: list[Path]) -> None:
    (tmp_path / images[0].name).write_text("no image")
    (tmp_path / images[1].name).unlink()
    code, _, err = run()
    assert code == 2
    assert "1 of 6 images are absent" in err
    code, out, err = run("--skip-missing")
    assert code == 0
    assert out.startswith("table val: 4 images (2 left out, absent or broken)")
    shutil.copy(images[2], tmp_path / images[1].name)
    code, _, err = run()
    assert code == 2
    assert "1 of 6 images are broken" in err
    assert "--skip-missing" in err
