"""A whole training: from options and data on disk to the best checkpoint."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from captioner.checkpoint import Checkpoint, load_checkpoint
from captioner.datasets import DatasetOptions
from captioner.errors import TrainingError
from captioner.images import Preprocessing
from captioner.model.encoder import CaptionNetwork, Encoder
from captioner.model.inference import choose_device, choose_dtype, precision_name
from captioner.training.distributed import ALONE, World
from captioner.training.encoding import ImageStore, open_source
from captioner.training.log import say
from captioner.training.options import AUTO, TrainingOptions, recorded_options
from captioner.training.preparation import TrainingData, prepare, read_splits
from captioner.training.state import RunFolder, TrainingState, load_state
from captioner.training.trainer import Trainer
from captioner.vocabulary import Vocabulary
from captioner.weights import find_weights

_OF_ATTENTION = ("attention", "attention_size", "attention_heads")


def train(
    datasets: DatasetOptions,
    options: TrainingOptions,
    *,
    resume: bool = False,
    overwrite: bool = False,
    world: World = ALONE,
) -> Path:
    """Train a model: the decoder, and with ``options.finetune_from`` part of the encoder.

    The best checkpoint goes to ``options.output``; the last one, the log and what a resumed run needs go
    to the folder ``OUTPUT.run`` beside it.

    Args:
        datasets: what to train and validate on.
        options: how.
        resume: go on with an interrupted run; the result is the same as without the interruption.
        overwrite: replace an earlier run.
        world: the processes that train together, see :func:`captioner.training.distributed.joined`.

    Returns:
        Path of the best checkpoint.

    Raises:
        CaptionerError: data, options, disk or loss do not allow to go on; one line says what to do.
        Interrupted: Ctrl-C; the run can be resumed.
    """
    device = world.device(choose_device(options.device))
    dtype = choose_dtype(options.precision, device)
    # What auto stands for is settled here, so that it is recorded, and a run is resumed with the same.
    options = replace(options.with_encoder_for(vectors=datasets.of_vectors), precision=precision_name(dtype))
    folder = RunFolder(Path(options.output).expanduser())
    if world.leads:
        folder.check(resume=resume, overwrite=overwrite)
    initial = None if options.init is None else load_checkpoint(find_weights(options.init))
    identity = recorded_options(options) | {"init": None if initial is None else initial.digest}
    if options.select_by == AUTO:  # settled by the validation images
        del identity["select_by"]
    state = world.share(_resumed(folder, identity) if resume and world.leads else None)
    if state is not None and (why := state.why_finished(options.epochs, options.patience)):
        say(f"nothing to do, {why}; the best epoch was {state.best_epoch}")
        return folder.output

    with world.first_on_each_machine():
        encoder, preprocessing, store = open_source(datasets, options, initial, device=device, dtype=dtype)
        data = _prepared(datasets, options, store, None if initial is None else initial.vocabulary)
    options = replace(options, select_by=data.select_by)
    identity |= {"select_by": data.select_by, "data": data.identity}
    world.agree({**identity, "torch": torch.__version__})
    if state is None:
        if world.leads:
            folder.start_anew()
        state = TrainingState(identity)
    state.check_identity(identity)

    checkpoint = _new_checkpoint(datasets, options, encoder, preprocessing, store, data.vocabulary, initial)
    Trainer(checkpoint, data, options, state, folder, device=device, dtype=dtype, world=world).run()
    return folder.output


def _prepared(
    datasets: DatasetOptions,
    options: TrainingOptions,
    store: ImageStore,
    vocabulary: Vocabulary | None,
) -> TrainingData:
    """Read the data sets, encode the images, and tell what was found."""
    splits = read_splits(datasets)
    data = prepare(splits, options, store, skip_missing=datasets.skip_missing, vocabulary=vocabulary)
    for name, value in data.summary.items():
        say(f"{name}: {'; '.join(value) if isinstance(value, list) else value}")
    return data


def _new_checkpoint(
    datasets: DatasetOptions,
    options: TrainingOptions,
    encoder: Encoder,
    preprocessing: Preprocessing,
    store: ImageStore,
    vocabulary: Vocabulary,
    initial: Checkpoint | None,
) -> Checkpoint:
    """A model with fresh weights, or with those of a checkpoint; what is trained requires gradients."""
    torch.manual_seed(options.seed)
    config = options.model_config(
        image_size=preprocessing.size, channels=store.shape[-1], vocabulary_size=len(vocabulary)
    )
    network = CaptionNetwork(config)
    network.encoder = encoder
    if initial is not None:
        _go_on_from(initial, network, options)
    # The recorder adds the rest of the story; where the data lay is known here.
    story = {"datasets": asdict(datasets), "init": options.init}
    return Checkpoint(network, vocabulary, preprocessing, options.decoding_options(), story)


def _go_on_from(initial: Checkpoint, network: CaptionNetwork, options: TrainingOptions) -> None:
    """Take over the decoder of a checkpoint, which must be of the same architecture.

    One thing may be new: adaptive attention, which begins as if it were not there.
    """
    own, other = asdict(network.config), asdict(initial.network.config)
    extended = (own["attention"], other["attention"]) == ("adaptive", "none")
    new = {"dropout", *(_OF_ATTENTION if extended else ())}
    differing = [name for name in own if own[name] != other[name] and name not in new]
    if differing:
        named = ", ".join(f"{name} {other[name]!r}" for name in differing)
        raise TrainingError(f"cannot go on from {options.init}, whose options are {named}", "give the same")
    network.decoder.load_state_dict(initial.network.decoder.state_dict(), strict=not extended)


def _resumed(folder: RunFolder, identity: Mapping[str, Any]) -> TrainingState | None:
    if not folder.state.exists():
        say(f"there is no run in {folder.path} yet; starting from the beginning")
        return None
    state = load_state(folder.state)
    state.check_identity(identity)
    if state.best_epoch and not folder.output.exists():
        raise TrainingError(
            f"cannot resume: {folder.output}, the best checkpoint so far, is gone",
            "put it back or start anew with `overwrite`",
        )
    return state
