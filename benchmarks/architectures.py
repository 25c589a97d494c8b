"""How fast is captioner on one processor, compared with BLIP-base and ViT-GPT2?

    python -m venv architectures && architectures/bin/pip install torch transformers .
    architectures/bin/python benchmarks/architectures.py [--rounds 5] [--weights FILE]

The two are the architectures of ``Salesforce/blip-image-captioning-base`` and
``nlpconnect/vit-gpt2-image-captioning`` through ``transformers``, with random weights, so that nothing is downloaded:
time does not depend on the weights. All encode pixels in memory and write ten words (tokens) by beam search of width
3 in float32 on one processor. captioner writes with the shipped weights, in a batch of 16 images and alone. Prints the
seconds for one image, the fastest of the rounds, and how many times as long the others take.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

# Before anything starts threads.
os.environ["OMP_NUM_THREADS"] = "1"
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import numpy as np  # noqa: E402
import torch  # noqa: E402
from transformers import (  # noqa: E402
    BlipConfig,
    BlipForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTModel,
)

import captioner  # noqa: E402

WORDS, BEAM, TOGETHER = 10, 3, 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--weights", help="checkpoint (default: the shipped one)")
    args = parser.parse_args()

    torch.set_num_threads(1)
    alone, together = captioner_writers(args.weights)
    writers = {"captioner alone": (alone, 1), f"captioner in a batch of {TOGETHER}": (together, TOGETHER)}
    writers |= {"BLIP-base": (blip(), 1), "ViT-GPT2": (vit_gpt2(), 1)}
    seconds = {name: float("inf") for name in writers}
    for number in range(args.rounds + 1):
        for name, (write, images) in writers.items():
            start, used = time.perf_counter(), time.process_time()
            write()
            took, used = time.perf_counter() - start, time.process_time() - used
            assert used < 1.2 * took, f"{name}: ran on more than one processor"
            if number > 0:  # once untimed, to warm up
                seconds[name] = min(seconds[name], took / images)
    ours = list(seconds)[:2]
    for name, took in seconds.items():
        ratios = [f"{took / seconds[our]:.1f} x {our}" for our in ours if name not in ours]
        print(f"{name}: {took:.4f} s an image" + "".join(f", {ratio}" for ratio in ratios))


def captioner_writers(weights: str | None) -> tuple[Callable[[], object], Callable[[], object]]:
    model = captioner.load(weights)
    options = captioner.DecodingOptions(beam_size=BEAM, min_length=WORDS, max_length=WORDS)
    size = model.preprocessing.size
    pixels = list(np.random.default_rng(0).integers(0, 256, (TOGETHER, size, size, 3), dtype=np.uint8))
    return (
        lambda: model.caption(pixels[:1], options, attention=False),
        lambda: model.caption(pixels, options, attention=False),
    )


def blip() -> Callable[[], object]:
    config = BlipConfig(text_config={"num_attention_heads": 12}, vision_config={"image_size": 384})
    return generator(BlipForConditionalGeneration(config), 384)


def vit_gpt2() -> Callable[[], object]:
    encoder, decoder = ViTModel(ViTConfig()), GPT2LMHeadModel(GPT2Config(add_cross_attention=True, is_decoder=True))
    model = VisionEncoderDecoderModel(encoder=encoder, decoder=decoder)
    end = decoder.config.eos_token_id
    model.generation_config.update(decoder_start_token_id=end, eos_token_id=end, pad_token_id=end)
    return generator(model, 224)


def generator(model: BlipForConditionalGeneration | VisionEncoderDecoderModel, size: int) -> Callable[[], object]:
    model.eval()
    pixels = torch.rand(1, 3, size, size)
    settings = {"num_beams": BEAM, "min_new_tokens": WORDS, "max_new_tokens": WORDS, "do_sample": False}

    @torch.inference_mode()
    def write() -> torch.Tensor:
        return model.generate(pixel_values=pixels, **settings)

    count = write().shape[-1]
    assert WORDS <= count <= WORDS + 2, f"wrote {count} tokens, not {WORDS} and those of the start"
    return write


if __name__ == "__main__":
    main()
