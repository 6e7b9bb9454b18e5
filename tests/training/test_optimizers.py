"""Every optimizer and schedule that has a name: against optax, torch and transformers, and its state on meshes."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
import transformers
from conftest import small_config, with_devices

from bert_jax.cli.main import main
from bert_jax.config import InputError, OptimizerConfig
from bert_jax.devices import sharding
from bert_jax.models.encoder import LOGICAL_AXES
from bert_jax.runs.pretraining import pretrain
from bert_jax.training.optimizer import SCHEDULES, make_optimizer, schedule
from bert_jax.training.optimizers import OPTIMIZERS

CONFIG = OptimizerConfig(learning_rate=0.05, warmup_steps=0, schedule="constant", clip_norm=1e9, weight_decay=0.1)
SHAPES = {
    "layer/dense/kernel": (2, 128, 160),
    "layer/dense/bias": (2, 160),
    "layer/LayerNorm/scale": (2, 160),
    "embeddings/word_embeddings/embedding": (150, 128),
    "embeddings/LayerNorm/bias": (128,),
}


def random(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Parameters or gradients by their paths; the second layer's are ten times the first's."""
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    for name, array in arrays.items():
        if "layer" in name:
            array[1] *= 10
    return arrays


def apart(arrays: dict) -> dict[str, np.ndarray]:
    """The layers' as parameters of their own."""
    return {f"{name}/{i}": x[i] for name, x in arrays.items() if "layer" in name for i in range(2)} | {
        name: x for name, x in arrays.items() if "layer" not in name
    }


def steps_of(config: OptimizerConfig, count: int = 4) -> list[dict]:
    """Our parameters after each step, the first ones before all."""
    rng, optimizer = np.random.default_rng(0), make_optimizer(config)
    update = jax.jit(optimizer.update)
    params = flax.traverse_util.unflatten_dict(random(rng), sep="/")
    state, after = optimizer.init(params), [params]
    for _ in range(count):
        grads = flax.traverse_util.unflatten_dict(random(rng), sep="/")
        updates, state = update(grads, state, params, schedule=schedule(config, 100))
        params = jax.tree.map(jnp.add, params, updates)
        after.append(params)
    return [apart(flax.traverse_util.flatten_dict(tree, sep="/")) for tree in after]


def decay(tree):
    return {name: "kernel" in name or "embedding" in name.split("/")[-1] for name in tree}


def kinds(tree):
    return {name: "muon" if "kernel" in name else "adam" for name in tree}


C = CONFIG
ADAMW = optax.adamw(C.learning_rate, C.b1, C.b2, C.eps, weight_decay=0.1, mask=decay)
MUON = optax.contrib.muon(C.learning_rate, weight_decay=0.1, consistent_rms=0.2)
# Adafactor's decay isn't scaled by the learning rate in optax.
THEIRS = {
    "adamw": ADAMW,
    "lamb": optax.lamb(C.learning_rate, C.b1, C.b2, C.eps, weight_decay=0.1, mask=decay),
    "lion": optax.lion(C.learning_rate, C.b1, C.b2, weight_decay=0.1, mask=decay),
    "adafactor": optax.adafactor(C.learning_rate, weight_decay_rate=0.1 * C.learning_rate, weight_decay_mask=decay),
    "muon": optax.partition({"muon": MUON, "adam": ADAMW}, kinds),
}


def test_each_layer_is_updated_as_by_optax_on_its_own():
    assert THEIRS.keys() == OPTIMIZERS.keys()
    for name, optimizer in THEIRS.items():
        ours, rng = steps_of(dataclasses.replace(CONFIG, name=name)), np.random.default_rng(0)
        theirs = apart(random(rng))
        state, update = optimizer.init(theirs), jax.jit(optimizer.update)
        for step, found in enumerate(ours[1:]):
            updates, state = update(apart(random(rng)), state, theirs)
            theirs = optax.apply_updates(theirs, updates)
            for path, expected in theirs.items():
                if name != "lamb" or decay(theirs)[path]:  # optax has a ratio for biases too, LAMB's authors haven't.
                    where = f"{name}: {path} at step {step}"
                    np.testing.assert_allclose(found[path], expected, rtol=2e-5, atol=2e-5, err_msg=where)


@pytest.mark.parametrize("name", ["muon", "adafactor"])
def test_each_layer_is_updated_as_by_torch_on_its_own(name):
    config = dataclasses.replace(CONFIG, name=name, weight_decay=0.0)
    # Muon there has bfloat16, and no correction of the momentum's bias, which in the first step changes nothing.
    count, tolerance = (1, 0.02) if name == "muon" else (4, 1e-4)
    ours, rng = steps_of(config, count), np.random.default_rng(0)
    start = {path: x for path, x in apart(random(rng)).items() if "kernel" in path}
    kernels = {path: torch.tensor(x.T.copy(), requires_grad=True) for path, x in start.items()}
    if name == "muon":
        optimizer = torch.optim.Muon(kernels.values(), lr=0.05, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    else:
        optimizer = transformers.Adafactor(
            kernels.values(), lr=0.05, relative_step=False, scale_parameter=True, warmup_init=False
        )
    for step in range(count):
        grads = apart(random(rng))
        before = {path: x.detach().numpy().T.copy() for path, x in kernels.items()}
        for path, x in kernels.items():
            x.grad = torch.tensor(grads[path]).T.contiguous()
        optimizer.step()
        for path, x in kernels.items():
            expected, found = x.detach().numpy().T - before[path], np.asarray(ours[step + 1][path] - ours[step][path])
            assert np.linalg.norm(found - expected) < tolerance * np.linalg.norm(expected), (path, step)


@pytest.mark.parametrize("warmup", [0, 4])
def test_schedules_are_those_of_transformers(warmup):
    theirs = {
        "linear": lambda o: transformers.get_linear_schedule_with_warmup(o, warmup, 20),
        "cosine": lambda o: transformers.get_cosine_schedule_with_warmup(o, warmup, 20),
        "constant": lambda o: transformers.get_constant_schedule_with_warmup(o, warmup),
        "inverse_sqrt": lambda o: transformers.get_inverse_sqrt_schedule(o, warmup),
    }
    assert theirs.keys() == SCHEDULES.keys()
    for kind, make in theirs.items():
        config = OptimizerConfig(learning_rate=0.1, warmup_steps=warmup, schedule=kind, decay="from_warmup")
        ours = schedule(config, 20)
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
        there = make(optimizer)
        for step in range(20):
            assert float(ours(step)) == pytest.approx(there.get_last_lr()[0], rel=1e-5), (kind, step)
            optimizer.step()
            there.step()


def test_names_that_there_are_not(corpus, tmp_path, capsys):
    for config, message in (
        (OptimizerConfig("muom"), "optimizer.name: is 'muom'; did you mean 'muon'?"),
        (OptimizerConfig("zzz"), "optimizer.name: is 'zzz'; there are adamw, lamb, lion, adafactor, muon"),
        (OptimizerConfig(schedule="cosin"), "optimizer.schedule: is 'cosin'; did you mean 'cosine'?"),
    ):
        with pytest.raises(InputError) as error:
            pretrain(small_config(corpus, optimizer=dataclasses.replace(config, warmup_steps=5)), tmp_path / "run")
        assert str(error.value) == message
    arguments = ["prepare", "--config", "pretrain_tiny", "--output", str(tmp_path / "examples")]
    assert main([*arguments, "--optimizer.name", "lamd"]) == 2
    assert "optimizer.name: is 'lamd'; did you mean 'lamb'?" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_help_names_them_all(capsys):
    with pytest.raises(SystemExit):
        main(["pretrain", "--help"])
    text = capsys.readouterr().out
    assert all(name in text for name in (*OPTIMIZERS, *SCHEDULES))


def test_what_is_left_of_a_parameter_lies_as_the_rest_of_it():
    mesh = jax.sharding.AbstractMesh((2, 2, 2), sharding.AXES)
    wide, square = "layer/intermediate/dense/kernel", "layer/attention/output/dense/kernel"
    params = {wide: (2, 64, 96), square: (2, 64, 64)}
    all_of_wide, all_of_square = (None, "fsdp", "tensor"), (None, "tensor", "fsdp")
    kept = {  # A shape of it -> how that lies.
        wide: {(2, 64, 96): all_of_wide, (2, 64): (None, "fsdp"), (2, 96): (None, "tensor"), (96,): ("tensor",)},
        square: {(2, 64, 64): all_of_square, (2, 64): (), (2, 1): (), (1,): (), (): (), (7, 2): ()},
    }

    def tree(shapes: dict):
        arrays = {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes.items()}
        return flax.traverse_util.unflatten_dict(arrays, sep="/")

    axes = (*LOGICAL_AXES, (r"(bias|scale)", ("hidden",)))
    for name, cases in kept.items():
        for shape, spec in cases.items():
            state = {"params": tree(params), "opt_state": [tree({name: shape, "other": (64, 96)})], "step": np.int32(0)}
            found = flax.traverse_util.flatten_dict(
                sharding.state_shardings(mesh, state, axes)["opt_state"][0], sep="/"
            )
            assert found[name].spec == jax.sharding.PartitionSpec(*spec), (name, shape)
            assert found["other"].spec == jax.sharding.PartitionSpec()
    with pytest.raises(ValueError, match="no entry of the logical axes fits unheard/of"):
        sharding.state_shardings(mesh, {"params": tree({"unheard/of": (2,)})}, axes)


# Trains with every optimizer on meshes of eight simulated devices, and restores the first one's checkpoint on each.
ON_EIGHT_DEVICES = """
import sys
import jax
import jax.numpy as jnp
import numpy as np
import optax
from workdirs import assert_same_state, by_path
from bert_jax.config import ExamplesConfig, MeshConfig, ModelConfig, OptimizerConfig, Phase, PretrainConfig
from bert_jax.devices.sharding import make_mesh
from bert_jax.models import losses
from bert_jax.training.checkpoints import Checkpoints
from bert_jax.training.optimizer import schedule
from bert_jax.training.optimizers import OPTIMIZERS
from bert_jax.training.program import batch_shapes, make_program, pretraining_setup


def toy(config):  # Its state: a mean for each row, a number for each parameter, and an array that is nobody's.
    def init(params):
        rows, norms = jax.tree.map(lambda x: x[..., 0] * 0, params), jax.tree.map(lambda x: jnp.zeros(()), params)
        return rows, norms, jnp.zeros(7)

    def update(updates, state, params=None):
        rows = jax.tree.map(lambda x, row: 0.9 * row + 0.1 * jnp.mean(x**2, -1), updates, state[0])
        updates = jax.tree.map(lambda x, row: x / (jnp.sqrt(row)[..., None] + 1e-3), updates, rows)
        return updates, (rows, jax.tree.map(lambda x: jnp.max(jnp.abs(x)), updates), state[2] + 1)

    return [optax.GradientTransformation(init, update)]


OPTIMIZERS["toy"] = toy
folder, names, meshes = sys.argv[1], sys.argv[2].split(), eval(sys.argv[3])
model = ModelConfig(
    vocab_size=256,
    hidden_size=128,
    num_hidden_layers=1,
    num_attention_heads=8,
    intermediate_size=256,
    max_position_embeddings=32,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
phase = Phase(sequence_length=16, batch_size=8, steps=100, max_predictions=4)


def batch_of(program, config):
    rng = np.random.default_rng(0)
    shapes = batch_shapes(config, phase, program.rows)
    most = {"attention_mask": 1, "masked_lm_weights": 1, "token_type_ids": 0, "next_sentence_labels": 0}
    high = {**dict.fromkeys(shapes, 15), **most}
    batch = {n: rng.integers(high[n] == 1, high[n] + 1, x.shape).astype(x.dtype) for n, x in shapes.items()}
    return jax.device_put(batch, program.rows)


def train(program, config, state, steps=3):
    found = []
    for _ in range(steps):
        rate = schedule(config.optimizer, 100)
        state, sums = program.train_step(state, batch_of(program, config), np.int32(0), rate, ())
        found.append(float(losses.means(sums)["loss"]))
    return state, found


for name in names:
    optimizer = OptimizerConfig(name, learning_rate=1e-3, warmup_steps=2, schedule="cosine")
    config = PretrainConfig(
        model=model, examples=ExamplesConfig("full_sentences"), optimizer=optimizer, phases=(phase,)
    )
    checkpoints, expected = Checkpoints(f"{folder}/{name}", writing=True), None
    for sizes in meshes:
        program = make_program(*pretraining_setup(config), make_mesh(MeshConfig(*sizes)))
        state, before = train(program, config, program.init(np.int32(0)))
        if expected is None:
            checkpoints.save(3, state, {}, {})
            checkpoints.wait()
            saved = by_path(state)
        restored = checkpoints.restore(3, program.state)
        assert_same_state(by_path(restored), saved)
        assert jax.tree.map(lambda x: x.sharding, restored) == program.shardings
        state, after = train(program, config, state)
        resumed, again = train(program, config, restored)
        if expected is None:
            assert_same_state(by_path(state), by_path(resumed))
            expected = before + after
        for losses_there in (before + after, before + again):
            np.testing.assert_allclose(losses_there, expected, rtol=0, atol=1e-4, err_msg=f"{name} {sizes}")
    assert expected[-1] < expected[0] - 0.01, (name, expected)
    checkpoints.close()
"""


# The toy's state is of shapes as Adafactor's is.
SOME = {"muon", "toy"}
OTHERS = OPTIMIZERS.keys() - {"adamw", *SOME}


@pytest.mark.parametrize(
    "names",
    [SOME, pytest.param(OTHERS, marks=pytest.mark.long)],
    ids=["some", "others"],
)
def test_every_optimizer_on_any_mesh(tmp_path, names):
    """One from outside too; AdamW is in test_meshes. A checkpoint is restored on each mesh, and a run goes on from it
    bit for bit."""
    environment = with_devices(8) | {"PYTHONPATH": str(Path(__file__).parents[1])}
    arguments = [str(tmp_path), " ".join(sorted(names)), repr([(8, 1, 1), (2, 2, 2)])]
    subprocess.run([sys.executable, "-c", ON_EIGHT_DEVICES, *arguments], env=environment, check=True)
