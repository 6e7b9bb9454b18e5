"""bfloat16 on a CPU: products of bfloat16 numbers, added up in float32; everything else in float32."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from workdirs import rows

import bert_jax
from bert_jax.config import ModelConfig
from bert_jax.devices import precision
from bert_jax.models.layers import bfloat16_product
from bert_jax.runs.pretraining import pretrain

ASKED = precision._has_bfloat16.__wrapped__


@pytest.fixture(autouse=True)
def instructions(monkeypatch):
    """Whatever this machine's CPU has: XLA computes them on any."""
    monkeypatch.setattr(precision, "_has_bfloat16", lambda: True)
    monkeypatch.setattr(precision, "_say_that_it_is_float32", precision._say_that_it_is_float32.__wrapped__)


@pytest.mark.parametrize("axis", [0, 1])
def test_products_and_their_gradients_are_those_of_rounded_factors(axis):
    """Against torch: factors rounded to its bfloat16, multiplied in float64."""
    rng = np.random.default_rng(0)
    x, weights, gradient = (
        rng.normal(size=shape).astype(np.float32)
        for shape in ((3, 5, 40), (40, 24) if axis == 0 else (24, 40), (3, 5, 24))
    )
    a, w, g = (torch.tensor(array).bfloat16().double() for array in (x, weights, gradient))
    w = w if axis == 0 else w.T
    of_weights = torch.einsum("bsk,bsn->kn", a, g)
    found, pull = jax.vjp(lambda x, weights: bfloat16_product(x, weights, axis), x, weights)
    for ours, theirs in zip(
        (found, *pull(jnp.asarray(gradient))), (a @ w, g @ w.T, of_weights if axis == 0 else of_weights.T), strict=True
    ):
        assert ours.dtype == jnp.float32
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_model_that_is_loaded_in_bfloat16(config, examples, tmp_path):
    pretrain(config, tmp_path / "run", examples.folder)
    exact, rounded = bert_jax.load(tmp_path / "run"), bert_jax.load(tmp_path / "run", dtype="bfloat16")
    assert (exact.config.dtype, rounded.config.dtype) == ("float32", "bfloat16")
    kernels = jax.tree.leaves(rounded.params["bert"]["encoder"]["layer"]["attention"]["self"]["query"])
    assert {str(x.dtype) for x in kernels} == {"bfloat16", "float32"}  # The kernel, and the bias.
    texts = ["the dog [MASK] a broken clock.", "the old king"]
    expected, found = (bert.encode(texts) for bert in (exact, rounded))
    assert 0 < np.abs(found - expected).max() < 0.02 * np.abs(expected).max()
    assert [g.token for g in rounded.fill_mask(texts[0])[0]][:1] == [g.token for g in exact.fill_mask(texts[0])[0]][:1]


def test_a_run_in_bfloat16_learns_as_in_float32(config, examples, tmp_path):
    losses = []
    for dtype in ("float32", "bfloat16"):
        changed = dataclasses.replace(config, model=dataclasses.replace(config.model, dtype=dtype))
        pretrain(changed, tmp_path / dtype, examples.folder)
        losses.append([row["loss"] for row in rows(tmp_path / dtype)])
    difference = np.abs(np.subtract(*losses))
    assert 0 < difference.max() < 0.02 and losses[1][-1] < losses[1][0] - 0.1


def test_only_a_cpu_with_such_instructions_uses_them(monkeypatch, capsys):
    model = ModelConfig(dtype="bfloat16")
    assert precision.computed(model, "tpu") == model
    assert precision.computed(model, "cpu") == dataclasses.replace(model, dtype="bfloat16_products")
    assert precision.computed(ModelConfig(), "cpu") == ModelConfig()
    monkeypatch.setattr(precision, "_has_bfloat16", lambda: False)
    assert precision.computed(model, "cpu").dtype == "float32"
    assert "bfloat16: this CPU has no instructions" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("cpu", "has"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16 avx512_vnni\n", True),
        ("flags\t\t: fpu avx512f amx_bf16 amx_tile\n", True),
        ("Features\t: fp asimd bf16\n", True),
        ("flags\t\t: fpu avx2 avx512f avx512_vnni\n", False),
        (None, False),  # As on macOS.
    ],
)
def test_what_linux_says_of_a_cpu(monkeypatch, tmp_path, cpu, has):
    if cpu is not None:
        (tmp_path / "cpuinfo").write_text(cpu)
    monkeypatch.setattr(precision, "Path", lambda name: tmp_path / "cpuinfo")
    assert ASKED() == has
