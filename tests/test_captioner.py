from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import captioner as package
from captioner.caption import Caption, precise
from captioner.captioner import Captioner
from captioner.checkpoint import load_checkpoint
from captioner.decoding.filters import special_ids
from captioner.decoding.options import DecodingOptions
from captioner.errors import CheckpointError, ImageError, OptionError
from captioner.model.classifier import pretrained_classifier
from captioner.runtime.torch import TorchModel
from captioner.vocabulary import Vocabulary, detokenize
from captioner.weights import find_weights
from tests.small_model import SIZE, in_double, small_checkpoint

SAMPLING = DecodingOptions(temperature=1.0, num_captions=2, max_length=8, seed=7)


def texts(captions: list[list[Caption]]) -> list[str]:
    return [best.text for best, *_ in captions]


def test_every_kind_of_image_gives_the_same_caption(captioner: Captioner, images: list[Path]) -> None:
    # Not a JPEG, which is read at reduced scale, but by Pillow's own open at full scale.
    path = next(sample for sample in images if sample.suffix == ".png")
    content = path.read_bytes()
    with Image.open(path) as image:
        kinds: list[Any] = [path, str(path), content, io.BytesIO(content), image, captioner.preprocess(path)]
        captions = captioner.caption(kinds)
    assert captions == [captions[0]] * len(kinds)


def test_captions_come_in_the_order_of_the_images_whatever_the_batch(captioner: Captioner, images: list[Path]) -> None:
    together = captioner.caption(images)
    assert together == [captioner.caption([sample])[0] for sample in images]
    assert len(set(texts(together))) > len(images) // 2  # the images matter
    assert captioner.caption(images[::-1]) == together[::-1]


def test_no_images_give_no_captions(captioner: Captioner) -> None:
    assert captioner.caption([]) == []


def test_log_probabilities_add_up_and_words_make_the_text(captioner: Captioner, images: list[Path]) -> None:
    for options in (None, DecodingOptions(num_captions=3), SAMPLING):
        for captions in captioner.caption(images[:3], options):
            for caption in captions:
                assert len(caption.words) == len(caption.word_log_probs)
                assert caption.text == detokenize(caption.words)
                assert all(value <= 0 for value in (*caption.word_log_probs, caption.end_log_prob))
                total = math.fsum((*caption.word_log_probs, caption.end_log_prob))
                assert caption.log_prob == pytest.approx(total)
                values = (*caption.word_log_probs, caption.end_log_prob, caption.log_prob)
                assert values == tuple(map(precise, values))


def test_several_captions_are_different_and_the_first_is_the_single_one(
    captioner: Captioner, images: list[Path]
) -> None:
    several = captioner.caption(images, DecodingOptions(beam_size=4, num_captions=4))
    single = captioner.caption(images, DecodingOptions(beam_size=4))
    assert texts(several) == texts(single)
    assert all(len({caption.words for caption in captions}) == 4 for captions in several)


def test_the_options_of_the_checkpoint_are_the_default(captioner: Captioner, images: list[Path]) -> None:
    assert captioner.options == DecodingOptions(min_length=4, max_length=8)
    default = captioner.caption(images)
    assert default == captioner.caption(images, captioner.options)
    assert all(4 <= len(best.words) <= 8 for best, *_ in default)
    longer = captioner.caption(images, replace(captioner.options, min_length=10, max_length=12))
    assert all(10 <= len(best.words) <= 12 for best, *_ in longer)


def test_sampling_with_a_seed_does_not_depend_on_batch_or_order(captioner: Captioner, images: list[Path]) -> None:
    def sampled(images: list[Path]) -> list[list[str]]:
        return [[caption.text for caption in of_one] for of_one in captioner.caption(images, SAMPLING)]

    together = sampled(images)
    assert together == [sampled([sample])[0] for sample in images]
    assert sampled(images[::-1]) == together[::-1]
    assert all(first != second for first, second in together)


def test_another_seed_samples_other_captions(captioner: Captioner, images: list[Path]) -> None:
    first = captioner.caption(images, SAMPLING)
    other = captioner.caption(images, replace(SAMPLING, seed=8))
    assert texts(first) != texts(other)


def test_seeds_never_change(captioner: Captioner) -> None:
    pixels = np.zeros((SIZE, SIZE, 3), np.uint8)
    assert captioner.seeds([pixels, pixels + 1], DecodingOptions(seed=1)) == [
        4768889700107766,
        57896684847225318,
    ]


def test_half_precision_hardly_changes_the_features(images: list[Path]) -> None:
    full = Captioner(small_checkpoint(), device="cpu", precision="fp32")
    half = Captioner(small_checkpoint(), device="cpu", precision="bf16")
    pixels = [full.preprocess(sample) for sample in images[:2]]
    exact, rounded = full.encode(pixels).mean(axis=1), half.encode(pixels).mean(axis=1)
    assert rounded.dtype == np.float32
    assert not np.array_equal(exact, rounded)
    lengths = np.linalg.norm(exact, axis=1) * np.linalg.norm(rounded, axis=1)
    assert ((exact * rounded).sum(axis=1) > 0.99 * lengths).all()
    assert all(best.text for best, *_ in half.caption(pixels))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((SIZE, SIZE, 3), np.float32),
        np.zeros((SIZE, SIZE, 3), bool),
        np.zeros((SIZE, SIZE), np.uint16),
        np.zeros((SIZE, SIZE, 2), np.uint8),
        np.zeros((1, SIZE, SIZE, 3), np.uint8),
        np.zeros((3, SIZE, SIZE), np.uint8),
        np.zeros(SIZE, np.uint8),
        np.zeros((), np.uint8),
    ],
    ids=lambda array: f"{array.dtype} {array.shape}",
)
def test_an_array_that_is_no_image_is_refused(captioner: Captioner, array: Any) -> None:
    with pytest.raises(ImageError, match=r"an array must be uint8 \(height, width, 3\), .*, not "):
        captioner.caption([array])


@pytest.mark.parametrize("shape", [(0, 5, 3), (5, 0), (0, 0, 4)])
def test_an_array_without_pixels_is_refused(captioner: Captioner, shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match="has no pixels"):
        captioner.caption([np.zeros(shape, np.uint8)])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_an_array_of_any_size_is_the_image_that_it_holds(captioner: Captioner, images: list[Path], mode: str) -> None:
    with Image.open(images[0]) as image:
        array = np.asarray(image.convert("RGB").convert(mode).resize((301, 77)))
    expected = captioner.preprocess(Image.fromarray(array))
    assert np.array_equal(captioner.preprocess(array), expected)
    assert np.array_equal(captioner.preprocess(np.asfortranarray(array)), expected)
    assert captioner.caption([array]) == captioner.caption([expected]) == captioner.caption(expected[None])
    with pytest.raises(OptionError, match="list of images"):
        captioner.caption(array)


def test_a_pillow_image_is_turned_as_its_file_is(captioner: Captioner) -> None:
    file = Path(__file__).parents[1] / "data" / "samples" / "cat.jpg"
    expected = captioner.preprocess(file)
    with Image.open(file) as image:
        assert image.getexif()[0x0112] != 1
        upright = ImageOps.exif_transpose(image)
        for given in (image, image.convert("RGB"), image.copy(), upright, package.open_image(file)):
            assert np.array_equal(captioner.preprocess(given), expected)
        assert image.getexif()[0x0112] != 1


def test_decoding_options_are_keywords(captioner: Captioner, images: list[Path]) -> None:
    wide = replace(captioner.options, beam_size=5, num_captions=4)
    assert captioner.caption(images[:2], beam_size=5, num_captions=4) == captioner.caption(images[:2], wide)
    assert len(captioner.caption(images[:1], wide, num_captions=2)[0]) == 2
    with pytest.raises(TypeError, match="unexpected keyword argument 'beam'; did you mean 'beam_size'"):
        captioner.caption(images, beam=3)
    with pytest.raises(TypeError, match="'xyzzy'; the decoding options are beam_size, "):
        captioner.caption([], xyzzy=3)
    with pytest.raises(OptionError, match="beam_size"):
        captioner.caption(images, beam_size=0)


@pytest.mark.parametrize("thing", [None, 7, bytearray(b"x"), ["x.jpg"], pytest.param(object(), id="object")], ids=repr)
def test_what_is_no_image_is_refused(captioner: Captioner, thing: Any) -> None:
    with pytest.raises(ImageError, match=f"not an image: {type(thing).__name__}"):
        captioner.caption([thing])


def test_a_single_image_instead_of_a_list_is_refused(captioner: Captioner, images: list[Path]) -> None:
    content = images[0].read_bytes()
    singles: list[Any] = [images[0], str(images[0]), content, io.BytesIO(content), Image.new("RGB", (2, 2))]
    for single in singles:
        with pytest.raises(OptionError, match="takes a list of images"):
            captioner.caption(single)


def test_a_broken_image_names_itself(captioner: Captioner, images: list[Path], tmp_path: Path) -> None:
    (tmp_path / "half.jpg").write_bytes(images[0].read_bytes()[:5000])
    with pytest.raises(ImageError, match=r"half\.jpg"):
        captioner.caption([images[0], tmp_path / "half.jpg"])
    with Image.open(tmp_path / "half.jpg") as image, pytest.raises(ImageError, match="broken Pillow image"):
        captioner.caption([image])


def test_pillow_images_of_any_mode_are_taken(captioner: Captioner) -> None:
    images = [Image.new(mode, (30, 20)) for mode in ("1", "L", "P", "RGBA", "CMYK", "I;16", "F")]
    assert len(captioner.caption(images)) == len(images)


@pytest.fixture(scope="module")
def naming(checkpoint_file: Path) -> Captioner:
    """The small model with the classifier of its encoder."""
    checkpoint = load_checkpoint(checkpoint_file)
    classifier = pretrained_classifier("efficientnet_lite0")
    return Captioner(replace(checkpoint, classifier=classifier), device="cpu", precision="fp32")


def test_captions_name_what_the_classifier_sees_and_others_stay_as_they_are(
    naming: Captioner, captioner: Captioner, images: list[Path]
) -> None:
    regions = naming.encode([naming.preprocess(sample) for sample in images])
    plain = captioner.decode(regions)
    assert naming.decode(regions) == plain
    assert naming.decode(regions, replace(naming.options, tag_threshold=1.0)) == plain
    assert naming.tagger is not None
    options = replace(naming.options, tag_threshold=0.05)
    tags = naming.tagger.tags(naming.model.classify(regions), options.tag_threshold)
    captions = naming.decode(regions, options)
    assert any(best.tags for best, *_ in captions)
    for found, before, seen in zip(captions, plain, tags, strict=True):
        if not found[0].tags:
            assert found == before
        else:
            (named,) = [tag for tag in seen if (tag.name,) == found[0].tags]
            assert set(naming.vocabulary.encode(found[0].words)) & named.ids
            assert not set(naming.vocabulary.encode(before[0].words)) & named.ids


def test_drawn_captions_are_not_made_to_name_anything(naming: Captioner, images: list[Path]) -> None:
    assert naming.caption(images[:2], replace(SAMPLING, tag_threshold=0.01)) == naming.caption(images[:2], SAMPLING)


def test_without_classifier_nothing_can_be_named(captioner: Captioner, images: list[Path]) -> None:
    with pytest.raises(OptionError, match=r"`tag_threshold` 0\.5: this checkpoint has no classifier"):
        captioner.caption(images[:1], replace(captioner.options, tag_threshold=0.5))


def test_too_many_pixels_are_refused(captioner: Captioner, images: list[Path]) -> None:
    with pytest.raises(ImageError, match="limit of 100 pixels"):
        captioner.preprocess(images[0], max_pixels=100)


def test_an_encoder_that_overflows_is_one_clear_error(images: list[Path]) -> None:
    checkpoint = small_checkpoint()
    checkpoint.network.state_dict()["encoder.backbone.network._bn0.running_var"].fill_(-1)
    with pytest.raises(CheckpointError, match="the encoder gives no numbers"):
        Captioner(checkpoint, device="cpu", precision="fp32").caption(images[:1])


def test_loading_by_path_gives_the_digest_and_the_training_summary(checkpoint_file: Path) -> None:
    loaded = package.load(str(checkpoint_file), device="cpu")
    assert isinstance(loaded, package.Captioner)
    assert loaded.digest == load_checkpoint(checkpoint_file).digest
    assert loaded.training == {}


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Pretends that the package lies elsewhere: a function from names of weights to their paths."""
    monkeypatch.setattr("captioner.weights.__file__", str(tmp_path / "captioner" / "weights.py"))
    monkeypatch.chdir(tmp_path)

    def add(name: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        return path

    return add


@pytest.mark.parametrize("folder", ["weights", "captioner/weights"])
def test_shipped_weights_are_found_by_name(installation: Callable[..., Path], folder: str) -> None:
    default = installation(f"{folder}/captioner.safetensors")
    large = installation(f"{folder}/large.safetensors")
    assert find_weights() == find_weights("captioner") == default
    assert find_weights("large") == large


def test_a_name_that_is_not_shipped_is_a_file(installation: Callable[..., Path]) -> None:
    installation("weights/captioner.safetensors")
    for name in ("captioner.safetensors", "./captioner", "other", ""):
        assert find_weights(name) == Path(name)
    with pytest.raises(CheckpointError, match="other: no such checkpoint"):
        Captioner.load("other")


def test_without_shipped_weights_the_message_says_what_to_do(installation: Callable[..., Path]) -> None:
    with pytest.raises(CheckpointError, match="give a checkpoint with `weights` FILE"):
        Captioner.load()


def test_the_package_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="attribute Captions"):
        package.Captions  # noqa: B018


@pytest.mark.usefixtures("double")
@torch.inference_mode()
@pytest.mark.parametrize("attention", ["additive", "adaptive"])
def test_captions_tell_where_the_model_looked_at_each_word(attention: str, images: list[Path]) -> None:
    captioner = in_double(Captioner(small_checkpoint(attention=attention), device="cpu"))
    options = replace(captioner.options, num_captions=2, beam_size=3)
    found = captioner.caption(images[:3], options)
    for sample, captions in zip(images[:3], found, strict=True):
        (alone, _), regions = (
            captioner.caption([sample], options)[0],
            captioner.encode([captioner.preprocess(sample)]),
        )
        for caption in captions:
            assert caption.attention is not None
            assert caption.attention.shape == (len(caption.words), 2, 2)
            assert isinstance(captioner.model, TorchModel)
            decoder = captioner.model.decoder
            state = decoder.initial_state(torch.from_numpy(regions))
            for word, seen in zip(("<start>", *caption.words), caption.attention, strict=False):
                ids = torch.tensor(captioner.vocabulary.encode([word]))
                _, weights, state = decoder._advance(decoder.embedding(ids), state)
                np.testing.assert_allclose(seen.ravel(), weights[0].numpy())
        np.testing.assert_allclose(captions[0].attention, alone.attention)


def test_attention_is_left_out_where_it_is_not_asked_for_or_not_there(images: list[Path]) -> None:
    captioner = Captioner(small_checkpoint(attention="adaptive"), device="cpu")
    assert captioner.caption(images[:1], attention=False)[0][0].attention is None
    assert captioner.caption(images[:1])[0][0] == captioner.caption(images[:1], attention=False)[0][0]
    without = Captioner(small_checkpoint(), device="cpu")
    assert without.caption(images[:1])[0][0].attention is None


def test_decoding_is_told_which_words_join_others_and_which_close_a_phrase() -> None:
    known = Vocabulary.build(["a hat and a coat or a cap"])
    assert sorted(known.decode(special_ids(known).closing)) == ["<end>", "a", "and", "or"]
    assert known.decode(special_ids(known).joining) == ["and", "or"]
    assert special_ids(Vocabulary.build(["a hat"])).joining == ()
