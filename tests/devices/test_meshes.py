"""One run on any mesh: the losses and parameters of one device, checkpoints that fit all, parts of the right size."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from conftest import small_config, with_devices
from workdirs import assert_same_state, rows, saved_state, write_config

from bert_jax.config import VOCABULARY_MULTIPLE, InputError, MeshConfig, Phase, RunConfig, model_preset
from bert_jax.config.files import load_config
from bert_jax.data.prepare import prepare
from bert_jax.devices import sharding
from bert_jax.models.encoder import LOGICAL_AXES
from bert_jax.runs.pretraining import pretrain
from bert_jax.training import steps
from bert_jax.training.optimizer import make_optimizer

MESHES = [(8, 1, 1), (1, 8, 1), (2, 2, 2)]
ALL_MESHES = [*MESHES, (1, 1, 8), (4, 2, 1)]
STEPS = 20

# Runs the config on all meshes, with eight simulated devices, and restores the first one's checkpoint on each.
ON_EIGHT_DEVICES = """
import dataclasses, json, sys
import jax
import numpy as np
from workdirs import by_path
from bert_jax.config import MeshConfig
from bert_jax.config.files import load_config
from bert_jax.runs.pretraining import pretrain
from bert_jax.devices import sharding
from bert_jax.training import steps
from bert_jax.training.checkpoints import Checkpoints
from bert_jax.training.optimizer import make_optimizer

folder, examples, meshes, last = sys.argv[1], sys.argv[2], eval(sys.argv[3]), int(sys.argv[4])
for sizes in meshes:
    config = dataclasses.replace(load_config(f"{folder}/config.py"), mesh=MeshConfig(*sizes))
    workdir = f"{folder}/" + "x".join(map(str, sizes))
    pretrain(config, workdir, examples)
    mesh = sharding.make_mesh(config.mesh)
    checkpoints = Checkpoints(f"{folder}/8x1x1/checkpoints")
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, vocab_size=int(sys.argv[5])))
    model, optimizer = steps.make_model(config), make_optimizer(config.optimizer)
    shapes = jax.eval_shape(lambda: steps.init_state(model, optimizer, 0))
    shardings = sharding.state_shardings(mesh, shapes, model.logical_axes)
    like = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)
    state = checkpoints.restore(last, like)
    assert all(x.sharding == s for x, s in zip(jax.tree.leaves(state), jax.tree.leaves(shardings), strict=True))
    np.savez(workdir + "-restored.npz", **by_path(state))
    held = {p: [max(s.data.size for s in x.addressable_shards), x.size] for p, x in jax.tree.leaves_with_path(state)}
    with open(workdir + "-held.json", "w") as file:
        json.dump({sharding.path_name(path): sizes for path, sizes in held.items()}, file)
"""


@pytest.fixture(scope="module", params=[MESHES, pytest.param(ALL_MESHES, marks=pytest.mark.long)], ids=["some", "all"])
def runs(request, corpus, tmp_path_factory):
    """The same run, with dropout, on meshes, and on the one device of this process: its folder, and the meshes."""
    folder = tmp_path_factory.mktemp("meshes")
    config = small_config(
        corpus,
        model=dataclasses.replace(small_config(corpus).model, hidden_size=64, num_attention_heads=8),
        phases=(Phase(sequence_length=32, batch_size=8, steps=STEPS, max_predictions=5),),
        run=RunConfig(log_every=1, evaluate_every=STEPS, checkpoint_every=STEPS, workers=1),
    )
    examples = prepare(config, folder / "examples")
    write_config(folder / "config.py", config)
    pretrain(config, folder / "1x1x1", examples.folder)
    arguments = [str(folder), str(examples.folder), repr(request.param), str(STEPS), "200"]
    environment = with_devices(8) | {"PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run([sys.executable, "-c", ON_EIGHT_DEVICES, *arguments], env=environment, check=True)
    return folder, request.param


def of(folder, mesh):
    return folder / "x".join(map(str, mesh))


# Tests of the runs loop over the meshes: as cases of their own, other workers of pytest would make the runs again.


def test_any_mesh_gives_the_losses_and_parameters_of_one_device(runs):
    folder, meshes = runs
    one = of(folder, (1, 1, 1))
    expected, state = rows(one), saved_state(one, STEPS)
    for mesh in meshes:
        found, other = rows(of(folder, mesh)), saved_state(of(folder, mesh), STEPS)
        losses = [[row["loss"] for row in logged] for logged in (found, expected)]
        assert len(losses[0]) == STEPS
        np.testing.assert_allclose(*losses, rtol=0, atol=1e-5, err_msg=str(mesh))
        held_out = [logged[-1]["held_out_mlm_loss"] for logged in (found, expected)]
        np.testing.assert_allclose(*held_out, rtol=0, atol=1e-5, err_msg=str(mesh))
        for path, array in state.items():
            if "params" in path:
                np.testing.assert_allclose(other[path], array, rtol=0, atol=1e-5, err_msg=f"{mesh} {path}")


def test_a_checkpoint_is_restored_bit_for_bit_on_any_mesh(runs):
    folder, meshes = runs
    saved = saved_state(of(folder, (8, 1, 1)), STEPS)
    for mesh in meshes:
        with np.load(f"{of(folder, mesh)}-restored.npz") as restored:
            assert_same_state(dict(restored), saved)


def test_each_device_holds_its_part(runs):
    """Sizes of the shards of parameters and optimizer: all of it in copies of the model, an eighth with fsdp 8."""
    folder, _ = runs
    for mesh, parts in (((8, 1, 1), 1), ((1, 8, 1), 8)):
        sizes = json.loads(Path(f"{of(folder, mesh)}-held.json").read_text())
        for path, (held, size) in sizes.items():
            small = size == 1 or path.endswith("seq_relationship/bias")  # Counters, and two numbers.
            assert held == (size if small else size / parts), path


def test_an_eighth_of_base_with_fsdp_8():
    config = load_config("pretrain_base")
    model = model_preset("base", vocab_size=30_522)
    mesh = jax.sharding.AbstractMesh((1, 8, 1), sharding.AXES)
    optimizer = make_optimizer(config.optimizer)
    bert = steps.make_model(dataclasses.replace(config, model=model))
    shapes = jax.eval_shape(lambda: steps.init_state(bert, optimizer, 0))
    shardings = sharding.state_shardings(mesh, shapes, bert.logical_axes)
    leaves = zip(jax.tree.leaves(shapes), jax.tree.leaves(shardings), strict=True)
    total, held = 0, 0
    for x, s in leaves:
        total += x.size
        held += np.prod(s.shard_shape(x.shape))
    assert total / 8 <= held < total / 8 + 20  # Counters and the next-sentence bias are whole.


def devices(slices: int, each: int):
    """Devices of several slices, as a multi-slice TPU's but for the wires."""
    return [
        SimpleNamespace(id=i, slice_index=i // each, process_index=i // each, platform="cpu", device_kind="x")
        for i in range(slices * each)
    ]


@pytest.mark.parametrize(
    ("config", "sizes", "axis"),
    [(MeshConfig(), (8, 1, 1), 0), (MeshConfig(4, 1, -1), (4, 1, 2), 0), (MeshConfig(1, 4, 2), (1, 4, 2), 1)],
)
def test_the_outer_axis_spans_the_slices(config, sizes, axis, monkeypatch):
    monkeypatch.setattr(sharding, "Mesh", lambda grid, axes, axis_types: grid)
    grid = sharding.make_mesh(config, devices(2, 4))
    assert grid.shape == sizes
    of_slice = np.vectorize(lambda device: device.slice_index)(grid)
    first, second = np.split(of_slice, 2, axis)
    assert (first == 0).all() and (second == 1).all()


def test_meshes_that_cannot_be():
    with pytest.raises(InputError, match="tensor stays within one"):
        sharding.make_mesh(MeshConfig(1, 1, 8), devices(2, 4))
    with pytest.raises(InputError, match="2 x 1 x 1 isn't the number of devices, 8"):
        sharding.make_mesh(MeshConfig(2), devices(1, 8))
    mesh = jax.sharding.AbstractMesh((1, 1, 3), sharding.AXES)
    shape = {"word_embeddings": {"embedding": jax.ShapeDtypeStruct((VOCABULARY_MULTIPLE, 6), np.float32)}}
    with pytest.raises(InputError, match=r"mesh.tensor: 3 doesn't divide .* it must divide 256"):
        sharding.param_shardings(mesh, shape, LOGICAL_AXES)


def test_rows_where_processes_are_interleaved():
    """As on a TPU, whose hosts hold blocks of a plane: this process's devices are 0, 1, 4 and 5 of eight."""
    mesh = SimpleNamespace(shape={"data": 8, "fsdp": 1})

    class Sharding:
        addressable_devices = (0, 1, 4, 5)

        def devices_indices_map(self, shape):
            return {device: (slice(device, device + 1),) for device in range(8)}

    original, sharding.batch_sharding = sharding.batch_sharding, lambda mesh: Sharding()
    try:
        assert sharding.local_rows(mesh, 16) == (range(4), range(8, 12))
    finally:
        sharding.batch_sharding = original
