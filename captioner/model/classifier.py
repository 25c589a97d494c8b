"""The encoder's classifier: the last layer of the network that it was taken from, over the mean region."""

import torch
from torch import Tensor, nn

from captioner.errors import EncoderError
from captioner.model.encoder import LITE_SIZES, lite_states

CLASSES = 1000
"""Of ImageNet, in torchvision's order."""


def pretrained_classifier(encoder: str) -> nn.Linear:
    """The classifier that belongs to an encoder's pretrained weights.

    Raises:
        EncoderError: no classifier of this encoder is to be had.
    """
    if encoder not in LITE_SIZES:
        known = ", ".join(LITE_SIZES)
        raise EncoderError(f"the classifier of {encoder} is not at hand", f"there are those of {known}")
    states = lite_states(encoder)
    return classifier_of(states["_fc.weight"], states["_fc.bias"])


def classifier_blueprint(channels: int) -> nn.Linear:
    """A classifier's names and shapes without its weights."""
    return nn.Linear(channels, CLASSES, device="meta")


def classifier_of(weight: Tensor, bias: Tensor) -> nn.Linear:
    """The classifier with these weights, in evaluation mode, without gradients."""
    layer = classifier_blueprint(weight.shape[1])
    layer.load_state_dict({"weight": weight.float(), "bias": bias.float()}, assign=True)
    return layer.requires_grad_(False).eval()


@torch.inference_mode()
def fit_classifier(classifier: nn.Linear, features: Tensor, logits: Tensor) -> nn.Linear:
    """A classifier that sees through another encoder what a classifier sees through its own.

    Ridge regression of the change of its weights, so that little is changed where the encoders differ
    little or the images are few: as if one more image for each channel had asked for no change. Logits are
    wanted up to a constant for each image, on which probabilities do not depend.

    Args:
        classifier: of the first encoder.
        features: mean region of each image as the other encoder sees it, ``(images, channels)``.
        logits: what the classifier says of the same images through its own, ``(images, classes)``.
    """
    weight, bias = classifier.weight.double(), classifier.bias.double()
    x = features.double()
    change = logits.double() - (x @ weight.T + bias)
    change = change - change.mean(dim=1, keepdim=True)
    x_mean, change_mean = x.mean(dim=0), change.mean(dim=0)
    x = x - x_mean
    gram = x.T @ x
    gram.diagonal().add_(gram.trace() / len(x))
    by_weight = torch.linalg.solve(gram, x.T @ (change - change_mean)).T
    return classifier_of(weight + by_weight, bias + change_mean - by_weight @ x_mean)
