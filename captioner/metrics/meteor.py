"""METEOR 1.5 through the jar that the pycocoevalcap package brings along; it is not reimplemented here.

Denkowski and Lavie 2014, "Meteor Universal: Language Specific Translation Evaluation for Any Target
Language".
"""

import importlib.util
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from captioner.errors import EvaluationError

_JAR = Path("meteor") / "meteor-1.5.jar"
_PIPE = subprocess.PIPE
_SEPARATOR = " ||| "


def meteor(hypotheses: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> float:
    """Compute METEOR of a set of captions.

    Args:
        hypotheses: words of one caption for each image.
        references: words of the human captions of the same images, in the same order.

    Returns:
        The corpus figure, from 0 to 1.

    Raises:
        EvaluationError: Java or the jar is absent, or the program ended; the message says which.
    """
    command = [_java(), "-Xmx2G", "-jar", str(_jar()), "-", "-", "-stdio", "-l", "en", "-norm"]
    images = zip(hypotheses, references, strict=True)
    try:
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
        ) as program:
            try:
                return _converse(program, images)
            finally:
                program.kill()
    except (OSError, ValueError) as error:
        raise EvaluationError("METEOR's Java program ended without an answer") from error


def _converse(program: subprocess.Popen[str], images: Iterable[tuple[Sequence[str], Sequence[Sequence[str]]]]) -> float:
    questions, answers = program.stdin, program.stdout
    if questions is None or answers is None:
        raise ValueError("the program has no pipes")

    def ask(*parts: str) -> str:
        questions.write(_SEPARATOR.join(parts) + "\n")
        questions.flush()
        return answers.readline().strip()

    statistics = [ask("SCORE", *map(_words, references), _words(hypothesis)) for hypothesis, references in images]
    # The answer is one score for each image, of which the question returns the first, then that of the set.
    ask("EVAL", *statistics)
    for _ in statistics[1:]:
        answers.readline()
    return float(answers.readline())


def _words(tokens: Sequence[str]) -> str:
    """Join a caption; it must not contain the sign that stands between captions, nor end the line."""
    return " ".join(" ".join(tokens).replace("|||", "").split())


def _java() -> str:
    java = shutil.which("java")
    if java is None:
        raise EvaluationError("METEOR needs Java, and there is no program 'java'")
    return java


def _jar() -> Path:
    package = importlib.util.find_spec("pycocoevalcap")
    for folder in (package and package.submodule_search_locations) or ():
        if (Path(folder) / _JAR).is_file():
            return Path(folder) / _JAR
    raise EvaluationError("METEOR needs the package pycocoevalcap", "run: pip install pycocoevalcap")
