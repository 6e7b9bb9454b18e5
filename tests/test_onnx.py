"""ONNX files in onnxruntime, against torch."""

import dataclasses
import json

import numpy as np
import onnx
import onnxruntime
import pytest
from heads import INPUTS, KINDS, LABELS, case

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
        np.testing.assert_array_equal(weights[name], value.detach().numpy(), err_msg=name)


def test_labels_are_in_the_metadata(tmp_path):
    one = case("classifier")
    ours.write(tmp_path, one.model, one.head, one.params)
    metadata = session(tmp_path / "model.onnx").get_modelmeta().custom_metadata_map
    assert tuple(json.loads(metadata["labels"])) == LABELS


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
