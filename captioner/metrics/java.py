"""METEOR 1.5 and SPICE through the Java programs that the package pycocoevalcap brings along.

Denkowski and Lavie 2014, "Meteor Universal: Language Specific Translation Evaluation for Any Target Language";
Anderson et al. 2016, "SPICE: Semantic Propositional Image Caption Evaluation".
"""

import importlib.util
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

from captioner.errors import EvaluationError

_METEOR_JAR, _SPICE_JAR = Path("meteor") / "meteor-1.5.jar", Path("spice") / "spice-1.0.jar"
_SEPARATOR = " ||| "


def find_program(metric: str, jar: Path) -> tuple[str, Path]:
    """Java, and a file of the package.

    Raises:
        EvaluationError: one of them is absent; the message says which.
    """
    java = shutil.which("java")
    if java is None:
        raise EvaluationError(f"{metric} needs Java, and there is no program 'java'")
    package = importlib.util.find_spec("pycocoevalcap")
    folders = (package and package.submodule_search_locations) or ()
    found = next((path for folder in folders if (path := Path(folder) / jar).is_file()), None)
    if found is None:
        raise EvaluationError(f"{metric} needs the package pycocoevalcap", "run: pip install pycocoevalcap")
    return java, found


def why_no_spice() -> str:
    """What SPICE lacks here; empty if nothing is known to be absent but its parser, which is fetched."""
    try:
        find_program("SPICE", _SPICE_JAR)
    except EvaluationError as error:
        return str(error)
    return ""


def spice(hypotheses: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> float:
    """Compute SPICE of a set of captions; the first time its parser (400 MB) is fetched from Stanford.

    Args:
        hypotheses: words of one caption for each image.
        references: words of the human captions of the same images, in the same order.

    Returns:
        The corpus figure, from 0 to 1.

    Raises:
        EvaluationError: Java or the package is absent, the parser cannot be fetched, or the program failed.
    """
    _, jar = find_program("SPICE", _SPICE_JAR)
    try:
        with redirect_stdout(None):
            from pycocoevalcap.spice.spice import Spice

            program = Spice()  # which fetches its parser if that is not there
    except Exception as error:  # and lets through whatever goes wrong then
        what = f"SPICE needs the parser Stanford CoreNLP 3.6.0, which cannot be fetched ({_reason(error)})"
        advice = f"put stanford-corenlp-3.6.0.jar and stanford-corenlp-3.6.0-models.jar into {jar.parent / 'lib'}"
        raise EvaluationError(what, advice) from error
    try:
        with redirect_stdout(None):
            human = {place: [_words(words) for words in texts] for place, texts in enumerate(references)}
            machine = {place: [_words(words)] for place, words in enumerate(hypotheses)}
            return float(program.compute_score(human, machine)[0])
    except Exception as error:
        raise EvaluationError(f"SPICE's program failed, which is made for Java 8 ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


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
    java, jar = find_program("METEOR", _METEOR_JAR)
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
