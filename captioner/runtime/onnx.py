"""Models that ONNX Runtime computes on the processor, from the graphs in their checkpoints."""

import ctypes
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from captioner.errors import CheckpointError
from captioner.images import Pixels
from captioner.runtime.graph import Graph, read_graphs, to_onnx
from captioner.runtime.model import Floats, Ints, Loaded, State, available_threads
from captioner.weights import Header, file_digest, read_tensors, tensors_digest

_WAY_OUT = "choose the `runtime` torch where it is installed, or renew the graphs with captioner export"
QUANTISE = "captioner export FILE --int8 --calibrate DIR"
_LANES = 16  # numbers that one instruction takes at most; what is left over is computed by another routine


class OnnxModel:
    """A checkpoint that ONNX Runtime computes; see :class:`captioner.runtime.model.Model`.

    Each computation runs in one thread. Images are encoded one by one, which takes the least memory and no more time.

    Args:
        path: the checkpoint, for messages.
        header: what it says of itself; it has graphs.
        graphs: its graphs, checked.
        precision: ``fp32``, or ``int8`` where these are its graphs of whole numbers.

    Raises:
        CheckpointError: ONNX Runtime refuses a graph.
    """

    runtime, device, seen_together = "onnx", "cpu", 1

    def __init__(self, path: Path, header: Header, graphs: Mapping[str, Graph], precision: str = "fp32") -> None:
        import onnxruntime

        config = header.config
        self._path, self._library = path, onnxruntime
        self.preprocessing, self.channels = header.preprocessing, config.channels
        self.attends = config.attention != "none"
        self.encoder_name, self.encoder_digest, self.precision = config.encoder, header.encoder_digest, precision
        # Scales of whole numbers depend on the images that they were taken from.
        self.numbers = f"onnx int8 {header.int8_of}" if precision == "int8" else "onnx"
        self.threads = available_threads()
        self._sessions = {name: self._session(graph) for name, graph in graphs.items()}
        self._memory = [name for name, *_ in graphs["begin"].outputs if name != "cell"]
        self._block = 1 if config.hidden_size % _LANES == 0 else _LANES

    def _session(self, graph: Graph) -> Any:
        tensors = read_tensors(self._path, graph.weights)
        model = to_onnx(graph, tensors)
        weights = [self._library.OrtValue.ortvalue_from_numpy(tensors[name]) for name in graph.weights]
        options = self._library.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what goes wrong is raised
        share_memory(self._library)
        options.add_session_config_entry("session.use_env_allocators", "1")
        options.add_external_initializers(list(graph.weights), weights)
        try:
            return self._library.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # of many kinds, with no base of their own
            raise self._refused(error) from error

    def _run(self, name: str, outputs: Sequence[str], inputs: Mapping[str, Any]) -> Any:
        try:
            return self._sessions[name].run(outputs, inputs)
        except Exception as error:
            raise self._refused(error) from error

    def _refused(self, error: Exception) -> CheckpointError:
        reason = " ".join(str(error).split())[:200]
        return CheckpointError(
            f"{self._path}: its graphs do not run in ONNX Runtime {self._library.__version__} ({reason})",
            _WAY_OUT,
        )

    @cached_property
    def shape(self) -> tuple[int, int]:
        """``(regions, channels)`` of an image."""
        _, regions, channels = self.encode([np.zeros(self.preprocessing.shape, np.uint8)]).shape
        return regions, channels

    def encode(self, pixels: Sequence[Pixels]) -> Floats:
        """See :class:`captioner.runtime.model.Model`."""

        def one(image: Pixels) -> Floats:
            regions: Floats = self._run("encoder", ["regions"], {"pixels": image[None]})[0]
            return regions

        if len(pixels) == 1:
            return one(pixels[0])
        with ThreadPoolExecutor(min(self.threads, len(pixels))) as pool:
            return np.concatenate(list(pool.map(one, pixels)))

    def initial_state(self, regions: Floats) -> State:
        """See :class:`captioner.runtime.model.Model`."""
        names = ["cell", *self._memory]
        parts = [self._run("begin", names, {"regions": regions[image : image + 1]}) for image in range(len(regions))]
        cell, *memory = (np.concatenate(each) for each in zip(*parts, strict=True))
        state = State(cell, tuple(memory), self._block)
        return state if len(cell) % self._block == 0 else state.select(np.arange(len(cell)))

    def step(self, words: Ints, state: State) -> tuple[Floats, State]:
        """See :class:`captioner.runtime.model.Model`."""
        (log_probs,), state = self._advance(["log_probs"], words, state)
        return log_probs, state

    def look(self, words: Ints, state: State) -> tuple[Floats, Floats, State]:
        """See :class:`captioner.runtime.model.Model`."""
        (log_probs, weights), state = self._advance(["log_probs", "attention"], words, state)
        return log_probs, weights, state

    def _advance(self, outputs: Sequence[str], words: Ints, state: State) -> tuple[list[Any], State]:
        images = len(words)
        cell, memory, words = state.cell, state.memory, state.padded(words)
        if words.size == 1:  # a single row goes through another kernel, which adds up in another order
            words, cell, *rest = (np.repeat(part, 2, axis=0) for part in (words, cell, *memory))
            memory = tuple(rest)
        inputs = {"words": words, "cell": cell, **dict(zip(self._memory, memory, strict=True))}
        *found, after = self._run("step", [*outputs, "next"], inputs)
        return [part[:images] for part in found], State(after[: len(state.cell)], state.memory, state.block)

    def classify(self, regions: Floats) -> Floats:
        """See :class:`captioner.runtime.model.Model`."""
        rows = [self._run("classifier", ["probabilities"], {"regions": row[None]})[0] for row in regions]
        return np.concatenate(rows)

    def begin_thread(self) -> None:
        """See :class:`captioner.runtime.model.Model`."""

    def rest(self) -> None:
        """See :class:`captioner.runtime.model.Model`."""
        if encoder := self._sessions.get("encoder"):
            options = self._library.RunOptions()  # only at the end of a run does the shared pool shrink
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
            encoder.run(["regions"], {"pixels": np.zeros((1, *self.preprocessing.shape), np.uint8)}, options)
        give_back_memory()


def from_file(path: Path, header: Header, precision: str = "fp32") -> Loaded:
    """Make the checkpoint of a file ready.

    Args:
        path: the file.
        header: what it says of itself; it has graphs.
        precision: ``fp32``; or ``int8``, if it has graphs of whole numbers.

    Raises:
        CheckpointError: its graphs are not such as captioner writes, do not fit its weights, or are refused.
    """
    text = header.int8 if precision == "int8" else header.graphs
    if precision == "int8" and tensors_digest(path.read_bytes()) != header.int8_of:
        raise CheckpointError(f"{path}: its weights are not those that were quantised", f"run: {QUANTISE}")
    try:
        graphs = read_graphs(text or "", header.config, header.shapes)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error.what}", _WAY_OUT) from error
    model = OnnxModel(path, header, graphs, precision)
    give_back_memory()
    return Loaded(
        model=model,
        config=header.config,
        vocabulary=header.vocabulary,
        decoding=header.decoding,
        training=header.training,
        digest=file_digest(path),
        calibration=header.calibration,
        classifies="classifier" in graphs,
    )


@cache
def share_memory(onnxruntime: Any) -> None:
    """Let all sessions of this process take from one pool of memory instead of one each, and no more than they need."""
    kind, use = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, onnxruntime.OrtMemType.DEFAULT
    defaults = ("initial_chunk_size_bytes", "max_dead_bytes_per_chunk", "initial_growth_chunk_size_bytes")
    settings = {"max_mem": 0, "arena_extend_strategy": 1} | dict.fromkeys(defaults, -1)
    with suppress(RuntimeError):  # somebody else in this process has set one up
        place = onnxruntime.OrtMemoryInfo("Cpu", kind, 0, use)
        onnxruntime.create_and_register_allocator(place, onnxruntime.OrtArenaCfg(settings))


def give_back_memory() -> None:
    """Give the system what it took to build the sessions, some 60 MB; glibc would keep it in small pieces."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError):  # another C library
        return
