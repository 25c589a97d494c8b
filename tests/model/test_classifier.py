from __future__ import annotations

from pathlib import Path

import pytest
import torch

from captioner.errors import EncoderError
from captioner.model.classifier import fit_classifier, pretrained_classifier
from captioner.model.encoder import (
    CLASSES,
    LITE_SIZES,
    build_encoder,
    classifier_of,
    encoder_preprocessing,
    lite_states,
)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", sorted(LITE_SIZES))
def test_the_classifier_over_the_mean_region_is_the_packages_own_network(name: str, images: list[Path]) -> None:
    package = pytest.importorskip("efficientnet_lite_pytorch")
    preprocessing = encoder_preprocessing(name)
    network = package.EfficientNet.from_name(name.replace("_", "-"), image_size=preprocessing.size)
    network.load_state_dict(lite_states(name))
    known = [image for image in images if image.name in ("astronaut.jpg", "cat.jpg", "coffee.jpg")]
    pixels = torch.stack([torch.from_numpy(preprocessing.load(image)) for image in known])
    batch = preprocessing.normalise(pixels).double()
    with torch.inference_mode():
        expected = network.eval()(batch)
        regions = build_encoder(name, preprocessing.size, pretrained=True)(batch)
        found = pretrained_classifier(name)(regions.mean(dim=1))
    torch.testing.assert_close(found, expected)
    classes = dict(zip((image.name for image in known), found.argmax(dim=1).tolist(), strict=True))
    assert classes["cat.jpg"] in range(281, 286)  # tabby to Egyptian cat
    assert classes["coffee.jpg"] in (504, 967, 968)  # mug, espresso, cup


def test_other_encoders_have_none() -> None:
    with pytest.raises(EncoderError, match="the classifier of resnet50 is not at hand"):
        pretrained_classifier("resnet50")
    with pytest.raises(EncoderError, match="the classifier of none is not at hand"):
        pretrained_classifier("none")


def make_world(samples: int, channels: int = 24) -> tuple[torch.nn.Linear, torch.Tensor, torch.Tensor]:
    """A classifier, features of images, and what another encoder makes of the same images."""
    generator = torch.Generator().manual_seed(0)
    classifier = classifier_of(
        torch.randn(CLASSES, channels, generator=generator), torch.randn(CLASSES, generator=generator)
    )
    features = torch.randn(samples, channels, generator=generator) + 0.5
    turned = torch.eye(channels) + 0.1 * torch.randn(channels, channels, generator=generator)
    return classifier, features, features @ turned + 0.3


def same_class(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one.argmax(dim=1) == other.argmax(dim=1)).float().mean())


def test_a_fitted_classifier_sees_through_a_changed_encoder_what_the_old_one_saw() -> None:
    classifier, features, changed = make_world(3000)
    wanted = classifier(features)
    fit, rest = slice(2500), slice(2500, None)
    shifted = wanted[fit] + torch.randn(2500, 1)  # a constant for each image, which does not count
    fitted = fit_classifier(classifier, changed[fit], shifted)
    assert same_class(fitted(changed[rest]), wanted[rest]) > 0.9
    assert same_class(classifier(changed[rest]), wanted[rest]) < 0.7
    found, expected = fitted(changed[rest]).softmax(dim=1), wanted[rest].softmax(dim=1)
    assert float((found - expected).abs().amax(dim=1).mean()) < 0.05


@pytest.mark.usefixtures("double")
def test_where_nothing_changed_nothing_is_changed() -> None:
    classifier, features, _ = make_world(50)
    fitted = fit_classifier(classifier, features, classifier(features))
    torch.testing.assert_close(fitted.weight, classifier.weight)
    torch.testing.assert_close(fitted.bias, classifier.bias)


def test_few_images_change_little_for_the_worse() -> None:
    classifier, features, changed = make_world(300)
    wanted = classifier(features)
    fitted = fit_classifier(classifier, changed[:10], wanted[:10])
    before = same_class(classifier(changed[10:]), wanted[10:])
    assert same_class(fitted(changed[10:]), wanted[10:]) >= before - 0.02
