"""The encoder's classifier: the last layer of the network that it was taken from, over the mean region."""

import torch
from torch import Tensor, nn

from captioner.errors import EncoderError
from captioner.model.encoder import LITE_SIZES, classifier_of, lite_states


def pretrained_classifier(encoder: str) -> nn.Linear:
    """Read the classifier that belongs to an encoder's pretrained weights.

    Raises:
        EncoderError: no classifier of this encoder is available.
    """
    if encoder not in LITE_SIZES:
        known = ", ".join(LITE_SIZES)
        raise EncoderError(f"the classifier of {encoder} is not at hand", f"there are those of {known}")
    states = lite_states(encoder)
    return classifier_of(states["_fc.weight"], states["_fc.bias"])


@torch.inference_mode()
def fit_classifier(classifier: nn.Linear, features: Tensor, logits: Tensor) -> nn.Linear:
    """Fit a classifier that sees through another encoder what a classifier sees through its own.

    Ridge regression of the change of its weights, so that little is changed where the encoders differ
    little or the images are few: as if one more image for each channel had asked for no change. Logits are
    needed up to a constant for each image, on which probabilities do not depend.

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
