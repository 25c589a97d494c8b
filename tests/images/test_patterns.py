from __future__ import annotations

import subprocess
from itertools import islice
from pathlib import Path

import pytest

from captioner.errors import OptionError
from captioner.images.tars import expand


@pytest.mark.parametrize(
    "pattern",
    [
        "a.tar",
        "a{0..3}.tar",
        "a{000..011}.tar",
        "a{8..11}b{x,y}.tar",
        "a{3..1}",
        "a{-1..1}",
        "a{08..10}",
        "{a,b{1,2}}.tar",
        "a{}.tar",
        "a{x}.tar",
        "a{,.gz}",
        "{a",
        "a{1..x}",
    ],
)
def test_braces_are_those_of_bash(pattern: str, tmp_path: Path) -> None:
    told = subprocess.run(["bash", "-c", f"printf '%s\\n' {pattern}"], capture_output=True, text=True)
    assert expand([pattern]) == told.stdout.splitlines()


def test_stars_stand_for_what_is_there_in_natural_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("p-10.tar", "p-2.tar", "p-1.tar", "[odd].tar", "q*.tar", "qu.tar", "{1,2}.tar"):
        Path(name).touch()
    assert expand(["p-*.tar"]) == ["p-1.tar", "p-2.tar", "p-10.tar"]
    assert expand([str(tmp_path / "p-?.tar")]) == [
        str(tmp_path / "p-1.tar"),
        str(tmp_path / "p-2.tar"),
    ]
    assert expand(["p-10.tar", "p-{1,2}.tar", "p-*.tar"]) == ["p-10.tar", "p-1.tar", "p-2.tar"]
    assert expand(["[odd].tar", "q*.tar", "{1,2}.tar"]) == ["[odd].tar", "q*.tar", "{1,2}.tar"]
    for pattern in ("x*.tar", "{p,x}-*.tar"):
        with pytest.raises(OptionError, match=r"`input_tar` 'x.*\*.tar': no file fits"):
            expand([pattern])


def test_endless_patterns_are_refused() -> None:
    assert list(islice(expand(["{0..999999}"]), 2)) == ["0", "1"]
    with pytest.raises(OptionError, match="stands for more than 1,000,000 names"):
        expand(["{0..999999999}{0..999999999}"])
    with pytest.raises(OptionError, match="`input_tar`: an empty name"):
        expand([""])
