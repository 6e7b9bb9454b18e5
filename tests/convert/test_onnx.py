"""ONNX files in onnxruntime, against torch."""

import collections
import dataclasses
import json

import numpy as np
import onnx
import onnxruntime
import pytest
import transformers
from heads import INPUTS, KINDS, LABELS, case
from onnxruntime.quantization import QuantType, quantize_dynamic

from bert_jax.config import InputError
from bert_jax.convert import onnx as ours


def session(file):
    return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])


def outputs(running, batch):
    found = running.run(None, {name: x.astype(np.int64) for name, x in batch.items()})
    return {output.name: value for output, value in zip(running.get_outputs(), found, strict=True)}


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_are_torchs_at_any_batch_and_length(kind, tmp_path):
    one = case(kind)
    ours.write(tmp_path, one.model, one.head, one.params)
    onnx.checker.check_model(tmp_path / "model.onnx", full_check=True)
    running = session(tmp_path / "model.onnx")
    assert [(x.name, x.type) for x in running.get_inputs()] == [(name, "tensor(int64)") for name in INPUTS]
    for size, length in [(1, 2), (3, 7), (2, 64), (1, 512)]:
        batch = one.batch(size, length)
        one.check(outputs(running, batch), batch)


def test_weights_have_the_names_and_values_of_torch(tmp_path):
    one = case("pretraining")
    ours.write(tmp_path, one.model, one.head, one.params)
    weights = {w.name: onnx.numpy_helper.to_array(w) for w in onnx.load(tmp_path / "model.onnx").graph.initializer}
    for name, value in one.torch.named_parameters():
        found = weights[name] if name in weights else weights[f"{name}.T"].T
        np.testing.assert_array_equal(found, value.detach().numpy(), err_msg=name)


def test_labels_are_in_the_metadata_and_in_config_json(tmp_path):
    one = case("classifier")
    ours.write(tmp_path, one.model, one.head, one.params)
    metadata = session(tmp_path / "model.onnx").get_modelmeta().custom_metadata_map
    assert tuple(json.loads(metadata["labels"])) == LABELS
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    assert tuple(config.id2label[i] for i in range(len(LABELS))) == LABELS and config.model_type == "bert"


# Products of weights in the two layers, in the head, with the table of word embeddings.
@pytest.mark.parametrize(
    ("kind", "products"), [("encoder", 13), ("pretraining", 16), ("classifier", 14), ("question_answering", 13)]
)
@pytest.mark.parametrize("per_channel", [False, True])
def test_each_product_of_weights_can_be_made_int8_as_the_file_is(kind, products, per_channel, tmp_path):
    """As in torch's own export; with the word embeddings, which the file has once, four times smaller."""
    one, how = case(kind), dict(weight_type=QuantType.QUInt8, per_channel=per_channel)
    ours.write(tmp_path, one.model, one.head, one.params)
    whole, int8 = tmp_path / "model.onnx", tmp_path / "int8.onnx"
    assert whole.stat().st_size < sum(p.nbytes for p in one.torch.parameters()) * 1.05
    quantize_dynamic(whole, int8, **how)
    kinds = collections.Counter(node.op_type for node in onnx.load(int8).graph.node)
    assert (kinds["MatMulInteger"], kinds["MatMul"]) == (products, 4)  # In float are those of attention, two a layer.
    assert int8.stat().st_size < whole.stat().st_size * 0.3
    batch = one.batch(3, 16)
    expected, found = one.expected(batch), outputs(session(int8), batch)
    for name, value in expected.items():
        assert np.corrcoef(found[name].ravel(), value.ravel())[0, 1] > 0.99, name


def test_weights_past_the_limit_of_a_file_lie_beside_it(tmp_path, monkeypatch):
    one = case("encoder")
    monkeypatch.setattr(ours, "LARGEST_FILE", 1 << 20)
    for _ in range(2):  # Written again, it is no larger.
        ours.write(tmp_path, one.model, one.head, one.params)
    weights = sum(parameter.nbytes for parameter in one.torch.parameters())
    assert (tmp_path / "model.onnx").stat().st_size < 1 << 18
    assert weights <= (tmp_path / "model.onnx.data").stat().st_size + (1 << 18) < weights * 1.1 + (1 << 18)
    onnx.checker.check_model(tmp_path / "model.onnx", full_check=True)
    batch = one.batch(2, 16)
    one.check(outputs(session(tmp_path / "model.onnx"), batch), batch)


def test_a_row_of_padding_only_is_finite(tmp_path):
    one = case("encoder")
    ours.write(tmp_path, one.model, one.head, one.params)
    batch = one.batch(2, 16)
    batch["attention_mask"][1] = 0
    assert all(np.isfinite(value).all() for value in outputs(session(tmp_path / "model.onnx"), batch).values())


def test_an_epsilon_of_its_own(tmp_path):
    """Large enough to be seen."""
    one = case("encoder")
    ours.write(tmp_path, dataclasses.replace(one.model, layer_norm_eps=0.1), one.head, one.params)
    batch = one.batch(2, 16)
    found = outputs(session(tmp_path / "model.onnx"), batch)["last_hidden_state"]
    assert np.abs(found - one.expected(batch)["last_hidden_state"]).max() > 1e-2


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    one = case("encoder")
    with pytest.raises(InputError, match=r"pip install 'bert-jax\[onnx\]'"):
        ours.write(tmp_path / "out", one.model, one.head, one.params)
    assert not (tmp_path / "out").exists()
