"""METEOR 1.5 through the jar that the pycocoevalcap package brings along; it is not reimplemented here.

Denkowski and Lavie 2014, "Meteor Universal: Language Specific Translation Evaluation for Any Target Language".
"""

import importlib.util
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from captioner.errors import EvaluationError

_JAR = Path("meteor") / "meteor-1.5.jar"
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
    java = shutil.which("java")
    if java is None:
        raise EvaluationError("METEOR needs Java, and there is no program 'java'")
    package = importlib.util.find_spec("pycocoevalcap")
    folders = (package and package.submodule_search_locations) or ()
    jar = next((jar for folder in folders if (jar := Path(folder) / _JAR).is_file()), None)
    if jar is None:
        raise EvaluationError("METEOR needs the package pycocoevalcap", "run: pip install pycocoevalcap")
    command = [java, "-Xmx2G", "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"]
    pipe = subprocess.PIPE
    try:
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, encoding="utf-8") as program:
            try:
                return _converse(program, hypotheses, references)
            finally:
                program.kill()
    except (OSError, ValueError) as error:
        raise EvaluationError("METEOR's Java program ended without an answer") from error


def _converse(
    program: subprocess.Popen[str], hypotheses: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
) -> float:
    questions, answers = program.stdin, program.stdout
    if questions is None or answers is None:
        raise ValueError("the program has no pipes")

    def ask(*parts: str) -> str:
        questions.write(_SEPARATOR.join(parts) + "\n")
        questions.flush()
        return answers.readline().strip()

    statistics = [
        ask("SCORE", *map(_words, human), _words(hypothesis))
        for hypothesis, human in zip(hypotheses, references, strict=True)
    ]
    # The answer is one score for each image, of which the question returns the first, then that of the set.
    ask("EVAL", *statistics)
    for _ in statistics[1:]:
        answers.readline()
    return float(answers.readline())


def _words(tokens: Sequence[str]) -> str:
    """Join a caption; it must not contain the sign that stands between captions, nor end the line."""
    return " ".join(" ".join(tokens).replace("|||", "").split())
