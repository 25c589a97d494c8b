"""How a cluster is found and used, as far as that can be seen without one."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import ray

from captioner.cli import main
from captioner.cluster import steps
from captioner.cluster.steps import cluster
from captioner.errors import OptionError
from tests.bulk.folders import save_image

VARIABLES = (
    "RAY_ADDRESS",
    "RAY_USAGE_STATS_ENABLED",
    "RAY_AUTH_TOKEN",
    "RAY_BACKEND_LOG_LEVEL",
)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What Ray is asked for, which does nothing."""
    made: list[Any] = []
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # so that all are as before in the end
        monkeypatch.delenv(name)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda address, **options: made.append((address, options)))
    monkeypatch.setattr(ray, "shutdown", lambda: made.append("shutdown"))
    return made


def test_without_an_address_a_cluster_is_started_that_tells_nobody(calls: list[Any]) -> None:
    with cluster(None):
        (address, options), *_ = calls
        assert address == "local"
        assert options["include_dashboard"] is False
        assert options["num_cpus"] >= 1
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
        assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
        assert len(calls) == 1
    assert calls[1:] == ["shutdown"]


def test_an_address_comes_from_the_option_or_the_environment(calls: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "alpha:6379")
    with cluster(None):
        pass
    with cluster("beta:6379"):
        pass
    assert [call[0] for call in calls[::2]] == ["alpha:6379", "beta:6379"]
    assert not {"num_cpus", "object_store_memory", "include_dashboard"} & set(calls[0][1])
    assert "RAY_AUTH_TOKEN" not in os.environ


def test_a_cluster_that_is_not_there_is_one_line(calls: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(address: str, **options: object) -> None:
        raise ConnectionError("Ray is trying to start at beta:1,\nbut it is not there.")

    monkeypatch.setattr(ray, "init", fail)
    with (
        pytest.raises(OptionError, match=r"^no Ray cluster at beta:1 \(Ray is trying to start at beta:1,\)$"),
        cluster("beta:1"),
    ):
        pass
    with pytest.raises(OptionError, match=r"^no Ray cluster can be started here \("), cluster(None):
        pass


def test_a_connection_that_is_there_is_used(calls: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    with cluster("beta:6379"):
        pass
    assert calls == []


@pytest.mark.parametrize(
    ("there", "wanted", "device", "sizes", "gpus"),
    [
        ({"CPU": 2.0}, None, "auto", (1, 1), 0),
        ({"CPU": 64.0}, None, "auto", (1, 56), 0),
        ({"CPU": 64.0, "GPU": 8.0}, None, "auto", (1, 8), 1),
        ({"CPU": 64.0, "GPU": 8.0}, None, "cpu", (1, 56), 0),
        ({"CPU": 64.0, "GPU": 8.0}, 3, "cuda", (3, 3), 1),
    ],
)
def test_actors_are_as_many_as_have_room(
    there: dict[str, float],
    wanted: int | None,
    device: str,
    sizes: tuple[int, int],
    gpus: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: there)
    actors = steps._actors(wanted, device)
    assert (actors["compute"].min_size, actors["compute"].max_size) == sizes
    assert (actors["num_cpus"], actors["num_gpus"]) == (1, gpus)


def test_without_ray_a_line_says_what_to_install(
    checkpoint_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    image = save_image(tmp_path / "0.png", 0)
    command = ["caption", str(image), "--weights", str(checkpoint_file), "--engine", "ray"]
    assert main([*command, "--output", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == ("captioner: error: --engine ray needs ray: pip install 'captioner[ray]'\n")
    assert not (tmp_path / "out").exists()
    assert main([*command, "--output", str(tmp_path / "out"), "--dry-run", "--quiet"]) == 0
    assert capsys.readouterr().out == f"caption\t{image}\n"
