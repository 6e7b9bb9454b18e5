"""Backends of attention: one from outside, the kernel for TPUs, and what they don't take."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import guests.attention  # noqa: F401  # It adds one.
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pallas_tpu

from bert_jax.config import HeadConfig, InputError, ModelConfig, files
from bert_jax.convert import origin as origins
from bert_jax.convert import pretrained
from bert_jax.devices import sharding
from bert_jax.models import attention, init_params, make_model, tpu_fused

MODEL = ModelConfig(
    vocab_size=64,
    hidden_size=32,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=32,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
ALONE = HeadConfig("encoder", pooler=False)
# Two rows, the first with padding; and the texts in them.
MASK = np.arange(24) < np.array([[17], [24]])
TEXTS = np.where(MASK, 1 + np.arange(24) // 10, 0)


@pytest.fixture(scope="module")
def params() -> dict:
    return jax.jit(lambda: init_params(make_model(MODEL, ALONE), 0))()


@pytest.mark.parametrize("packed", [False, True])
def test_a_backend_from_outside_gives_what_the_plain_one_does(params, packed):
    ids = np.random.default_rng(0).integers(5, 64, MASK.shape)
    more = dict(position_ids=np.arange(24)[None] % 10 * MASK, sequence_ids=TEXTS) if packed else {}

    def sums_and_gradients(backend):
        model = make_model(dataclasses.replace(MODEL, attention=backend), ALONE)

        def sums(params):
            hidden = model.apply({"params": params}, ids, 0 * ids, MASK.astype(np.int32), **more)[0]
            return jnp.sum(jnp.sin(hidden) * MASK[..., None]), hidden[MASK]

        return jax.jit(jax.value_and_grad(sums, has_aux=True))(params)

    expected, found = jax.tree.leaves(sums_and_gradients("plain")), jax.tree.leaves(sums_and_gradients("jax"))
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def check_kernel(heads: int, size: int, length: int, rate: float) -> None:
    """Whether the kernel for TPUs has the outputs and gradients of the plain backend, dropout included."""
    query, key, value = np.random.default_rng(0).normal(size=(3, 2, heads, length, size)).astype(np.float32)
    mask = np.arange(length) < np.array([[17], [length]])
    ids = attention.segment_ids(mask, np.where(mask, 1 + np.arange(length) // 10, 0))
    config = dataclasses.replace(MODEL, attention_probs_dropout_prob=rate)
    dropout_key = jax.random.key(1) if rate else None

    def outputs_and_gradients(backend):
        def total(*inputs):
            out = attention.ATTENTION[backend].compute(*inputs, ids, dropout_key, config)
            out = jnp.where(mask[..., None, None], out, 0)
            return jnp.sum(jnp.sin(out)), out

        return jax.jit(jax.value_and_grad(total, (0, 1, 2), has_aux=True))(query, key, value)

    expected = outputs_and_gradients("plain")
    with pallas_tpu.force_tpu_interpret_mode():
        found = outputs_and_gradients("tpu_fused")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), expected, found)


@pytest.mark.parametrize(
    ("heads", "size", "length", "rate", "blocks"),
    [(1, 32, 24, 0.0, 1), (4, 32, 24, 0.1, 1), (3, 64, 30, 0.1, 3)],
)
def test_the_kernel_for_tpus_gives_what_the_plain_one_does(monkeypatch, heads, size, length, rate, blocks):
    monkeypatch.setattr(tpu_fused, "MOST_SCORES", length**2 // blocks)
    check_kernel(heads, size, length, rate)


def test_the_kernel_for_tpus_on_a_mesh():
    """It drops the same probabilities where each device has a part of the rows and of the heads."""
    program = """
import jax
from models.test_attention import check_kernel
from bert_jax.config import MeshConfig
from bert_jax.devices.sharding import make_mesh
with jax.set_mesh(make_mesh(MeshConfig(data=2, fsdp=1, tensor=2))):
    check_kernel(4, 32, 24, 0.1)
"""
    flags = {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "PYTHONPATH": ":".join([str(Path(__file__).parents[1]), *sys.path]),
    }
    subprocess.run([sys.executable, "-c", program], env=os.environ | flags, check=True)


def refusal(length: int = 8, **changes) -> str:
    """In training."""
    model, ids = make_model(dataclasses.replace(MODEL, **changes), ALONE), np.ones((1, length), np.int32)
    rngs = {"dropout": jax.random.key(0)}
    params = jax.eval_shape(lambda: init_params(model, 0))
    with pytest.raises(InputError) as error:
        jax.eval_shape(lambda p: model.apply({"params": p}, ids, ids, ids, deterministic=False, rngs=rngs), params)
    return str(error.value)


def test_what_a_backend_does_not_take_is_named(monkeypatch):
    elsewhere = "model.attention: is tpu_fused, a kernel for TPUs, and this is a cpu; make it plain"
    assert refusal(attention="tpu_fused") == elsewhere
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    monkeypatch.setattr(tpu_fused, "MOST_ROW_BYTES", 7 * 128 * 4)
    longer = "model.attention: is tpu_fused, for rows of at most 7 tokens, not 8; make it plain"
    assert refusal(attention="tpu_fused") == longer
    monkeypatch.undo()
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    monkeypatch.setattr(attention, "MOST_SCORES", 63)
    monkeypatch.setattr(attention, "longest_row", lambda config: 99)
    odd = "model.attention: is tpu_fused, for long rows of a multiple of 8 tokens, not 9; make it plain"
    assert refusal(9, attention="tpu_fused") == odd
    monkeypatch.undo()
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((1, 1, 4), sharding.AXES)):
        odd = "model.attention: is tpu_fused, which can't split 2 heads over a mesh.tensor of 4; make it plain"
        assert refusal(attention="tpu_fused") == odd
    with pytest.raises(InputError, match=r"^model\.attention: is 'fused'; did you mean 'tpu_fused'\?$"):
        make_model(dataclasses.replace(MODEL, attention="fused"), ALONE)


def test_a_model_is_read_without_the_kernel_of_its_run():
    """It was trained on a TPU, and is used here."""
    model = dataclasses.replace(MODEL, attention="tpu_fused")
    origin = origins.to_dict(origins.Folder("somewhere"))
    about = {"model": files.to_dict(model), "head": files.to_dict(ALONE), "about": origin}
    read, _, _ = pretrained.read_about(SimpleNamespace(about=lambda step: about, folder=Path()), 0)
    assert read == MODEL
