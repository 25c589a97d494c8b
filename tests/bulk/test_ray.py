"""``--engine ray`` on a cluster of this machine: what one process would write, whoever dies meanwhile."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from captioner.bulk.merge import merge
from captioner.bulk.options import FolderOptions
from captioner.bulk.run import Model, Progress, Summary
from captioner.captioner import Captioner
from captioner.cli import main
from captioner.cluster.engine import caption_on_cluster
from tests.bulk.folders import caption, make_folder, model_of, save_image
from tests.bulk.tarring import make_tar

ray: Any = pytest.importorskip("ray")
BATCH = 1  # so that a part has 16 images


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Address of a cluster with two processors, which lives as long as these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "")
        patch.delenv("RAY_AUTH_MODE")  # Ray sets it, and in the end it is as it was
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        ray.init(
            "local",
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=150 << 20,
            log_to_driver=False,
            logging_level="ERROR",
        )
        yield ray.get_runtime_context().gcs_address
        ray.shutdown()


def slow_model(captioner: Captioner, checkpoint_file: Path) -> Model:
    """The small model, which takes its time wherever it is loaded."""
    path = str(checkpoint_file)

    def load() -> Captioner:
        import time

        from captioner.captioner import Captioner

        loaded = Captioner.load(path, device="cpu", precision="fp32")
        encode = loaded.encode

        def slowly(pixels: Any) -> Any:
            time.sleep(0.05)
            return encode(pixels)

        loaded.encode = slowly  # type: ignore[method-assign]
        return loaded

    model = model_of(captioner)
    return replace(model, load=load, preprocessing=lambda: captioner.preprocessing)


def run(model: Model, folder: Path, output: Path, **options: Any) -> Summary:
    choices = FolderOptions(engine="ray", output=str(output), format="jsonl", batch_size=BATCH, **options)
    return caption_on_cluster([str(folder)], choices, model, Progress())


def actors() -> set[int]:
    """Processes of this cluster that hold the model."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True).stdout
    table = {int(pid): (int(parent), args) for pid, parent, args in (s.split(None, 2) for s in listed.splitlines())}

    def is_ours(pid: int) -> bool:
        while pid in table:
            pid = table[pid][0]
            if pid == os.getpid():
                return True
        return False

    return {pid for pid, (_, args) in table.items() if args.startswith("ray::") and "Captions" in args and is_ours(pid)}


def merged(folder: Path) -> bytes:
    """All parts as one file."""
    target = folder.with_suffix(".merged")
    merge([str(path) for path in sorted(folder.glob("part-*.jsonl"))], str(target), overwrite=True)
    return target.read_bytes()


@pytest.mark.slow
def test_an_actor_that_is_killed_costs_no_row_and_doubles_none(
    cluster: str,
    captioner: Captioner,
    checkpoint_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = make_folder(tmp_path / "pictures", 70, broken=(3, 40))
    save_image(folder / "copy.png", 5)
    caption(captioner, folder, output=str(tmp_path / "alone.jsonl"))
    output, model = tmp_path / "out", slow_model(captioner, checkpoint_file)
    capsys.readouterr()
    summaries: list[Summary] = []
    thread = threading.Thread(target=lambda: summaries.append(run(model, folder, output)))
    thread.start()
    while thread.is_alive() and not list(output.glob("part-*")):
        time.sleep(0.01)
    (victim,) = actors()
    os.kill(victim, signal.SIGKILL)
    assert len(list(output.glob("part-*"))) < 5
    thread.join()
    (summary,) = summaries
    assert (summary.captioned, summary.skipped, summary.failed, summary.remaining) == (69, 0, 2, 0)
    assert capsys.readouterr().err.count("broken or incomplete PNG image") == 2
    assert sorted(path.name for path in output.iterdir()) == [
        "_captioner.json",
        *(f"part-{number:06}.jsonl" for number in range(5)),
    ]
    assert merged(output) == (tmp_path / "alone.jsonl").read_bytes()


@pytest.mark.slow
def test_going_on_captions_what_is_missing_or_has_failed(
    cluster: str, captioner: Captioner, checkpoint_file: Path, tmp_path: Path
) -> None:
    folder = make_folder(tmp_path / "pictures", 40, broken=(2,))
    output, model = tmp_path / "out", slow_model(captioner, checkpoint_file)
    stopped = run(model, folder, output, fail_fast=True)
    assert stopped.remaining > 0
    again = run(model, folder, output)
    assert (again.captioned, again.failed) == (39 - again.skipped, 1)
    save_image(folder / "2.png", 2)
    before = {path: path.stat().st_mtime_ns for path in output.iterdir()}
    last = run(model, folder, output)
    assert (last.captioned, last.skipped, last.failed) == (1, 39, 0)
    changed = [path.name for path, written in before.items() if path.stat().st_mtime_ns != written]
    assert changed == ["part-000000.jsonl"]
    caption(captioner, folder, output=str(tmp_path / "alone.jsonl"))
    assert merged(output) == (tmp_path / "alone.jsonl").read_bytes()


@pytest.mark.slow
def test_the_command_with_tars_and_an_address(
    cluster: str, captioner: Captioner, checkpoint_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Names are relative, and the processes of the cluster are in another folder.
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    )
    monkeypatch.chdir(tmp_path)
    images = sorted(make_folder(tmp_path / "pictures", 20, broken=(11,)).iterdir())
    for number in range(2):
        members = [(path.name, path.read_bytes()) for path in images[number::2]]
        make_tar(tmp_path / f"t-{number}.tar", members, ("w", "w:gz")[number])
    tars = "t-{0..2}.tar"
    weights = ["--weights", os.path.relpath(checkpoint_file), "--device", "cpu", "--precision", "fp32"]
    alone = ["--output", "alone.jsonl", "--workers", "0"]
    assert main(["caption", "--input-tar", tars, *weights, *alone, "--quiet"]) == 1
    engine = ["--engine", "ray", "--ray-address", cluster, "--output", "out", "--batch-size", "1"]
    engine += ["--ray-actors", "2"]  # which hold all processors of this cluster, as those of a machine that is left do
    command = [sys.executable, "-m", "captioner", "caption", "--input-tar", tars, *weights, *engine]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    # Beside what Ray says of its own settings, and where we are where it takes long.
    said = [line for line in done.stderr.splitlines() if line.startswith("captioner: ")]
    said = [line for line in said if "images/s, " not in line and "has no graphs" not in line]
    assert len(said) == 3
    assert said[-1].startswith("captioner: 19 captioned, 0 skipped, 2 failed, ")
    records = parquet.read_table("out").sort_by("image").to_pylist()
    expected = sorted(map(json.loads, Path("alone.jsonl").read_text().splitlines()), key=lambda r: r["image"])
    assert [{name: value for name, value in record.items() if value is not None} for record in records] == expected
