"""StableHLO run by JAX in a process that can't import bert_jax, against torch."""

import subprocess
import sys

import numpy as np
import pytest
import transformers
from heads import KINDS, LABELS, case
from jax import export
from safetensors.numpy import load_file

from bert_jax.convert import stablehlo

# As in the README, for each folder. Neither bert_jax nor flax can be imported, from wherever they are installed.
ALONE = """
import sys
from pathlib import Path

sys.modules["bert_jax"] = sys.modules["flax"] = None
import jax.export
import numpy as np
from safetensors.flax import load_file

for folder in map(Path, sys.argv[1:]):
    bert = jax.export.deserialize((folder / "model.stablehlo").read_bytes()).call
    weights = load_file(folder / "weights.safetensors")
    for file in folder.glob("batch*.npz"):
        batch = np.load(file)
        found = bert(weights, batch["input_ids"], batch["token_type_ids"], batch["attention_mask"])
        np.savez(file.with_name(f"of_{file.name}"), **found)
"""
SHAPES = [(1, 5), (3, 64)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder for each kind of head, with the program and batches of `SHAPES`, and what came of them alone."""
    folder = tmp_path_factory.mktemp("stablehlo")
    for kind in KINDS:
        one = case(kind)
        stablehlo.write(folder / kind, one.model, one.head, one.params)
        for i, shape in enumerate(SHAPES):
            np.savez(folder / kind / f"batch{i}.npz", **one.batch(*shape))
    subprocess.run([sys.executable, "-I", "-c", ALONE, *(str(folder / kind) for kind in KINDS)], check=True)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_without_bert_jax_are_torchs_at_any_batch_and_length(kind, folder):
    for i, shape in enumerate(SHAPES):
        case(kind).check(dict(np.load(folder / kind / f"of_batch{i}.npz")), case(kind).batch(*shape))


def test_labels_are_in_config_json(folder):
    config = transformers.AutoConfig.from_pretrained(folder / "classifier")
    assert tuple(config.id2label[i] for i in range(len(LABELS))) == LABELS and config.model_type == "bert"


@pytest.fixture(scope="module")
def program(folder):
    return export.deserialize((folder / "pretraining" / "model.stablehlo").read_bytes())


def test_it_is_small_and_lowered_for_all_platforms(program):
    assert program.platforms == ("cpu", "cuda", "tpu")
    assert len(program.serialize()) < 100_000


def test_products_are_float32_on_every_platform(program):
    products = [line for line in program.mlir_module().splitlines() if "stablehlo.dot_general" in line]
    assert len(products) > 8 and all("precision = [HIGHEST, HIGHEST]" in line for line in products)


def test_a_text_longer_than_the_model_reads_is_refused(program, folder):
    """JAX would take the last position again."""
    weights = load_file(folder / "pretraining" / "weights.safetensors")
    for length, fits in ((512, True), (513, False)):
        ids = np.zeros((1, length), np.int32)
        if fits:
            program.call(weights, ids, ids, ids)
        else:
            with pytest.raises(ValueError, match="shapes"):
                program.call(weights, ids, ids, ids)
