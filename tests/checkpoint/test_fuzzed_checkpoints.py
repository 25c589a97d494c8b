from __future__ import annotations

import json
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from captioner.captioner import Captioner
from captioner.checkpoint import load_checkpoint
from captioner.errors import CheckpointError, EncoderError
from captioner.metadata import describe
from tests.checkpoint.altering import ENTRIES, join, split

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=4,
)


def test_a_training_summary_is_refused_or_can_be_printed(edited: Callable[..., Path]) -> None:
    for depth in (10, 950, 970, 980, 990, 5000):
        deep = '{"x": ' * depth + "1" + "}" * depth
        path = edited(lambda header, deep=deep: header["__metadata__"].update(training=deep))
        told, error = described(path)
        assert (error == "") == bool(json.dumps(told, indent=2) != "{}")
        assert "its metadata are damaged" in error or depth < 5000
        assert error == "" or depth > 10


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
