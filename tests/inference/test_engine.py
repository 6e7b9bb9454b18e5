"""Texts on a mesh of several devices and processes: the results of one device."""

import socket
import subprocess
import sys

import numpy as np
import pytest
import texts_on_mesh
from conftest import with_devices
from test_inference import small

from bert_jax.config import InputError
from bert_jax.convert.origin import Folder
from bert_jax.convert.pretrained import Pretrained, save
from bert_jax.tasks.base import Feature


def test_two_processes_of_two_devices_have_the_results_of_one(tmp_path):
    berts = small(), small("sequence_classification", ("a", "b"))
    for number, bert in enumerate(berts):
        save(Pretrained(bert.config, bert.head, bert.tokenizer, bert.params, Folder("")), tmp_path / str(number))
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = str(probe.getsockname()[1])
    output = tmp_path / "results.npz"
    environment = with_devices(2)
    processes = []
    for process in ("0", "1"):
        command = [sys.executable, texts_on_mesh.__file__, port, process, tmp_path / "0", tmp_path / "1", output]
        processes.append(subprocess.Popen(command, env=environment))
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    for found, expected in zip(np.load(output).values(), texts_on_mesh.results(*berts), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_what_a_model_does_not_read_is_refused():
    bert = small("sequence_classification", ("a", "b"))
    text = texts_on_mesh.FEATURES[0]
    for longest in ({}, {"longest": 64}):
        with pytest.raises(InputError, match="text 1: 60 tokens, the model reads 48"):
            bert._engine.logits([text, Feature([5] * 60, [0] * 60, None, 0)], **longest)
    with pytest.raises(InputError, match="input_ids: from 0 to 15, the model has 0 to 14"):
        bert.logits_of([text, Feature([2, 15, 3], [0] * 3, None, 0)])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (([[2, 5, 3], [2, 3]],), "input_ids: its rows differ in length"),
        (([["the", "dog"]],), "input_ids: are of type <U3, must be whole numbers"),
        (([[2, 2**32 + 5, 3]],), "input_ids: from 2 to 4294967301, the model has 0 to 14"),
        (([[2, 5, 3]], [[0, 0.5, 0]]), "token_type_ids: are of type float64"),
        (([[2, 5, 3]], None, None, [[3]]), "masked_lm_positions: from 3 to 3, the texts have 0 to 2"),
        (([[2, 5, 3]], None, None, [1]), r"masked_lm_positions: are \(1,\), must be \[1, masks\]"),
    ],
)
def test_arrays_that_a_model_does_not_take_are_refused(inputs, message):
    with pytest.raises(InputError, match=message):
        small().apply(*inputs)


def test_results_hold_no_more_than_themselves():
    bert = small("sequence_classification", ("a", "b"))
    for logits in bert.logits_of(texts_on_mesh.FEATURES):
        assert logits.base is None
    assert bert([]).shape == (0, 2)


def test_half_a_character_is_named():
    bert = small()
    for ask in (bert.encode, bert.fill_mask, bert.tokenize):
        with pytest.raises(InputError, match=r"text 1: has half a character \(surrogate\) at 2"):
            ask(["the dog", "a \ud83d [MASK]"])
    with pytest.raises(InputError, match="top: is 0, must be at least 1"):
        bert.fill_mask("a [MASK]", top=0)
