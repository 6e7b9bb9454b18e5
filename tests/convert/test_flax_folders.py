"""flax_model.msgpack, as the Flax models of transformers 4 were saved, against the torch models of the same weights.

Their names and shapes, by modeling_flax_pytorch_utils.py of transformers 4: dense weights are `kernel`, transposed;
those of embeddings `embedding`, of LayerNorm `scale`; the decoder of a masked-LM head is the embeddings.
"""

import json

import flax.serialization
import flax.traverse_util
import ml_dtypes
import numpy as np
import pytest
from heads import KINDS, assert_equal
from hf_folders import torch_folder
from safetensors.numpy import save_file

from bert_jax.config import InputError
from bert_jax.convert import pretrained


def in_flax(state) -> dict[str, np.ndarray]:
    """A torch model's weights by the names of Flax's."""
    arrays = {}
    for name, tensor in state.items():
        path, leaf = name.rsplit(".", 1)
        if path == "cls.predictions.decoder":
            continue
        if leaf == "weight":
            leaf = "scale" if "LayerNorm" in path else "embedding" if path.endswith("embeddings") else "kernel"
        array = tensor.numpy()
        arrays[f"{path}.{leaf}"] = np.ascontiguousarray(array.T if leaf == "kernel" else array)
    return arrays


def nested(arrays: dict[str, np.ndarray]) -> dict:
    return flax.traverse_util.unflatten_dict(arrays, sep=".")


def write(folder, arrays: dict[str, np.ndarray], name: str = "flax_model.msgpack") -> None:
    (folder / name).write_bytes(flax.serialization.to_bytes(nested(arrays)))


@pytest.mark.parametrize("kind", KINDS)
def test_every_head(kind, tmp_path):
    one, state = torch_folder(tmp_path / "hf", kind, weights=None)
    write(tmp_path / "hf", in_flax(state))
    found = pretrained.read(tmp_path / "hf")
    assert_equal(found.params, one.params)
    assert found.head.kind == one.head.kind and not found.report.missing and not found.report.unused


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision(dtype, tmp_path):
    _, state = torch_folder(tmp_path / "hf", "classifier", weights=None)
    arrays = {name: array.astype(dtype) for name, array in in_flax(state).items()}
    write(tmp_path / "hf", arrays)
    params = pretrained.read(tmp_path / "hf").params
    kernel = arrays["classifier.kernel"].astype(np.float32)
    np.testing.assert_array_equal(params["classifier"]["dense"]["kernel"], kernel, strict=True)


def sharded(folder, arrays):
    """As save_pretrained of transformers 4 with a max_shard_size: names in the index are joined by slashes."""
    names, weight_map = list(arrays), {}
    for i in (0, 1):
        file = f"flax_model-0000{i + 1}-of-00002.msgpack"
        write(folder, {name: arrays[name] for name in names[i::2]}, file)
        weight_map |= {name.replace(".", "/"): file for name in names[i::2]}
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "flax_model.msgpack.index.json").write_text(json.dumps(index))


def in_safetensors(folder, arrays):
    """As later ones with safe_serialization."""
    save_file(arrays, folder / "model.safetensors", metadata={"format": "flax"})


def train_state(folder, arrays):
    """As flax.training writes a state: moments beside the parameters, under the same names."""
    state = {"step": 3, "params": nested(arrays), "opt_state": {"0": {"mu": nested(arrays), "count": np.int32(3)}}}
    (folder / "flax_model.msgpack").write_bytes(flax.serialization.to_bytes(state))


def with_decoder(folder, arrays):
    """As saved where the output weights are the embeddings, but were written too."""
    embedding = arrays["bert.embeddings.word_embeddings.embedding"]
    write(folder, arrays | {"cls.predictions.decoder.kernel": np.ascontiguousarray(embedding.T)})


@pytest.mark.parametrize("form", [sharded, in_safetensors, train_state, with_decoder])
def test_other_forms(form, tmp_path):
    one, state = torch_folder(tmp_path / "hf", "pretraining", weights=None)
    form(tmp_path / "hf", in_flax(state))
    found = pretrained.read(tmp_path / "hf")
    assert_equal(found.params, one.params)
    assert not found.report.missing and not found.report.unused


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[: len(content) // 2], "flax_model.msgpack: cut off or damaged"),
        (lambda content: content + b"\0", "flax_model.msgpack: cut off or damaged"),
        (lambda content: flax.serialization.to_bytes({"step": 3}), "flax_model.msgpack: not a dict of arrays"),
        (lambda content: content.replace(b"float32", b"float64"), "flax_model.msgpack: cut off or damaged"),
    ],
)
def test_a_damaged_file_is_named(damage, message, tmp_path):
    _, state = torch_folder(tmp_path / "hf", "encoder", weights=None)
    write(tmp_path / "hf", in_flax(state))
    file = tmp_path / "hf/flax_model.msgpack"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(InputError, match=message):
        pretrained.read(tmp_path / "hf")
