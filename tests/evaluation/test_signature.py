from __future__ import annotations

from typing import Any

import captioner
from captioner.decoding.options import DecodingOptions
from captioner.evaluation.evaluate import Provenance, signature
from captioner.metrics.evaluate import score_captions
from captioner.metrics.ptb.tokenizer import TOKENIZER_VERSION
from tests.evaluation.small import CAPTIONS, REFERENCES

GENERATED = Provenance("coco val", 9, "abc123", DecodingOptions(beam_size=5), "bfloat16", absent=2, unreadable=1)


def sign(
    captions: dict[Any, str] = CAPTIONS,
    references: dict[Any, list[str]] = REFERENCES,
    provenance: Provenance = GENERATED,
) -> dict[str, str]:
    line = signature(
        score_captions(captions, references), provenance, captions, references, bootstrap="1000 seed 0", meteor=False
    )
    assert "\n" not in line
    return dict(pair.split(":", 1) for pair in line.split("|"))


def test_names_everything_needed_to_reproduce_the_figures() -> None:
    found = sign()
    assert found["captioner"] == captioner.__version__
    assert found["tokenizer"] == TOKENIZER_VERSION
    assert found["images"] == "6 of 9"
    assert (found["absent"], found["unreadable"]) == ("2", "1")
    assert found["references"].startswith("18 sha256:")
    assert found["frequencies"] == "evaluated references"
    assert found["checkpoint"] == "abc123"
    assert found["precision"] == "bfloat16"
    assert "beam_size=5" in found["decoding"]
    assert "seed=0" in found["decoding"]


def test_says_that_nothing_is_known_about_captions_from_a_file() -> None:
    found = sign(provenance=Provenance("captions.json", 6))
    for name in ("checkpoint", "precision", "decoding"):
        assert found[name] == "unknown (captions from a file)"


def test_does_not_depend_on_the_order_of_the_images() -> None:
    captions = dict(reversed(CAPTIONS.items()))
    references = dict(reversed(REFERENCES.items()))
    assert sign(captions, references) == sign()


def test_another_caption_or_reference_changes_its_digest_only() -> None:
    other = sign({**CAPTIONS, 10: "another"})
    assert {name for name, value in sign().items() if other[name] != value} == {"captions"}
    other = sign(references={**REFERENCES, 10: ["a", "b", "c"]})
    assert {name for name, value in sign().items() if other[name] != value} == {"references"}
