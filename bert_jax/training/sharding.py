"""Which device holds what: two tables, read as parameter path -> logical axes -> mesh axes.

The mesh has three axes. `data`: copies of the model, each with its rows of the batch. `fsdp`: rows of the batch too,
and slices of the parameters and the optimizer, gathered where they are used. `tensor`: slices of heads, feed-forward
layer and vocabulary. One device is a mesh of one; XLA derives the communication from these shardings.
"""

import math
import re

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from bert_jax.config import InputError, MeshConfig, Phase

AXES = ("data", "fsdp", "tensor")
BATCH = ("data", "fsdp")

# The end of a parameter's path -> what each of its dimensions is. The first match counts; the layers' parameters are
# stacked, so theirs begin with "layer".
LOGICAL_AXES = (
    (r"word_embeddings/embedding", ("vocabulary", "hidden")),
    (r"(position|token_type)_embeddings/embedding", (None, "hidden")),
    (r"self/(query|key|value)/kernel", ("layer", "hidden", "heads")),
    (r"self/(query|key|value)/bias", ("layer", "heads")),
    (r"layer/attention/output/dense/kernel", ("layer", "heads", "hidden")),
    (r"layer/intermediate/dense/kernel", ("layer", "hidden", "intermediate")),
    (r"layer/intermediate/dense/bias", ("layer", "intermediate")),
    (r"layer/output/dense/kernel", ("layer", "intermediate", "hidden")),
    (r"layer/.*(bias|scale)", ("layer", None)),
    (r"(pooler|transform/dense)/kernel", ("hidden", None)),
    (r"predictions/output_bias", ("vocabulary",)),
    (r"seq_relationship/kernel", (None, None)),
    (r"(bias|scale)", (None,)),
)

MESH_AXES = {
    "layer": None,
    "hidden": "fsdp",
    "heads": "tensor",
    "intermediate": "tensor",
    "vocabulary": "tensor",
    None: None,
}


def make_mesh(config: MeshConfig) -> Mesh:
    """The mesh over all devices; raises `InputError` where the axes' product isn't their number."""
    sizes = [getattr(config, axis) for axis in AXES]
    devices = jax.device_count()
    if sizes.count(-1) > 1:
        raise InputError("mesh: only one axis may be -1")
    if -1 in sizes:
        known = -math.prod(sizes)
        if devices % known:
            raise InputError(f"mesh: {known} doesn't divide the {devices} devices")
        sizes[sizes.index(-1)] = devices // known
    if math.prod(sizes) != devices:
        shape = " x ".join(map(str, sizes))
        raise InputError(f"mesh: {shape} isn't the number of devices, {devices}; -1 takes those that are left")
    return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def check_batch(phases: tuple[Phase, ...], mesh: Mesh, accumulate_steps: int) -> None:
    """Raises `InputError` where a phase's batch can't be split evenly."""
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    for i, phase in enumerate(phases):
        if phase.batch_size % (shards * accumulate_steps):
            parts = f"data {mesh.shape['data']} x fsdp {mesh.shape['fsdp']} devices"
            parts += f" x {accumulate_steps} parts" * (accumulate_steps > 1)
            raise InputError(f"phases.{i}.batch_size: {phase.batch_size} isn't divisible by {parts}")


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over the devices of `data` and `fsdp`."""
    return NamedSharding(mesh, PartitionSpec(BATCH))


def path_name(path) -> str:
    """A tree path as `bert/encoder/layer/...`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def state_shardings(mesh: Mesh, state):
    """The sharding of every array of a train state (or of its shapes); the optimizer's follow their parameters.

    Raises `InputError` naming the parameter where a dimension isn't divisible by its mesh axis.
    """
    return jax.tree_util.tree_map_with_path(lambda path, x: _sharding(mesh, path_name(path), x.shape), state)


def _sharding(mesh: Mesh, name: str, shape: tuple[int, ...]) -> NamedSharding:
    if not shape:
        return NamedSharding(mesh, PartitionSpec())
    axes = next((axes for pattern, axes in LOGICAL_AXES if re.search(rf"(^|/){pattern}$", name)), None)
    if axes is None or len(axes) != len(shape):
        raise ValueError(f"no entry of LOGICAL_AXES fits {name} {shape}")
    spec = [MESH_AXES[axis] for axis in axes]
    for axis, size in zip(spec, shape, strict=True):
        if axis and size % mesh.shape[axis]:
            remedy = "; set model.vocab_size to a multiple of it" if "vocabulary" in axes else ""
            raise InputError(f"mesh.{axis}: {mesh.shape[axis]} doesn't divide {name} {shape}{remedy}")
    used = [axis for axis in spec if axis]
    if len(used) > len(set(used)):
        raise ValueError(f"{name}: one mesh axis for two dimensions, {spec}")
    return NamedSharding(mesh, PartitionSpec(*spec))
