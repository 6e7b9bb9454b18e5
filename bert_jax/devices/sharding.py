"""Which device holds what, by two tables: parameter path -> logical axes (the model's), logical axis -> mesh axes.

The mesh has three axes. `data`: copies of the model, each with its rows of the batch. `fsdp`: more rows of the batch,
and slices of the parameters and the optimizer's state, gathered where they are used. `tensor`: slices of heads,
feed-forward layer and vocabulary. A single device is a mesh of one; XLA derives the communication from the shardings.

Several TPU slices, or nodes with GPUs, are joined by a slower network: the outer axis, `data` (or else `fsdp`), spans
them, so that only gradients cross that network.
"""

import itertools
import math
import re
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from bert_jax.config import VOCABULARY_MULTIPLE, InputError, MeshConfig, Phase, first_line

AXES = ("data", "fsdp", "tensor")
BATCH = ("data", "fsdp")

# The end of a parameter's path -> the logical axis of each of its dimensions; the first match counts. A model has its
# own (`models.Model.logical_axes`).
LogicalAxes = Sequence[tuple[str, tuple[str | None, ...]]]

MESH_AXES = {
    "layer": None,
    "hidden": "fsdp",
    "heads": "tensor",
    "intermediate": "tensor",
    "vocabulary": "tensor",
    "vector": ("tensor", "fsdp"),
    None: None,
}


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh over the devices (None: all of JAX's).

    Raises `InputError` where the product of the axes isn't the number of devices, or they can't be laid out so.
    """
    devices = jax.devices() if devices is None else devices
    sizes = _sizes(config, len(devices))
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    across = _across_slices(sizes, slices)
    within = [size // n for size, n in zip(sizes, across, strict=True)]
    try:
        if slices > 1:
            grid = mesh_utils.create_hybrid_device_mesh(within, across, devices, allow_split_physical_axes=True)
        else:
            grid = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    except (NotImplementedError, ValueError) as error:
        shape = " x ".join(map(str, sizes))
        raise InputError(f"mesh: {shape} can't be laid out on these devices: {first_line(error)}") from error
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _across_slices(sizes: list[int], slices: int) -> list[int]:
    """Into how many parts the slices split each axis: the first one that their number divides, by that number."""
    for axis, size in enumerate(sizes[:-1]):
        if size % slices == 0:
            return [slices if i == axis else 1 for i in range(len(sizes))]
    shape = " x ".join(map(str, sizes))
    raise InputError(f"mesh: {shape} has no data or fsdp axis that the {slices} slices divide; tensor stays within one")


def _sizes(config: MeshConfig, devices: int) -> list[int]:
    """The axes' sizes, with -1 replaced."""
    sizes = [getattr(config, axis) for axis in AXES]
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
    return sizes


def check_batch(phases: Mapping[int, Phase], mesh: Mesh, accumulate_steps: int = 1) -> None:
    """Raises `InputError` where the batch of a phase, given by its number, can't be split evenly."""
    shards = batch_shards(mesh)
    for i, phase in phases.items():
        if phase.batch_size % (shards * accumulate_steps):
            parts = f"data {mesh.shape['data']} x fsdp {mesh.shape['fsdp']} devices"
            parts += f" x {accumulate_steps} parts" * (accumulate_steps > 1)
            raise InputError(f"phases.{i}.batch_size: {phase.batch_size} isn't divisible by {parts}")


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: its rows are split over `data` and `fsdp`."""
    return NamedSharding(mesh, PartitionSpec(BATCH))


def local_rows(mesh: Mesh, batch_size: int) -> tuple[range, ...]:
    """The rows of a global batch that this process's devices hold, as ascending ranges; others may hold them too."""
    size = batch_size // batch_shards(mesh)
    runs: list[range] = []
    for shard in _local_shards(mesh):
        start = runs.pop().start if runs and runs[-1].stop == shard * size else shard * size
        runs.append(range(start, (shard + 1) * size))
    return tuple(runs)


def global_batch(mesh: Mesh, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """Global arrays from this process's rows, which are in the order of `local_rows`."""
    offset = {shard: i for i, shard in enumerate(_local_shards(mesh))}

    def put(local: np.ndarray) -> jax.Array:
        size = len(local) // len(offset)
        batch_size = size * batch_shards(mesh)

        def rows(index):
            at = offset[index[0].indices(batch_size)[0] // size] * size
            return local[at : at + size]

        return jax.make_array_from_callback((batch_size, *local.shape[1:]), batch_sharding(mesh), rows)

    return jax.tree.map(put, batch)


def put(arrays, shardings):
    """Puts arrays that every process has whole onto devices; each process puts its own devices' parts."""

    def onto(array, sharding: jax.sharding.Sharding) -> jax.Array:
        whole = np.asarray(array)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return jax.tree.map(onto, arrays, shardings)


def batch_shards(mesh: Mesh) -> int:
    """Number of parts into which a batch is split."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def _local_shards(mesh: Mesh) -> list[int]:
    """The numbers of the batch's parts that this process's devices hold, ascending."""
    shards, sharding = batch_shards(mesh), batch_sharding(mesh)
    indices = sharding.devices_indices_map((shards,))
    return sorted({indices[device][0].indices(shards)[0] for device in sharding.addressable_devices})


def path_name(path) -> str:
    """A tree path as `bert/encoder/layer/...`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def param_shardings(mesh: Mesh, params, axes: LogicalAxes):
    """The sharding of every parameter (or of its shape), by the model's logical axes.

    Raises `InputError` naming the parameter where a dimension isn't divisible by its mesh axis.
    """
    return jax.tree_util.tree_map_with_path(lambda path, x: _sharding(mesh, path_name(path), x.shape, axes), params)


def state_shardings(mesh: Mesh, state: dict, axes: LogicalAxes):
    """The sharding of every array of a train state (or of its shapes), for any optimizer.

    An array whose path ends with a parameter's path is split like the parameter, in the dimensions that it still has.
    All others, such as counters, are on every device. Raises `InputError` like `param_shardings`.
    """
    leaves = jax.tree_util.tree_leaves_with_path(state["params"])
    params = {path_name(path): (x.shape, _sharding(mesh, path_name(path), x.shape, axes)) for path, x in leaves}

    def following(path, x) -> NamedSharding:
        ends = (path_name(path[i:]) for i in range(len(path)))
        name = next((end for end in ends if end in params), None)
        return NamedSharding(mesh, _kept(*params[name], x.shape) if name else PartitionSpec())

    return jax.tree_util.tree_map_with_path(following, state)


def _kept(shape: tuple[int, ...], sharding: NamedSharding, kept: tuple[int, ...]) -> PartitionSpec:
    """The sharding of an array with the shape `kept`, left of a parameter after means over some of its dimensions.

    The sizes show which dimensions are left; if that is ambiguous and the shardings differ, it is on every device.
    """
    dimensions = zip(shape, sharding.spec, strict=True)
    specs = {
        tuple(axis for _, axis in chosen)
        for chosen in itertools.combinations(dimensions, len(kept))
        if tuple(size for size, _ in chosen) == kept
    }
    return PartitionSpec(*specs.pop()) if len(specs) == 1 else PartitionSpec()


def _sharding(mesh: Mesh, name: str, shape: tuple[int, ...], axes: LogicalAxes) -> NamedSharding:
    logical = next((names for pattern, names in axes if re.search(rf"(^|/){pattern}$", name)), None)
    if logical is None or len(logical) != len(shape):
        raise ValueError(f"no entry of the logical axes fits {name} {shape}")
    spec = [MESH_AXES[axis] for axis in logical]
    for axis, size in zip(spec, shape, strict=True):
        parts = math.prod(mesh.shape[a] for a in _each(axis))
        if size % parts:
            remedy = f"; it must divide {VOCABULARY_MULTIPLE}" if logical[0] == "vocabulary" else ""
            raise InputError(f"mesh.{' x '.join(_each(axis))}: {parts} doesn't divide {name} {shape}{remedy}")
    used = [a for axis in spec for a in _each(axis)]
    if len(used) > len(set(used)):
        raise ValueError(f"{name}: one mesh axis for two dimensions, {spec}")
    return NamedSharding(mesh, PartitionSpec(*spec))


def _each(axis: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (axis,) if isinstance(axis, str) else axis or ()
