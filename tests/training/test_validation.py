from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from captioner.datasets import Record
from captioner.decoding.filters import special_ids
from captioner.decoding.options import DecodingOptions
from captioner.decoding.search import decode
from captioner.features import FeatureRows
from captioner.metrics.evaluate import References, score_captions
from captioner.model.config import ModelConfig
from captioner.model.decoder import Decoder
from captioner.runtime.torch import DecoderModel
from captioner.training.data import ValidationSet
from captioner.training.encoding import fetch
from captioner.training.trainer import shown
from captioner.vocabulary import Vocabulary, detokenize

CPU = torch.device("cpu")
WORDS = ["a", "dog", "cat", "runs", "sleeps", "on", "grass"]
VOCABULARY = Vocabulary.build([" ".join(WORDS)])


def _set(count: int) -> ValidationSet:
    chance = np.random.default_rng(0)
    records = [
        Record(f"{number}.jpg", Path(f"{number}.jpg"), (" ".join(chance.choice(WORDS, 5)),), "val")
        for number in range(count)
    ]
    array = chance.normal(size=(2 * count, 1, 12)).astype(np.float16)
    rows = chance.permutation(2 * count)
    features = FeatureRows(array, rows, [""] * (2 * count), {})
    references = References({record.image_id: record.captions for record in records})
    return ValidationSet("some", records, [2 * place for place in range(count)], features, references)


def _decoder() -> Decoder:
    torch.manual_seed(0)
    config = ModelConfig(
        encoder="none",
        image_size=1,
        channels=12,
        vocabulary_size=len(VOCABULARY),
        hidden_size=16,
        embedding_size=16,
    )
    return Decoder(config).eval()


def test_scores_are_those_of_captions_that_the_model_writes_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    part, decoder, options = _set(70), _decoder(), DecodingOptions(beam_size=2, max_length=6)
    captions = {}
    for record, image in zip(part.records, part.images, strict=True):
        ((best,),) = decode(DecoderModel(decoder), fetch(part.features, [image], CPU), options, special_ids(VOCABULARY))
        captions[record.image_id] = detokenize(VOCABULARY.decode(best.words))
    expected = score_captions(captions, {record.image_id: record.captions for record in part.records})

    def forbidden(*_: object) -> None:
        raise AssertionError("teacher forcing")

    monkeypatch.setattr(Decoder, "teacher_force", forbidden)
    assert part.score(decoder, VOCABULARY, options, CPU) == pytest.approx(
        {
            "BLEU-4": expected.figures["BLEU-4"],
            "CIDEr": expected.figures["CIDEr"],
            "bad endings": expected.degeneration.bad_endings,
            "repeated bigrams": expected.degeneration.repeated_bigrams,
            "named twice": expected.degeneration.named_twice,
            "mean length": expected.diversity.mean_length,
            "distinct words": expected.diversity.vocabulary,
        }
    )


def test_figures_for_people_are_those_of_papers() -> None:
    figures = {
        "some CIDEr": 0.5234,
        "some bad endings": 0.0123,
        "some mean length": 9.876,
        "distinct words": 412,
    }
    text = "some CIDEr 52.3, some bad endings 1.2, some mean length 9.876, distinct words 412"
    assert shown(figures) == text


def test_scores_do_not_draw_random_numbers() -> None:
    part, decoder = _set(5), _decoder()
    torch.manual_seed(1)
    first = torch.rand(1)
    torch.manual_seed(1)
    part.score(decoder, VOCABULARY, DecodingOptions(max_length=5), CPU)
    assert torch.equal(torch.rand(1), first)
