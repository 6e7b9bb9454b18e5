"""Schedules, AdamW and LAMB: against their authors' code, recorded, and the formulas in numpy."""

import dataclasses
from pathlib import Path

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.config import OptimizerConfig
from bert_jax.training.optimizer import make_optimizer, schedule

CONFIG = OptimizerConfig(learning_rate=0.1, warmup_steps=4, clip_norm=1e9)


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        ("from_zero", [0, 0.025, 0.05, 0.075, 0.06, 0.05, 0.04, 0.03, 0.02, 0.01, 0]),
        ("from_warmup", [0, 0.025, 0.05, 0.075, 0.1, 0.1 * 5 / 6, 0.1 * 4 / 6, 0.05, 0.1 * 2 / 6, 0.1 / 6, 0]),
    ],
)
def test_schedule(decay, expected):
    rate = schedule(dataclasses.replace(CONFIG, decay=decay), 10)
    np.testing.assert_allclose([float(rate(step)) for step in range(11)], expected, atol=1e-8)


# Twelve steps of `create_optimizer` of google-research/bert (eedf571) and, for LAMB, google-research/albert (b772393),
# unmodified, on TensorFlow 2.21's compat.v1: the rate is 0.05, warmed up over 4; a third of the gradients is clipped.
RECORDED = np.load(Path(__file__).parents[1] / "recorded/optimizers.npz")


def in_our_names(part: str, step: int | None = None) -> dict:
    """Recorded parameters or gradients as a tree of ours."""

    def array(name: str) -> np.ndarray:
        whole = RECORDED[f"{part}/bert/{name}"]
        return whole if step is None else whole[step]

    tree = {
        f"encoder/layer/intermediate/dense/{name}": np.stack(
            [array(f"encoder/layer_{i}/intermediate/dense/{name}") for i in (0, 1)]
        )
        for name in ("kernel", "bias")
    }
    tree |= {
        f"embeddings/LayerNorm/{ours}": array(f"embeddings/LayerNorm/{theirs}")
        for ours, theirs in (("scale", "gamma"), ("bias", "beta"))
    }
    tree["embeddings/word_embeddings/embedding"] = array("embeddings/word_embeddings")
    return flax.traverse_util.unflatten_dict(tree, sep="/")


@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_steps_are_those_of_the_original(name):
    config = OptimizerConfig(name, learning_rate=0.05, warmup_steps=4, bias_correction=False)
    optimizer, rate = make_optimizer(config), schedule(config, 12)
    ours = in_our_names("start")
    state = optimizer.init(ours)
    for step in range(12):
        assert float(rate(step)) == pytest.approx(RECORDED[f"{name}/rates"][step], rel=1e-6)
        updates, state = optimizer.update(in_our_names("gradients", step), state, ours, schedule=rate)
        ours = jax.tree.map(jnp.add, ours, updates)
        for key, value in flat(in_our_names(name, step)).items():
            np.testing.assert_allclose(flat(ours)[key], value, rtol=1e-6, atol=1e-6, err_msg=f"{key} at {step}")


def params(rng):
    """A product of two stacked layers, its biases, and a table."""
    layer = {"dense": {"kernel": rng.normal(size=(2, 3, 4)), "bias": rng.normal(size=(2, 4))}}
    tree = {"encoder": {"layer": layer}, "embeddings": {"word_embeddings": {"embedding": rng.normal(size=(5, 3))}}}
    return jax.tree.map(lambda x: x.astype(np.float32), tree)


def flat(tree):
    return {jax.tree_util.keystr(path): np.array(leaf, np.float64) for path, leaf in jax.tree.leaves_with_path(tree)}


@pytest.mark.parametrize("bias_correction", [False, True])
@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_updates(name, bias_correction):
    config = dataclasses.replace(CONFIG, name=name, bias_correction=bias_correction, weight_decay=0.1)
    rng = np.random.default_rng(0)
    ours = params(rng)
    optimizer = make_optimizer(config)
    state = optimizer.init(ours)
    theirs = flat(ours)
    m, v = ({k: np.zeros_like(x) for k, x in theirs.items()} for _ in range(2))
    for step in range(6):
        grads = params(rng)
        updates, state = optimizer.update(grads, state, ours, schedule=schedule(config, 10))
        ours = jax.tree.map(jnp.add, ours, updates)
        for key, g in flat(grads).items():
            m[key] = 0.9 * m[key] + 0.1 * g
            v[key] = 0.999 * v[key] + 0.001 * g**2
            c1, c2 = (1 - 0.9 ** (step + 1), 1 - 0.999 ** (step + 1)) if bias_correction else (1, 1)
            update = (m[key] / c1) / (np.sqrt(v[key] / c2) + 1e-6) + 0.1 * theirs[key] * ("bias" not in key)
            if name == "lamb" and "bias" not in key:
                # The two layers are two parameters, each with its own ratio.
                axes = tuple(range(int("layer" in key), g.ndim))
                norm = [np.sqrt((x**2).sum(axes, keepdims=True)) for x in (theirs[key], update)]
                update = update * norm[0] / norm[1]
            theirs[key] = theirs[key] - float(schedule(config, 10)(step)) * update
    for key, value in flat(ours).items():
        np.testing.assert_allclose(value, theirs[key], rtol=2e-4, atol=1e-5)


def test_gradients_are_clipped_by_their_global_norm():
    config = dataclasses.replace(CONFIG, clip_norm=0.5)
    rng = np.random.default_rng(0)
    start, grads = params(rng), params(rng)
    optimizer = make_optimizer(config)
    _, state = optimizer.update(grads, optimizer.init(start), start, schedule=schedule(config, 10))
    norm = np.sqrt(sum((g**2).sum() for g in flat(grads).values()))
    first_moment = flat(state.inner_state[1].mu)
    for key, g in flat(grads).items():
        np.testing.assert_allclose(first_moment[key], 0.1 * g * 0.5 / norm, rtol=1e-4)


def test_an_update_that_is_not_finite_is_skipped_and_counted():
    start = params(np.random.default_rng(0))
    optimizer = make_optimizer(CONFIG)
    bad = jax.tree.map(lambda x: x * np.nan, start)
    updates, state = optimizer.update(bad, optimizer.init(start), start, schedule=schedule(CONFIG, 10))
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(updates))
    assert int(state.notfinite_count) == int(state.total_notfinite) == 1
    _, state = optimizer.update(start, state, start, schedule=schedule(CONFIG, 10))
    assert (int(state.notfinite_count), int(state.total_notfinite)) == (0, 1)
