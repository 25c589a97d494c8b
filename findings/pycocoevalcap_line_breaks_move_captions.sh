#!/usr/bin/env bash
# pycocoevalcap 1.2: a carriage return inside one caption gives every later caption to the wrong image.
#
# Expected: each caption is tokenised for its own image; at worst a line break in a caption becomes a space.
# Seen: with "a dog\rruns" as the first of three captions, image 1 gets "runs", image 2 gets "a cat", and the caption
# "a man" is lost, without an error or a warning. \v, \f and U+2028 do the same; \n is replaced and does no harm.
# Why: PTBTokenizer joins captions by \n, the Java tokeniser ends a line at those characters too, and the answers are
# joined with the images by zip, which stops at the shorter list.
# It matters since captions from spreadsheets and CSV files with Windows line ends hold "\r" or "\r\n": all figures of
# the evaluation are then of other images. Needs Java.
set -euo pipefail
command -v java > /dev/null || { echo "needs java on the path"; exit 2; }
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pycocoevalcap==1.2
cat > "$folder/check.py" <<'PYTHON'
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer


def tokenised(first):
    captions = {number: [{"caption": text}] for number, text in enumerate([first, "a cat", "a man"])}
    return PTBTokenizer().tokenize(captions)


for name, first in {"\\n": "a dog\nruns", "\\r": "a dog\rruns", "U+2028": "a dog\u2028runs"}.items():
    print(f"{name:7}", tokenised(first))
assert tokenised("a dog\nruns") == {0: ["a dog runs"], 1: ["a cat"], 2: ["a man"]}
for first in ("a dog\rruns", "a dog\vruns", "a dog\fruns", "a dog\u2028runs"):
    assert tokenised(first) == {0: ["a dog"], 1: ["runs"], 2: ["a cat"]}, first
PYTHON
"$folder/venv/bin/python" "$folder/check.py" 2> "$folder/java.log" || { cat "$folder/java.log"; exit 1; }
