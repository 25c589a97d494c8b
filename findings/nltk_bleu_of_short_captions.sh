#!/usr/bin/env bash
# nltk 3.10.4 and pycocoevalcap 1.2: corpus BLEU-4 of the same captions differs once a caption has fewer than four words.
#
# Expected: captions that equal their references score 1 in both, since both are said to compute corpus BLEU.
# Seen: nltk gives 0.8801 where one of the two captions is "a cat", and the code of the COCO server gives 1.0000.
# Why: nltk counts at least one n-gram of each order in every caption, also in one that is too short to hold any, and
# counts it as missed; the COCO server's code counts max(0, words - n + 1). Without the short caption they agree.
# It matters to whoever compares BLEU from nltk with published COCO figures: a model with short captions looks worse.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check nltk==3.10.4 pycocoevalcap==1.2
cat > "$folder/check.py" <<'PYTHON'
from nltk.translate.bleu_score import corpus_bleu
from pycocoevalcap.bleu.bleu import Bleu


def both(captions):
    words = [caption.split() for caption in captions]
    texts = {number: [caption] for number, caption in enumerate(captions)}
    return corpus_bleu([[each] for each in words], words), Bleu(4).compute_score(texts, texts, verbose=0)[0][3]


nltk_long, coco_long = both(["a dog runs on the grass", "a cat sits on a chair"])
nltk_short, coco_short = both(["a dog runs on the grass", "a cat"])
print(f"captions of six words:     nltk {nltk_long:.4f}, COCO {coco_long:.4f}")
print(f"one caption of two words:  nltk {nltk_short:.4f}, COCO {coco_short:.4f}")
assert abs(nltk_long - 1) < 1e-6 and abs(coco_long - 1) < 1e-6
assert abs(nltk_short - 0.8801117) < 1e-6 and abs(coco_short - 1) < 1e-6
PYTHON
"$folder/venv/bin/python" "$folder/check.py"
