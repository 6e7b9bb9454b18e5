"""Texts on a mesh of several devices and processes: the results of one device."""

import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import texts_on_mesh
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
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
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
    with pytest.raises(InputError, match="text 1: 60 tokens, the model reads 48"):
        bert.logits_of([text, Feature([5] * 60, [0] * 60, None, 0)])
    with pytest.raises(InputError, match="input_ids: from 0 to 15, the model has 0 to 14"):
        bert.logits_of([text, Feature([2, 15, 3], [0] * 3, None, 0)])
