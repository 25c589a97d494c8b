from __future__ import annotations

import dataclasses
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from captioner import scoring as module
from captioner.captioner import Captioner
from captioner.errors import CaptionerError, OptionError, UnknownWordsError
from captioner.scoring import MOST_RUNNERS_UP, Score, replay, score_texts
from captioner.vocabulary import MOST_WORDS, SPECIAL_WORDS, Vocabulary, caption_words, known_words, text_words
from tests.search.small import REGIONS, VOCABULARY, images, log_prob_by_steps, small_model
from tests.small_model import WORDS, in_double, small_checkpoint
from tests.tolerance import SIX_DECIMALS
from tests.vectors import fake_codes, vector_checkpoint

FEW_WORDS = Vocabulary((*SPECIAL_WORDS, "a", "dog", "dogs", "runs", "skateboard", "'s"))


def _texts(count: int, longest: int = 12) -> list[str]:
    chance = random.Random(5)
    return [" ".join(chance.choices(WORDS.split(), k=chance.randint(0, longest))) for _ in range(count)]


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("attention", ["none", "additive", "adaptive"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_every_word_has_the_probability_that_steps_give_it(cell: str, attention: str) -> None:
    model, texts = small_model(cell, attention), _texts(20)
    regions = images(20)
    for score, text, image in zip(score_texts(model, VOCABULARY, regions, texts), texts, regions, strict=True):
        expected = log_prob_by_steps(model.decoder, image, VOCABULARY.encode(text.split()))
        assert score.text == text
        assert score.words == tuple(text.split())
        assert [*score.word_log_probs, score.end_log_prob] == pytest.approx(expected, abs=SIX_DECIMALS)
        assert score.log_prob == pytest.approx(sum(expected), abs=SIX_DECIMALS * len(expected))


@pytest.mark.parametrize("attention", ["none", "additive", "adaptive"])
def test_groups_change_nothing(attention: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, texts, regions = small_model("lstm", attention), _texts(30), images(30)
    whole = score_texts(model, VOCABULARY, regions, texts, runners_up=2)
    for rows in (1, 4, 17):
        monkeypatch.setattr(module, "_MOST_ROWS", rows)
        assert score_texts(model, VOCABULARY, regions, texts, runners_up=2) == whole


@pytest.mark.usefixtures("double")
def test_the_captioners_own_captions_have_the_log_probabilities_it_gave_them(
    captioner: Captioner, images: list[object]
) -> None:
    captioner = in_double(captioner)
    regions = captioner.encode([captioner.preprocess(image) for image in images[:3]])  # type: ignore[arg-type]
    options = dataclasses.replace(captioner.options, num_captions=3, beam_size=3)
    for captions, image in zip(captioner.decode(regions, options), regions, strict=True):
        scores = captioner.score(np.repeat(image[None], 3, axis=0), [caption.text for caption in captions])
        for caption, score in zip(captions, scores, strict=True):
            assert score.words == caption.words
            assert score.log_prob == pytest.approx(caption.log_prob, abs=SIX_DECIMALS * (len(score.words) + 1))
            assert score.word_log_probs == pytest.approx(caption.word_log_probs, abs=SIX_DECIMALS)
            assert score.end_log_prob == pytest.approx(caption.end_log_prob, abs=SIX_DECIMALS)


def test_the_figures_follow_from_the_log_probabilities() -> None:
    score = Score("a dog", ("a", "dog"), (math.log(0.5), math.log(0.25)), math.log(0.125))
    assert score.log_prob == pytest.approx(math.log(1 / 64))
    assert score.surprisals == pytest.approx((1, 2, 3))
    assert score.mean_log_prob == pytest.approx(math.log(0.25))
    assert score.perplexity == pytest.approx(4)
    assert Score("", (), (), -1000.0).perplexity == math.inf


@pytest.mark.usefixtures("double")
def test_runners_up_are_the_most_probable_words_at_each_place() -> None:
    model, image = small_model(), images(1)
    (score,) = score_texts(model, VOCABULARY, image, ["the dog runs"], runners_up=4)
    decoder = model.decoder
    state = decoder.initial_state(torch.from_numpy(image))
    for at_place, word in zip(score.runners_up, ["<start>", "the", "dog", "runs"], strict=True):
        logits, state = decoder.step(torch.tensor(VOCABULARY.encode([word])), state)
        probabilities = dict(zip(VOCABULARY.words, logits[0].softmax(dim=-1).tolist(), strict=True))
        for unseen in ("<pad>", "<start>", "<unk>"):
            probabilities.pop(unseen)
        best = sorted(probabilities, key=lambda word: -probabilities[word])[:4]
        assert [word for word, _ in at_place] == best
        expected = [probabilities[word] for word in best]
        assert [chance for _, chance in at_place] == pytest.approx(expected, abs=SIX_DECIMALS)


def test_at_most_all_words_are_runners_up() -> None:
    (score,) = score_texts(small_model(), VOCABULARY, images(1), ["a dog"], runners_up=MOST_RUNNERS_UP)
    assert [len(place) for place in score.runners_up] == [len(VOCABULARY) - 3] * 3
    (none,) = score_texts(small_model(), VOCABULARY, images(1), ["a dog"])
    assert none.runners_up == ()


@pytest.mark.parametrize("attention", ["additive", "adaptive"])
def test_a_replay_shows_where_the_model_looked_when_it_wrote(attention: str, images: list[Path]) -> None:
    captioner = Captioner(small_checkpoint(attention=attention), device="cpu")
    regions = captioner.encode([captioner.preprocess(image) for image in images[:2]])
    captions = [best for best, *_ in captioner.decode(regions)]
    texts = [" ".join(caption.words) for caption in captions]
    for caption, score in zip(captions, captioner.score(regions, texts, attention=True), strict=True):
        assert caption.attention is not None
        assert score.attention is not None
        np.testing.assert_allclose(score.attention, caption.attention, atol=1e-6)
    assert all(score.attention is None for score in captioner.score(regions, texts))


def test_what_has_no_map_of_its_own_gives_none() -> None:
    (score,) = score_texts(small_model(), VOCABULARY, images(1), ["a dog"], attention=True)
    assert score.attention is None
    two = Captioner([vector_checkpoint("additive"), vector_checkpoint("adaptive")], device="cpu")
    (score,) = two.score(fake_codes(1, 1280), ["a dog"], attention=True)
    assert score.attention is None


def test_captions_of_one_image_are_replayed_together() -> None:
    model, seen, owners = small_model("gru", "additive"), images(3), [2, 0, 2, 1]
    sentences = [VOCABULARY.encode(text.split()) for text in _texts(4)]
    together = replay(model, seen, sentences, owners=owners, runners_up=2, attention=True)
    for found, sentence, owner in zip(together, sentences, owners, strict=True):
        (alone,) = replay(model, seen[[owner]], [sentence], runners_up=2, attention=True)
        assert found[:2] == alone[:2]
        assert found.attention is not None
        assert alone.attention is not None
        assert found.attention.shape == (len(sentence), 1, REGIONS)
        assert np.array_equal(found.attention, alone.attention)


def test_no_texts_give_no_scores() -> None:
    assert score_texts(small_model(), VOCABULARY, images(0), []) == []


def test_ten_thousand_words_are_scored() -> None:
    text = "the dog runs " * 3333 + "on"
    (score,) = score_texts(small_model("gru"), VOCABULARY, images(1), [text], runners_up=1)
    assert len(score.words) == len(score.runners_up) - 1 == 10_000
    assert math.isfinite(score.log_prob)
    assert score.perplexity > 1


@pytest.mark.parametrize(
    ("texts", "runners_up", "error"),
    [
        (["a dog"], 0, OptionError),
        (["a dog", "the man"], -1, OptionError),
        (["a dog", "the man"], 101, OptionError),
        (["a dog", "the unicorn"], 0, UnknownWordsError),
        (["a dog", "the \udce9"], 0, OptionError),
    ],
)
def test_wrong_use_is_an_error(texts: list[str], runners_up: int, error: type[CaptionerError]) -> None:
    with pytest.raises(error):
        score_texts(small_model(), VOCABULARY, images(2), texts, runners_up=runners_up)


def test_words_are_those_of_training() -> None:
    assert known_words("A dog's, DOG; runs!", FEW_WORDS) == ["a", "dog", "'s", "dog", "runs"]
    assert known_words(" .,! \t", FEW_WORDS) == []


@given(st.text(st.characters(exclude_categories=["Cs", "So"])))
def test_texts_without_pictorial_signs_are_read_as_captions_are(text: str) -> None:
    assert text_words(text) == caption_words(text)


def test_unknown_words_are_named_once_with_the_nearest_known_ones() -> None:
    with pytest.raises(UnknownWordsError) as caught:
        known_words("a corgi on a skatebord, corgi dgo", FEW_WORDS)
    assert caught.value.words == ("corgi", "on", "skatebord", "dgo")
    assert str(caught.value) == (
        "the model does not know the words 'corgi', 'on', 'skatebord' (did you mean skateboard?), 'dgo'"
    )
    with pytest.raises(UnknownWordsError, match="the word 'runns' \\(did you mean runs\\?\\)"):
        known_words("a dog runns", FEW_WORDS)


@pytest.mark.parametrize("text", ["<unk>", "a <start> dog", "<pad> <end>", "a dog <unk>"])
def test_special_words_cannot_be_smuggled_in(text: str) -> None:
    with pytest.raises(UnknownWordsError) as caught:
        known_words(text, FEW_WORDS)
    assert not {"<unk>", "<start>", "<pad>", "<end>"} & set(caught.value.words)


def test_pictorial_signs_are_not_dropped_like_punctuation() -> None:
    assert text_words("a \N{DOG FACE}runs, dog\N{HEAVY BLACK HEART}") == [
        "a",
        "\N{DOG FACE}",
        "runs",
        "dog",
        "\N{HEAVY BLACK HEART}",
    ]
    with pytest.raises(UnknownWordsError, match="\N{DOG FACE}"):
        known_words("a \N{DOG FACE} runs", FEW_WORDS)


def test_a_message_stays_short() -> None:
    words = [f"zzz{number}" for number in range(5000)] + ["x" * 100_000]
    with pytest.raises(UnknownWordsError) as caught:
        known_words(" ".join(words), FEW_WORDS)
    assert caught.value.words == tuple(words)
    assert str(caught.value).endswith("'zzz7' and 4,993 more")
    with pytest.raises(UnknownWordsError) as caught:
        known_words(words[-1], FEW_WORDS)
    assert len(str(caught.value)) < 100


def test_texts_that_are_no_text_or_too_long() -> None:
    with pytest.raises(OptionError, match="not valid UTF-8"):
        text_words("a caf\udce9")
    assert len(text_words("a " * MOST_WORDS)) == MOST_WORDS
    with pytest.raises(OptionError, match="a text of 100,001 words is too long"):
        text_words("a " * (MOST_WORDS + 1))


@given(st.text())
def test_any_text_gives_known_words_or_a_clear_error(text: str) -> None:
    try:
        unknown = tuple(word for word in known_words(text, FEW_WORDS) if word not in FEW_WORDS)
        message = ""
    except UnknownWordsError as error:
        unknown, message = error.words, str(error)
    except OptionError as error:
        unknown, message = (), str(error)
    assert bool(unknown) == message.startswith("the model does not know")
    assert message.isprintable()
