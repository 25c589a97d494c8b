from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from captioner.checkpoint import load_checkpoint
from captioner.datasets import DatasetOptions
from captioner.errors import OptionError
from captioner.interrupt import Interrupted
from captioner.training.attributes import attribute_loss, expect, imagine, text_batch, word_shares
from captioner.training.data import make_batch
from captioner.training.options import TrainingOptions
from captioner.training.trainer import train
from captioner.vocabulary import END, START, Vocabulary
from tests.model.test_attributes import attributive
from tests.training import shapes
from tests.training.runs import assert_same_run
from tests.training.test_resuming import _interrupt

Tiny = Callable[..., TrainingOptions]
CAPTIONS = [[[START, 5, 6, 5, END], [START, 5, END]], [[START, 3, 7, END]], [[START, END]]]
WITH_TEXT = {"attention": "adaptive", "attention_size": 16, "attributes": 4}


def test_shares_count_captions_not_words() -> None:
    shares = word_shares(make_batch([0, 1, 2], CAPTIONS), 9)
    expected = torch.zeros(3, 9)
    expected[0, 5], expected[0, 6], expected[1, 7] = 1.0, 0.5, 1.0  # special words, of which 3 is one, are none
    assert torch.equal(shares, expected)


def test_the_loss_is_the_binary_cross_entropy_of_all_words() -> None:
    decoder = attributive().float()
    regions = torch.randn(3, 4, 6)
    batch = make_batch([0, 1, 2], CAPTIONS)
    assert decoder.attributes is not None
    found = decoder.attributes.logits(regions).sigmoid().tolist()
    wanted = word_shares(batch, 11).tolist()
    pairs = [pair for row in zip(found, wanted, strict=True) for pair in zip(*row, strict=True)]
    by_hand = -sum(share * math.log(p) + (1 - share) * math.log(1 - p) for p, share in pairs) / 3
    assert attribute_loss(decoder, batch, regions).item() == pytest.approx(by_hand, rel=1e-5)


@given(st.integers(0, 99))
def test_what_is_imagined_is_in_these_captions_or_in_the_ones_before(seed: int) -> None:
    torch.manual_seed(seed)
    shares = (torch.rand(4, 12) < 0.3) * torch.rand(4, 12)
    found = imagine(shares)
    before = shares.roll(1, dims=0)
    assert ((found > 0) <= ((shares > 0) | (before > 0))).all()
    assert (found <= torch.maximum(shares, before / 2)).all()


def test_words_are_expected_as_often_as_captions_hold_them() -> None:
    decoder = attributive()
    expect(decoder, CAPTIONS, first=6)
    assert decoder.attributes is not None
    frequencies = decoder.attributes.log_frequency.exp()
    # Half a caption more than there is, of one image more: no word is impossible.
    assert frequencies[[5, 6, 7, 8]].tolist() == pytest.approx([1.5 / 4, 1 / 4, 1.5 / 4, 0.5 / 4])
    assert frequencies[:4].tolist() == [1, 1, 1, 1]
    bias = decoder.attributes.of_image[-1].bias.detach()
    assert torch.logit(frequencies)[6:].tolist() == pytest.approx(bias[6:].tolist())
    assert bias[5] != pytest.approx(float(torch.logit(frequencies[5])))


@given(st.integers(1, 20), st.integers(1, 7))
def test_all_texts_are_seen_as_often_as_any_other(texts: int, size: int) -> None:
    captions = [[[START, number + 4, END]] for number in range(texts)]
    seen: Counter[int] = Counter()
    for number in range(texts):  # batches that together hold each text ``size`` times
        seen.update(text_batch(captions, size, seed=0, number=number).images)
    assert seen == dict.fromkeys(range(texts), size)


@pytest.fixture
def texts(tmp_path: Path) -> str:
    chance = np.random.default_rng(0)
    words = ["red", "blue", "circle", "square", "purple", "hexagon"]
    lines = [json.dumps({"captions": [f"a {' '.join(chance.choice(words, 2))}"] * 2}) for _ in range(30)]
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(lines))
    return str(path)


def test_a_run_with_texts_that_was_stopped_ends_like_one_that_was_not(
    datasets: DatasetOptions, tiny: Tiny, texts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, stopped = (tiny(name, **WITH_TEXT, text=(texts,)) for name in ("whole", "stopped"))
    train(datasets, whole)
    with monkeypatch.context() as patch:
        _interrupt(patch, 3)
        with pytest.raises(Interrupted):
            train(datasets, stopped)
    train(datasets, stopped, resume=True)
    assert_same_run(whole.output, stopped.output)


def test_a_model_goes_on_with_new_words_and_attributes(
    datasets: DatasetOptions, tiny: Tiny, texts: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tiny("before", attention="adaptive", attention_size=16, epochs=1)
    train(datasets, before)
    after = tiny("after", **WITH_TEXT, text=(texts,), init=before.output, lr=1e-9, epochs=1)
    train(datasets, after)
    assert "captions without images: 60" in capsys.readouterr().err
    old, new = load_checkpoint(before.output), load_checkpoint(after.output)
    count = len(old.vocabulary)
    assert new.vocabulary.words[:count] == old.vocabulary.words
    assert {"purple", "hexagon"} <= {*new.vocabulary.words[count:]}
    weights = new.network.decoder.embedding.weight[:count]
    torch.testing.assert_close(weights, old.network.decoder.embedding.weight, atol=1e-3, rtol=0)
    bias = new.network.decoder.output.bias
    assert bias[count:].max() <= bias[:count].min() + 1e-3  # a new word is at first as unlikely as any


def test_a_data_set_without_validation_images_is_only_trained_on(
    table: Path, tmp_path: Path, tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    shapes.write_table(tmp_path, 8, 0)
    sets = (f"table:{tmp_path}", f"table:{table}")
    train(DatasetOptions(dataset=sets, holdout=0.0), tiny(epochs=1))
    told = capsys.readouterr().err
    assert "datasets: table: 8 photos; table-2: 24 photos" in told
    assert "validation: table-2: 8 photos" in told


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"text": ("x",)}, "`text` takes the place of images with attributes"),
        ({**WITH_TEXT, "text": ("x",), "objective": "self_critical", "init": "x"}, "`text` is for `objective`"),
    ],
)
def test_texts_that_nothing_could_learn_from_are_one_line(tiny: Tiny, changes: dict[str, object], match: str) -> None:
    with pytest.raises(OptionError, match=match):
        tiny(**changes)


def test_new_words_stand_behind_those_that_are_known() -> None:
    known = Vocabulary.build(["a dog runs"])
    longer = known.extended(["a cat", "a cat", "a bird"], min_count=2)
    assert longer.words == (*known.words, "cat")
