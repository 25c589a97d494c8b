from __future__ import annotations

import errno
import io
import json
import os
import pickle
import struct
import tracemalloc
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load, save

from captioner.caption import Caption
from captioner.captioner import Captioner
from captioner.checkpoint import Checkpoint, describe, encoder_digest, load_checkpoint, save_checkpoint
from captioner.errors import CheckpointError, EncoderError
from captioner.header import read_header
from captioner.model.classifier import pretrained_classifier
from captioner.vocabulary import Vocabulary
from tests.small_model import small_checkpoint

RUNNING_VAR = "encoder.backbone.network._bn0.running_var"
DECODER_BIAS = "decoder.output.bias"


def split(path: Path) -> tuple[dict[str, Any], bytes]:
    """Header and tensors of a safetensors file."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def join(header: Mapping[str, Any] | bytes, tensors: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + tensors


@pytest.fixture
def edited(checkpoint_file: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes the small checkpoint again with other metadata: a function from changes to a path."""

    def write(change: Callable[[dict[str, Any]], object]) -> Path:
        header, tensors = split(checkpoint_file)
        change(header)
        path = tmp_path / "edited.safetensors"
        path.write_bytes(join(header, tensors))
        return path

    return write


@pytest.fixture
def with_metadata(edited: Callable[..., Path]) -> Callable[..., Path]:
    """The same for one entry of the metadata, changed as a value rather than as a text."""

    def write(entry: str, **changes: object) -> Path:
        def change(header: dict[str, Any]) -> None:
            value = json.loads(header["__metadata__"][entry])
            header["__metadata__"][entry] = json.dumps(value | changes)

        return edited(change)

    return write


def captions(checkpoint: Checkpoint, photos: list[Path]) -> list[list[Caption]]:
    return Captioner(checkpoint, device="cpu", precision="fp32").caption(photos)


def assert_refused(path: Path, match: str) -> None:
    with pytest.raises(CheckpointError, match=match) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message


@pytest.mark.parametrize(
    "variant",
    [
        {},
        {"cell": "gru", "attention": "additive"},
        {"tie_embeddings": False},
        {"attention": "additive", "tie_embeddings": False},
    ],
    ids=str,
)
def test_a_checkpoint_comes_back_as_it_was(
    variant: dict[str, Any], tmp_path: Path, photos: list[Path]
) -> None:
    training = {"data": ["flickr8k", "caf\u00e9 \udcff"], "figures": {"CIDEr": 0.5}}
    written = small_checkpoint(**variant, training=training)
    save_checkpoint(tmp_path / "x.safetensors", written, dtype=torch.float32)
    read = load_checkpoint(tmp_path / "x.safetensors")
    assert replace(read, network=written.network, digest="") == written
    assert read.network.config == written.network.config
    assert not read.network.training
    before, after = written.network.state_dict(), read.network.state_dict()
    assert before.keys() == after.keys()
    counters = {key for key, value in before.items() if not value.is_floating_point()}
    assert all(torch.equal(before[key], after[key]) for key in before.keys() - counters)
    assert captions(read, photos) == captions(written, photos)


def test_tied_embeddings_are_stored_once_and_stay_tied(checkpoint_file: Path) -> None:
    assert "decoder.output.weight" not in read_header(checkpoint_file).shapes
    decoder = load_checkpoint(checkpoint_file).network.decoder
    assert decoder.output.weight is decoder.embedding.weight


@pytest.mark.parametrize(("dtype", "name"), [(torch.float16, "F16"), (torch.bfloat16, "BF16")])
def test_weights_are_stored_small_and_storing_again_changes_nothing(
    checkpoint: Checkpoint, dtype: torch.dtype, name: str, tmp_path: Path, photos: list[Path]
) -> None:
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    save_checkpoint(first, checkpoint, dtype=dtype)
    assert name in read_header(first).dtypes.values()
    assert "F32" not in read_header(first).dtypes.values()
    once = load_checkpoint(first)
    assert all(value.dtype == torch.float32 for value in once.network.parameters())
    save_checkpoint(second, once, dtype=dtype)
    assert split(first)[1] == split(second)[1]
    assert captions(load_checkpoint(second), photos) == captions(once, photos)


@pytest.fixture
def with_classifier(checkpoint: Checkpoint) -> Checkpoint:
    return replace(checkpoint, classifier=pretrained_classifier("efficientnet_lite0"))


@pytest.mark.parametrize("external", [False, True])
def test_a_classifier_comes_back_as_it_was(
    with_classifier: Checkpoint, tmp_path: Path, external: bool
) -> None:
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, with_classifier, dtype=torch.float32, external_encoder=external)
    assert describe(path)["classifier"] == "ImageNet"
    read, written = load_checkpoint(path).classifier, with_classifier.classifier
    assert read is not None
    assert written is not None
    assert not read.training
    assert not read.weight.requires_grad
    assert torch.equal(read.weight, written.weight)
    assert torch.equal(read.bias, written.bias)
    save_checkpoint(path, with_classifier)
    assert read_header(path).dtypes["classifier.weight"] == "F16"
    stored = load_checkpoint(path).classifier
    assert stored is not None
    assert stored.weight.dtype == torch.float32
    assert torch.allclose(stored.weight, written.weight, rtol=1e-3, atol=1e-6)


def test_without_classifier_there_is_none(checkpoint_file: Path) -> None:
    assert load_checkpoint(checkpoint_file).classifier is None
    assert describe(checkpoint_file)["classifier"] == "none"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda parts: {"bias": parts["bias"]}, "1 tensors are absent or superfluous"),
        (lambda parts: {"weight": parts["weight"]}, "1 tensors are absent or superfluous"),
        (lambda parts: {**parts, "scale": parts["bias"].clone()}, "1 tensors are absent or superfluous"),
        (lambda parts: {**parts, "bias": parts["bias"][:-1]}, "classifier.bias has shape"),
        (lambda parts: {**parts, "weight": parts["weight"][:, :-1]}, "classifier.weight has shape"),
        (lambda parts: {**parts, "bias": parts["bias"].long()}, "numbers of the wrong type"),
        (lambda parts: {**parts, "bias": parts["bias"] / 0}, "classifier.bias holds values"),
    ],
)
def test_a_damaged_classifier_is_refused(
    checkpoint_file: Path, tmp_path: Path, change: Callable[..., dict[str, torch.Tensor]], match: str
) -> None:
    classifier = pretrained_classifier("efficientnet_lite0")
    parts = change({"weight": classifier.weight, "bias": classifier.bias})
    content = checkpoint_file.read_bytes()
    tensors = load(content) | {f"classifier.{name}": part.contiguous() for name, part in parts.items()}
    header, _ = split(checkpoint_file)
    path = tmp_path / "x.safetensors"
    path.write_bytes(save(tensors, header["__metadata__"]))
    assert_refused(path, match)


def test_a_tensor_that_float16_cannot_hold_stays_float32(tmp_path: Path) -> None:
    checkpoint = small_checkpoint()
    variance = checkpoint.network.state_dict()[RUNNING_VAR]
    variance[0] = 1e6
    save_checkpoint(tmp_path / "x.safetensors", checkpoint)
    dtypes = read_header(tmp_path / "x.safetensors").dtypes
    assert [key for key, dtype in dtypes.items() if dtype == "F32"] == [RUNNING_VAR]
    network = load_checkpoint(tmp_path / "x.safetensors").network
    assert torch.equal(network.state_dict()[RUNNING_VAR], variance)


def test_an_external_encoder_is_left_out_and_found_again(
    checkpoint: Checkpoint, tmp_path: Path, photos: list[Path]
) -> None:
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, checkpoint, dtype=torch.float32, external_encoder=True)
    header = read_header(path)
    assert all(key.startswith("decoder.") for key in header.shapes)
    assert not header.embedded
    assert header.encoder_digest == encoder_digest(checkpoint.network.encoder)
    assert captions(load_checkpoint(path), photos) == captions(checkpoint, photos)


def test_an_external_encoder_with_other_weights_is_refused(tmp_path: Path) -> None:
    checkpoint = small_checkpoint()
    checkpoint.network.state_dict()[RUNNING_VAR][0] += 1
    save_checkpoint(tmp_path / "x.safetensors", checkpoint, external_encoder=True)
    assert_refused(tmp_path / "x.safetensors", "other weights of efficientnet_lite0")


def test_the_digest_of_an_encoder_survives_storage_as_float16(checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "x.safetensors", checkpoint, dtype=torch.float16)
    network = load_checkpoint(tmp_path / "x.safetensors").network
    assert encoder_digest(network.encoder) == encoder_digest(checkpoint.network.encoder)


def test_a_new_file_has_the_usual_permissions_and_folders_are_made(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    (tmp_path / "usual").touch()
    path = tmp_path / "a" / "b" / "x.safetensors"
    save_checkpoint(path, checkpoint)
    assert path.stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    path = tmp_path / "x.safetensors"
    path.write_text("old")

    def fail(descriptor: int) -> None:
        raise failure

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(CheckpointError if isinstance(failure, OSError) else KeyboardInterrupt) as caught:
        save_checkpoint(path, checkpoint)
    if isinstance(failure, OSError):
        assert str(caught.value) == f"cannot write {path}: No space left on device"
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("x.safetensors", "old")]


def test_a_disk_that_is_really_full_is_one_clear_error(checkpoint: Checkpoint, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="limits on file sizes are a matter of Unix")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        with pytest.raises(CheckpointError, match=r"cannot write .*x\.safetensors: File too large"):
            save_checkpoint(tmp_path / "x.safetensors", checkpoint)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_a_path_below_a_file_or_onto_a_folder_cannot_be_written(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(CheckpointError, match="cannot write"):
        save_checkpoint(tmp_path / "file" / "x.safetensors", checkpoint)
    with pytest.raises(CheckpointError, match=r"cannot write .*folder: Is a directory"):
        save_checkpoint(tmp_path / "folder", checkpoint)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_weights_that_are_no_numbers_are_neither_written_nor_read(value: float, tmp_path: Path) -> None:
    checkpoint = small_checkpoint()
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, checkpoint, dtype=torch.float32)
    header, tensors = split(path)
    start, _ = header[DECODER_BIAS]["data_offsets"]
    damaged = tensors[:start] + struct.pack("<f", value) + tensors[start + 4 :]
    path.write_bytes(join(header, damaged))
    assert_refused(path, f"{DECODER_BIAS} holds values")
    checkpoint.network.state_dict()[DECODER_BIAS][0] = value
    with pytest.raises(CheckpointError, match=f"{DECODER_BIAS} holds values"):
        save_checkpoint(path, checkpoint)


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    assert_refused(tmp_path / "absent", "no such checkpoint")
    assert_refused(tmp_path, "is a folder")
    assert_refused(tmp_path / ("x" * 300), "cannot be read")
    (tmp_path / "empty").touch()
    assert_refused(tmp_path / "empty", "truncated, damaged or not a safetensors file")
    (tmp_path / "huge").touch()
    os.truncate(tmp_path / "huge", 1 << 40)  # takes no space on the disk
    assert_refused(tmp_path / "huge", "too many for a checkpoint")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are a matter of Unix")
def test_a_named_pipe_is_refused_rather_than_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert_refused(tmp_path / "pipe", "is not a regular file")


class _Bomb:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return (os.mkdir, ("executed",))


@pytest.mark.parametrize("write", [pickle.dump, torch.save])
def test_a_pickle_in_disguise_is_refused_and_not_run(
    write: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content = io.BytesIO()
    write(_Bomb(), content)
    (tmp_path / "x.safetensors").write_bytes(content.getvalue())
    assert_refused(tmp_path / "x.safetensors", "not a safetensors file")
    assert not (tmp_path / "executed").exists()


def test_nothing_is_unpickled(checkpoint_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a pickle is read")

    for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(module, name, refuse)
    load_checkpoint(checkpoint_file)


def test_safetensors_files_of_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    for metadata in (None, {"format": "pt"}):
        path.write_bytes(save({"weight": torch.zeros(2)}, metadata))
        assert_refused(path, "not a checkpoint of captioner")


def test_truncated_files_are_refused(checkpoint_file: Path, tmp_path: Path) -> None:
    content = checkpoint_file.read_bytes()
    (header,) = struct.unpack("<Q", content[:8])
    for length in (1, 7, 8, 9, header // 2, 8 + header, 9 + header, len(content) // 2, len(content) - 1):
        (tmp_path / "x.safetensors").write_bytes(content[:length])
        assert_refused(tmp_path / "x.safetensors", "truncated")


def test_a_longer_file_is_refused(checkpoint_file: Path, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(checkpoint_file.read_bytes() + b"\0")
    assert_refused(tmp_path / "x.safetensors", "damaged")


@pytest.mark.parametrize(
    ("version", "match"),
    [
        ("2", "upgrade"),
        ("99999", "upgrade"),
        ("0", "damaged"),
        ("-1", "damaged"),
        ("\u0661", "damaged"),
        ("", "damaged"),
    ],
)
def test_other_format_versions_are_refused(edited: Callable[..., Path], version: str, match: str) -> None:
    assert_refused(edited(lambda header: header["__metadata__"].update(version=version)), match)


def test_the_vocabulary_must_have_one_word_for_each_output(edited: Callable[..., Path]) -> None:
    def longer(header: dict[str, Any]) -> None:
        words = json.loads(header["__metadata__"]["vocabulary"])
        header["__metadata__"]["vocabulary"] = json.dumps([*words, "zebra"])

    assert_refused(edited(longer), "has 35 words for 34 outputs")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"hidden_size": 25}, "has shape"),
        ({"cell": "gru"}, "has shape"),
        ({"attention": "additive"}, "absent or superfluous"),
        ({"tie_embeddings": False}, r"absent or superfluous, such as 'decoder\.output\.weight'"),
        ({"embedding_size": 24}, "absent or superfluous"),
        ({"image_size": 96}, "another size"),
        ({"channels": 1281}, "has shape"),
        ({"hidden_size": 1 << 20, "embedding_size": 1 << 20}, "absent or superfluous"),
        ({"hidden_size": 1 << 21}, "damaged: hidden_size must be"),
        ({"hidden_size": "24"}, "damaged: hidden_size must be"),
        ({"encoder": "efficientnet_lite1"}, "absent or superfluous"),
        ({"surprise": 1}, "unknown fields: surprise"),
    ],
    ids=str,
)
def test_a_configuration_that_does_not_fit_the_weights_is_refused(
    with_metadata: Callable[..., Path], changes: dict[str, object], match: str
) -> None:
    assert_refused(with_metadata("config", **changes), match)


def test_an_unknown_encoder_names_the_file(with_metadata: Callable[..., Path]) -> None:
    path = with_metadata("config", encoder="resnet51")
    with pytest.raises(EncoderError, match=rf"{path}: no encoder is called 'resnet51'"):
        load_checkpoint(path)


def test_an_encoder_with_other_channels_than_the_decoder_takes_is_refused(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, checkpoint)
    header, _ = split(path)
    config = json.loads(header["__metadata__"]["config"]) | {"channels": 7}
    header["__metadata__"]["config"] = json.dumps(config)
    tensors = load_tensors(path)
    tensors["decoder.initial.weight"] = tensors["decoder.initial.weight"][:, :7].contiguous()
    path.write_bytes(save(tensors, header["__metadata__"]))
    assert_refused(path, "takes 7 channels, efficientnet_lite0 gives 1280")


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    return load(path.read_bytes())


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            lambda tensors: tensors.pop(DECODER_BIAS),
            rf"1 tensors are absent or superfluous, such as '{DECODER_BIAS}'",
        ),
        (lambda tensors: tensors.pop(RUNNING_VAR), "absent or superfluous"),
        (
            lambda tensors: tensors.update({"decoder.extra": torch.zeros(1)}),
            "superfluous, such as 'decoder.extra'",
        ),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), "'extra', which is not part"),
        (lambda tensors: tensors.update({"x" * 999 + "\n": torch.zeros(1)}), "not part of its model"),
        (
            lambda tensors: tensors.update({DECODER_BIAS: torch.zeros(34, dtype=torch.int64)}),
            "wrong type, I64",
        ),
        (
            lambda tensors: tensors.update({DECODER_BIAS: torch.zeros(34, dtype=torch.bool)}),
            "wrong type, BOOL",
        ),
        (
            lambda tensors: tensors.update({DECODER_BIAS: torch.zeros(34, dtype=torch.float8_e4m3fn)}),
            "wrong type, F8_E4M3",
        ),
        (lambda tensors: tensors.update({DECODER_BIAS: torch.zeros(34, 1)}), r"\(34, 1\)"),
        (lambda tensors: tensors.update({DECODER_BIAS: torch.zeros(0)}), "has shape"),
    ],
)
def test_other_tensors_than_those_of_the_model_are_refused(
    checkpoint_file: Path, tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], object], match: str
) -> None:
    header, _ = split(checkpoint_file)
    tensors = load_tensors(checkpoint_file)
    change(tensors)
    path = tmp_path / "x.safetensors"
    path.write_bytes(save(tensors, header["__metadata__"]))
    assert_refused(path, match)


def test_float64_weights_are_read_as_float32(checkpoint_file: Path, tmp_path: Path) -> None:
    tensors = load_tensors(checkpoint_file)
    tensors[DECODER_BIAS] = tensors[DECODER_BIAS].double()
    (tmp_path / "x.safetensors").write_bytes(save(tensors, split(checkpoint_file)[0]["__metadata__"]))
    bias = load_checkpoint(tmp_path / "x.safetensors").network.decoder.output.bias
    assert torch.equal(bias, tensors[DECODER_BIAS].float())


def test_damaged_counters_and_index_tables_do_no_harm(checkpoint_file: Path, tmp_path: Path) -> None:
    tensors = load_tensors(checkpoint_file)
    counter = next(key for key in tensors if key.endswith("num_batches_tracked"))
    tensors[counter] = torch.tensor(-(1 << 62))
    (tmp_path / "x.safetensors").write_bytes(save(tensors, split(checkpoint_file)[0]["__metadata__"]))
    assert load_checkpoint(tmp_path / "x.safetensors").network.state_dict()[counter] == 0


def test_absurd_sizes_are_refused_before_memory_is_taken(with_metadata: Callable[..., Path]) -> None:
    # A decoder of this size would take 64 tebibytes; torch refuses, or the machine gives up.
    path = with_metadata("config", hidden_size=1 << 20, attention="additive", attention_size=1 << 20)
    load_checkpoint_error(path)  # loads what is loaded once
    tracemalloc.start()
    try:
        load_checkpoint_error(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20


def load_checkpoint_error(path: Path) -> None:
    with pytest.raises(CheckpointError):
        load_checkpoint(path)


ENTRIES = ("config", "vocabulary", "preprocessing", "decoding", "training", "encoder")
ODD_TEXTS = ("", "{", "[]", "{}", "null", "1", '"x"', "[" * 5000, "1" * 5000, "[[1]]", "NaN", '{"x": NaN}')


@pytest.mark.parametrize("entry", ENTRIES)
def test_metadata_of_the_wrong_type_are_refused(edited: Callable[..., Path], entry: str) -> None:
    for text in ODD_TEXTS:
        if (entry, text) in {("training", "{}"), ("decoding", "{}")}:
            continue
        path = edited(lambda header, text=text: header["__metadata__"].update({entry: text}))
        assert_refused(path, "its metadata are damaged")
    assert_refused(edited(lambda header: header["__metadata__"].pop(entry)), f"damaged: '{entry}' is missing")


def test_a_training_summary_is_refused_or_can_be_printed(edited: Callable[..., Path]) -> None:
    for depth in (10, 950, 970, 980, 990, 5000):
        deep = '{"x": ' * depth + "1" + "}" * depth
        path = edited(lambda header, deep=deep: header["__metadata__"].update(training=deep))
        told, error = described(path)
        assert (error == "") == bool(json.dumps(told, indent=2) != "{}")
        assert "its metadata are damaged" in error or depth < 5000
        assert error == "" or depth > 10


def test_messages_stay_short_whatever_a_file_holds(with_metadata: Callable[..., Path]) -> None:
    path = with_metadata("config", cell="x\n" * 100_000)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    assert len(str(caught.value)) < 400 + len(str(path))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=4,
)


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_value_in_the_metadata_gives_another_error(
    data: st.DataObject, checkpoint_file: Path, tmp_path: Path
) -> None:
    header, tensors = split(checkpoint_file)
    metadata = header["__metadata__"]
    entry = data.draw(st.sampled_from(ENTRIES))
    value = json.loads(metadata[entry])
    if isinstance(value, dict) and value:
        value[data.draw(st.sampled_from(sorted(value)))] = data.draw(JSON)
    elif isinstance(value, list):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(JSON)
    else:
        value = data.draw(JSON)
    metadata[entry] = json.dumps(value)
    assert_loads_or_is_refused(join(header, tensors), tmp_path)


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_damage_to_the_header_gives_another_error(
    data: st.DataObject, checkpoint_file: Path, tmp_path: Path
) -> None:
    content = checkpoint_file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    # Most of the header are names of tensors; metadata come first.
    place = data.draw(st.integers(0, 7) | st.integers(8, 2000) | st.integers(8, 8 + length))
    removed = data.draw(st.integers(0, 4))
    inserted = data.draw(st.binary(max_size=4) | st.sampled_from([b'"', b"{", b"}", b"9", b"\\u0000", b","]))
    damaged = content[:place] + inserted + content[place + removed :]
    if data.draw(st.booleans()) and place >= 8:  # keep the length true, to get further
        damaged = struct.pack("<Q", length + len(inserted) - removed) + damaged[8:]
    assert_loads_or_is_refused(damaged, tmp_path)


@settings(deadline=None, max_examples=100)
@given(content=st.binary(max_size=200))
def test_random_bytes_are_refused(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "random.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        load_checkpoint(path)


def described(path: Path) -> tuple[dict[str, object], str]:
    """What is in a file, or why it was refused."""
    try:
        return describe(path), ""
    except (CheckpointError, EncoderError) as error:
        return {}, str(error)


def assert_loads_or_is_refused(content: bytes, folder: Path) -> None:
    path = folder / "fuzzed.safetensors"
    path.write_bytes(content)
    told, error = described(path)
    assert "\n" not in error
    if told:
        # What can be described can be loaded and used, unless its numbers make no sense.
        loaded = Captioner(load_checkpoint(path), device="cpu", precision="fp32")
        with suppress(CheckpointError):
            assert loaded.caption([Image.new("RGB", (8, 8), "red")])[0]


def test_what_a_person_wants_to_know(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, replace(checkpoint, training={"date": "2026-01-01"}))
    told = describe(path)
    assert told["file"] == str(path)
    assert told["bytes"] == path.stat().st_size
    assert told["digest"] == load_checkpoint(path).digest
    assert told["parameters"] == sum(value.numel() for value in checkpoint.network.parameters())
    assert told["stored as"] == "F16, I64"
    assert told["encoder"] == "embedded"
    assert told["model"] == checkpoint.network.config.to_dict()
    assert told["vocabulary"] == "34 words"
    assert told["training"] == {"date": "2026-01-01"}
    save_checkpoint(path, checkpoint, external_encoder=True)
    assert describe(path)["encoder"] == f"external, digest {encoder_digest(checkpoint.network.encoder)}"


def test_a_word_that_is_no_text_survives(tmp_path: Path) -> None:
    checkpoint = small_checkpoint()
    words = (*checkpoint.vocabulary.words[:-1], "\U0001f984 \udcff\n")
    save_checkpoint(tmp_path / "x.safetensors", replace(checkpoint, vocabulary=Vocabulary(words)))
    assert load_checkpoint(tmp_path / "x.safetensors").vocabulary.words == words
