"""The types of numbers that a model is computed in, for the devices it is computed on."""

import dataclasses
import functools
import sys
from pathlib import Path

import jax

from bert_jax.config import ModelConfig
from bert_jax.files.printable import say

# What Linux calls the instructions: AVX-512 BF16, AMX, and those of ARM.
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}


def computed(config: ModelConfig, platform: str) -> ModelConfig:
    """The config as it is computed on a platform (cpu, gpu or tpu).

    On a CPU, bfloat16 is bfloat16_products: other operations on bfloat16 numbers convert them first and are slower. A
    CPU without instructions for such products computes in float32, and says so.
    """
    if platform != "cpu" or config.dtype != "bfloat16":
        return config
    if _has_bfloat16():
        return dataclasses.replace(config, dtype="bfloat16_products")
    _say_that_it_is_float32()
    return dataclasses.replace(config, dtype="float32")


@functools.cache
def _has_bfloat16() -> bool:
    try:
        return not BFLOAT16_FLAGS.isdisjoint(Path("/proc/cpuinfo").read_text().split())
    except OSError:  # Another system than Linux.
        return False


@functools.cache
def _say_that_it_is_float32() -> None:
    lacks = "has no instructions for products of bfloat16 numbers (AVX-512 BF16 or AMX)"
    if jax.process_index() == 0:
        say(f"bfloat16: this CPU {lacks}, as far as Linux says; computed in float32", file=sys.stderr)
