from __future__ import annotations

import shutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captioner.datasets.records import ImageId
from captioner.errors import EvaluationError
from captioner.metrics.coco import DocumentFrequencies
from captioner.metrics.evaluate import METRICS, References, score_captions
from captioner.metrics.ptb.tokenizer import tokenize_lines
from tests.metrics.oracles import oracle, oracle_scores

REFERENCES: dict[ImageId, list[str]] = {
    1: ["A dog runs on the grass.", "The brown dog is running."],
    2: ["Two cats sleep on a bed.", "Cats on the bed"],
    "three.jpg": ["A man rides a wave on a surfboard.", "A surfer in the sea."],
}
HYPOTHESES: dict[ImageId, str] = {
    1: "A dog runs on grass",
    2: "A cat on a bed",
    "three.jpg": "A man on a wave.",
}


def test_a_copy_of_a_reference_is_perfect_in_bleu_and_rouge() -> None:
    figures = score_captions({i: texts[0] for i, texts in REFERENCES.items()}, REFERENCES).figures
    assert list(figures) == list(METRICS)
    for name in METRICS[:5]:
        assert figures[name] == pytest.approx(1.0)


def test_counts_images_and_references() -> None:
    scores = score_captions(HYPOTHESES, REFERENCES)
    assert (scores.images, scores.references, scores.ids) == (3, 6, (1, 2, "three.jpg"))
    assert all(values.shape == (3,) for values in scores.per_image.values())


def test_rouge_and_cider_of_the_set_are_means_over_images() -> None:
    scores = score_captions(HYPOTHESES, REFERENCES)
    for name in ("ROUGE-L", "CIDEr"):
        assert scores.figures[name] == pytest.approx(scores.per_image[name].mean())


def test_bleu_of_the_set_is_not_the_mean_over_images() -> None:
    scores = score_captions({**HYPOTHESES, 1: "A dog"}, REFERENCES)
    assert abs(scores.figures["BLEU-2"] - scores.per_image["BLEU-2"].mean()) > 0.01


def test_references_made_once_give_the_same_as_made_anew() -> None:
    prepared = References(REFERENCES)
    first, again = score_captions(HYPOTHESES, prepared), score_captions(HYPOTHESES, prepared)
    assert first.figures == again.figures == score_captions(HYPOTHESES, REFERENCES).figures


@given(st.permutations(list(HYPOTHESES)))
@settings(deadline=None)
def test_the_order_of_the_captions_to_judge_changes_nothing(order: list[ImageId]) -> None:
    shuffled = score_captions({i: HYPOTHESES[i] for i in order}, REFERENCES)
    assert shuffled.ids == tuple(HYPOTHESES)
    for name, figure in score_captions(HYPOTHESES, REFERENCES).figures.items():
        assert shuffled.figures[name] == figure


def test_an_empty_caption_scores_nothing() -> None:
    scores = score_captions({**HYPOTHESES, 2: ""}, REFERENCES)
    for name in METRICS:
        assert scores.per_image[name][1] == 0.0


def test_a_given_table_replaces_the_frequencies_of_the_references() -> None:
    table = DocumentFrequencies(1000, {("a",): 900}, "table")
    scores = score_captions(HYPOTHESES, References(REFERENCES, table))
    assert scores.frequencies == "table"
    assert scores.figures["CIDEr"] != score_captions(HYPOTHESES, REFERENCES).figures["CIDEr"]


def test_repeating_a_training_caption_is_told_after_tokenising() -> None:
    scores = score_captions(HYPOTHESES, REFERENCES, training_captions=["a dog runs on grass.", "something else"])
    assert scores.diversity.unseen == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("hypotheses", "message"),
    [
        ({}, "there is nothing to score"),
        ({1: "a"}, r"2 of 3 images have no caption: 2, 'three.jpg'"),
        ({**HYPOTHESES, 7: "a", 8: "b"}, r"2 captions are of images without references: 7, 8"),
        ({**HYPOTHESES, "1": "a"}, r"'1' \(the references write 1\)"),
        ({**HYPOTHESES, **dict.fromkeys(range(10, 20), "a")}, r"10, 11, 12, 13, 14 and 5 more"),
    ],
)
def test_images_that_do_not_meet_are_named(hypotheses: dict[ImageId, str], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        score_captions(hypotheses, REFERENCES)


@pytest.mark.parametrize("captions", [{}, {1: ["a dog"], 2: []}])
def test_references_without_captions_are_an_error(captions: dict[ImageId, list[str]]) -> None:
    with pytest.raises(EvaluationError, match="no reference captions for"):
        References(captions)


def assert_figures_equal_the_oracle(
    captions: dict[int, list[str]], hypotheses: list[list[str]], references: list[list[list[str]]]
) -> None:
    """Judges the first caption of each image by its others, and lets the oracle do so on the tokens given."""
    ours = score_captions({i: texts[0] for i, texts in captions.items()}, {i: t[1:] for i, t in captions.items()})
    bleu, per_image_bleu = oracle_scores(oracle("Bleu"), hypotheses, references)
    for order in range(4):
        assert ours.figures[METRICS[order]] == pytest.approx(bleu[order], rel=0, abs=1e-12)
        np.testing.assert_allclose(ours.per_image[METRICS[order]], per_image_bleu[order], rtol=0, atol=1e-12)
    for name, metric in (("ROUGE-L", "Rouge"), ("CIDEr", "Cider")):
        mean, per_image = oracle_scores(oracle(metric), hypotheses, references)
        assert ours.figures[name] == pytest.approx(mean, rel=0, abs=1e-9)
        np.testing.assert_allclose(ours.per_image[name], per_image, rtol=0, atol=1e-9)


@pytest.mark.slow
def test_figures_on_val2017_equal_the_oracle_on_the_same_tokens(
    captions_val2017: dict[int, list[str]],
) -> None:
    references = References({i: texts[1:] for i, texts in captions_val2017.items()})
    hypotheses = tokenize_lines([texts[0] for texts in captions_val2017.values()])
    assert_figures_equal_the_oracle(captions_val2017, hypotheses, list(references.tokens.values()))


@pytest.mark.slow
def test_figures_on_val2017_equal_the_oracle_from_the_raw_captions(
    captions_val2017: dict[int, list[str]],
) -> None:
    if shutil.which("java") is None:
        pytest.skip("the oracle's tokeniser needs Java")
    tokens = []
    for part in (slice(0, 1), slice(1, None)):
        raw = {i: [{"caption": text} for text in texts[part]] for i, texts in captions_val2017.items()}
        tokens.append([[line.split(" ") for line in v] for v in oracle("PTBTokenizer").tokenize(raw).values()])
    hypotheses, references = tokens
    assert_figures_equal_the_oracle(captions_val2017, [captions[0] for captions in hypotheses], references)


def test_references_are_tokenised_as_the_lines_of_one_file() -> None:
    # the COCO code drops the full stop of a single letter if the next line opens with "A"
    letter = "a sign that reads K."
    assert References({1: [letter], 2: ["A dog"]}).tokens[1] == [["a", "sign", "that", "reads", "k"]]
    assert References({1: [letter], 2: ["dogs"]}).tokens[1] == [["a", "sign", "that", "reads", "k."]]


def test_importing_metrics_does_not_import_torch_or_nltk() -> None:
    code = "import sys, captioner.metrics.evaluate; print({'torch', 'nltk', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
