"""The Java tokeniser of the COCO caption evaluation, run once over many lines."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import tempfile
from pathlib import Path

JAR = "stanford-corenlp-3.4.1.jar"
PUNCTUATION = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"]
)


def jar_path() -> Path | None:
    """The tokeniser's jar inside pycocoevalcap, or None where the package is absent."""
    spec = importlib.util.find_spec("pycocoevalcap")
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    return next((jar for folder in folders if (jar := Path(folder, "tokenizer", JAR)).is_file()), None)


def absence() -> str | None:
    """Why the oracle cannot run here, or None where it can."""
    if jar_path() is None:
        return "pycocoevalcap is not installed"
    if shutil.which("java") is None:
        return "there is no Java runtime"
    return None


def java_lines(text: str) -> list[str]:
    """What the tokeniser prints for a file that holds ``text``, line by line."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "captions.txt")
        file.write_bytes(text.encode())
        command = ["java", "-cp", str(jar_path()), "edu.stanford.nlp.process.PTBTokenizer"]
        done = subprocess.run([*command, "-preserveLines", "-lowerCase", str(file)], capture_output=True, check=True)
    return done.stdout.decode().removesuffix("\n").split("\n")


def without_punctuation(line: str) -> list[str]:
    """The tokens that the COCO evaluation keeps of one printed line."""
    return [token for token in line.rstrip(" ").split(" ") if token and token not in PUNCTUATION]


def tokenize_as_file(captions: list[str]) -> list[list[str]]:
    """Tokens of captions written to one file, as pycocoevalcap writes them: each can see the next."""
    printed = java_lines("\n".join(caption.replace("\n", " ") for caption in captions) + "\n")
    if len(printed) != len(captions):
        raise ValueError(f"{len(captions)} captions gave {len(printed)} lines: one holds a line separator")
    return [without_punctuation(line) for line in printed]


def tokenize_each(captions: list[str]) -> list[list[str]]:
    """Tokens of captions none of which sees another: between any two stands a line that changes neither."""
    wall = "zz"
    text = "".join(f"{caption.replace(chr(10), ' ')}\n{wall}\n" for caption in captions)
    tokenised: list[list[str]] = []
    parts: list[str] = []
    for line in java_lines(text):
        if line == wall:
            tokenised.append(without_punctuation(" ".join(parts)))
            parts = []
        else:
            parts.append(line)
    if len(tokenised) != len(captions):
        raise ValueError(f"{len(captions)} captions gave {len(tokenised)} results: one holds the line {wall!r}")
    return tokenised
