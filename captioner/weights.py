"""Where checkpoints are, and what one says of itself, without loading torch."""

import hashlib
import json
import math
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors import SafetensorError, safe_open

from captioner.caption import Calibration
from captioner.decoding.options import DecodingOptions
from captioner.errors import CaptionerError, CheckpointError, os_errors_as, reworded
from captioner.images import Preprocessing
from captioner.model.config import ModelConfig
from captioner.options import from_dict
from captioner.vocabulary import Vocabulary

T = TypeVar("T")

DEFAULT_WEIGHTS = "captioner"
FORMAT = "captioner"
FORMAT_VERSION = 1
INT8 = "int8."  # begins the names of tensors that belong to no network, but to graphs of whole numbers
_MOST_BYTES = 16 << 30
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_LARGEST = 1e12  # no trained weight and no encoder's output comes near, and products of larger ones overflow


def find_weights(weights: str | Path | None = None) -> Path:
    """Find a checkpoint.

    Args:
        weights: the name of a shipped checkpoint, such as ``captioner``, or else a file; the shipped
            default if absent.

    Raises:
        CheckpointError: the default is wanted, but not installed.
    """
    name = DEFAULT_WEIGHTS if weights is None else str(weights)
    # In an installed package the weights lie inside it, in a clone beside it.
    package = Path(__file__).resolve().parent
    for folder in (package / "weights", package.parent / "weights"):
        shipped = {file.stem: file for file in folder.glob("*.safetensors")}
        if name in shipped:
            return shipped[name]
    if weights is None:
        raise CheckpointError("no weights are installed", "give a checkpoint with `weights` FILE")
    return Path(weights)


def file_digest(path: Path) -> str:
    """Hash a checkpoint; once in a process, as long as the file stays the same.

    Returns:
        First 16 hexadecimal digits of the file's SHA-256.

    Raises:
        CheckpointError: the file cannot be read.
    """
    with os_errors_as(CheckpointError, f"{path}: cannot be read: "):
        status = path.stat()
        stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        return _file_digest(path, stamp)


@lru_cache(maxsize=16)
def _file_digest(path: Path, _stamp: tuple[int, ...]) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Header:
    """What a checkpoint says of itself, without its weights.

    Attributes:
        config: architecture.
        vocabulary: words.
        preprocessing: pixels.
        decoding: default decoding options.
        training: how it came about.
        calibration: how sure its captions are; None in files that do not say.
        encoder_digest: digest of the encoder's weights, see :func:`encoder_digest`.
        embedded: whether the encoder's weights are in the file.
        shapes: shape of each tensor in the file.
        dtypes: type of each tensor, such as ``F16``.
        graphs: what :func:`captioner.runtime.graph.read_graphs` reads; None in files without.
        int8: the same, with whole numbers of 8 bits; None in files without.
        int8_of: what :func:`tensors_digest` gave when these were made.
    """

    config: ModelConfig
    vocabulary: Vocabulary
    preprocessing: Preprocessing
    decoding: DecodingOptions
    training: Mapping[str, object]
    calibration: Calibration | None
    encoder_digest: str
    embedded: bool
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]
    graphs: str | None = None
    int8: str | None = None
    int8_of: str = ""

    @property
    def parameters(self) -> int:
        """Number of weights of encoder and decoder; statistics of batch-norm are none."""
        own = (key for key in self.shapes if key.startswith(("encoder.", "decoder.")) and not key.endswith(_STATISTICS))
        return sum(math.prod(self.shapes[key]) for key in own)


def read_header(path: str | Path) -> Header:
    """Read all of a checkpoint but its weights.

    Raises:
        CheckpointError: the file is absent, truncated, corrupt, foreign or of a newer format.
    """
    path = Path(path)
    with open_checkpoint(path) as file:
        return header_of(path, file)


def open_checkpoint(path: Path, framework: str = "np") -> Any:
    """Open a safetensors file, to be used as a context.

    Args:
        path: the file.
        framework: whose tensors it is to give, ``np`` for arrays of numpy or ``pt`` for torch.

    Raises:
        CheckpointError: the file is absent, truncated, too large or none at all.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise CheckpointError(f"{path}: is a folder, not a checkpoint")
        if not stat.S_ISREG(status.st_mode):  # opening a named pipe would wait for its writer
            raise CheckpointError(f"{path}: is not a regular file")
        if status.st_size > _MOST_BYTES:
            raise CheckpointError(f"{path}: {status.st_size} bytes are too many for a checkpoint")
        return safe_open(path, framework=framework)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such checkpoint") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {reason_of(error)}") from error
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: truncated, damaged or not a safetensors file ({reason_of(error)})") from error


def header_of(path: Path, file: Any) -> Header:
    """Read what an open checkpoint says of itself.

    Raises:
        CheckpointError: it is foreign, of a newer format, or contradicts itself.
    """
    metadata = file.metadata() or {}
    _check_format(path, metadata)
    slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    try:
        encoder = json.loads(metadata["encoder"])
        words = _typed(json.loads(metadata["vocabulary"]), list)
        confidence = json.loads(metadata.get("confidence", "null"))
        header = Header(
            config=from_dict(ModelConfig, json.loads(metadata["config"]), "the model configuration"),
            vocabulary=Vocabulary(tuple(_typed(word, str) for word in words)),
            preprocessing=Preprocessing.from_dict(json.loads(metadata["preprocessing"])),
            decoding=DecodingOptions.from_dict(json.loads(metadata["decoding"])),
            training=_typed(json.loads(metadata["training"]), dict),
            calibration=None if confidence is None else from_dict(Calibration, confidence, "confidence"),
            encoder_digest=_typed(encoder["digest"], str),
            embedded=_typed(encoder["embedded"], bool),
            shapes={key: tuple(part.get_shape()) for key, part in slices.items()},
            graphs=metadata.get("graphs"),
            int8=metadata.get("int8"),
            int8_of=metadata.get("int8_of", ""),
            dtypes={key: str(part.get_dtype()) for key, part in slices.items()},
        )
        json.dumps(header.training, indent=2, allow_nan=False)  # what cannot be written again is refused here
    except (ValueError, LookupError, TypeError, ArithmeticError, RecursionError, CaptionerError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else reason_of(error)
        reason = reworded(reason, str)  # a field of the file, no option
        raise CheckpointError(f"{path}: its metadata are damaged: {reason}") from error
    if len(header.vocabulary) != header.config.vocabulary_size:
        raise CheckpointError(f"{path}: has {len(header.vocabulary)} words for {header.config.vocabulary_size} outputs")
    if header.preprocessing.size != header.config.image_size:
        raise CheckpointError(f"{path}: prepares images of another size than its encoder expects")
    return header


def read_tensors(path: Path, keys: Iterable[str]) -> dict[str, np.typing.NDArray[Any]]:
    """Read some tensors of a checkpoint as arrays of numpy.

    Raises:
        CheckpointError: the file cannot be read, or one of them holds values that are not finite or too large.

    Returns:
        By their names; fractions as float32.
    """
    tensors = {}
    with open_checkpoint(path) as file:
        for key in keys:
            value = file.get_tensor(key)
            tensors[key] = value.astype(np.float32) if value.dtype.kind == "f" else value
            check_values(path, key, tensors[key])
    return tensors


def tensors_digest(content: bytes) -> str:
    """Hash the tensors of a checkpoint, whatever its metadata.

    Args:
        content: of the whole file.
    """
    return hashlib.sha256(content[end_of_header(content) :]).hexdigest()[:16]


def end_of_header(content: bytes) -> int:
    """Find where the tensors of a checkpoint begin, given its first bytes or all: after what it says of itself."""
    return 8 + int.from_bytes(content[:8], "little")


def are_numbers(values: np.typing.NDArray[Any]) -> bool:
    """Say whether all are finite and of a usual size."""
    # Written so that not-a-number fails too, and with Python's floats, since float16 would make the limits infinite.
    return not values.size or -_LARGEST <= float(values.min()) <= float(values.max()) <= _LARGEST


def check_values(path: Path, key: str, value: np.typing.NDArray[Any]) -> None:
    """Accept a tensor of finite numbers of a usual size.

    Raises:
        CheckpointError: it holds others.
    """
    if value.dtype.kind == "f" and not are_numbers(value):
        raise CheckpointError(f"{path}: {key} holds values that are infinite or not numbers")


def _check_format(path: Path, metadata: Mapping[str, str]) -> None:
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path}: is a safetensors file, but not a checkpoint of captioner")
    version = metadata.get("version", "")
    if not re.fullmatch("[1-9][0-9]{0,8}", version):
        raise CheckpointError(f"{path}: its metadata are damaged: version {version[:20]!r}")
    if int(version) > FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: is of format {version}, this captioner reads {FORMAT_VERSION}", "upgrade captioner"
        )


def _typed(value: object, kind: type[T]) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"{kind.__name__} expected, not {type(value).__name__}")
    return value


def reason_of(error: Exception) -> str:
    """In one line of reasonable length, whatever a file made of the message."""
    return " ".join((getattr(error, "strerror", None) or str(error)).split())[:200]
