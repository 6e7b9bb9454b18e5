"""The devices of a TPU slice that isn't here, described by libtpu."""

import importlib.util
import math
import os
import re
from dataclasses import dataclass
from typing import Any

from bert_jax.config import InputError, first_line
from bert_jax.devices.chips import CHIPS, Chip

# With these, libtpu doesn't ask Google's metadata server about this machine, and several processes may compile: none
# of them opens a device.
ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
# docs.cloud.google.com/tpu/docs/v5e and v6e, "configurations".
SIZES_2D = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
# The same pages of v4 and v5p: the shape that an accelerator type has, where none is asked for.
SIZES_3D = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16", "16x16x16")
# The accelerator types of Cloud TPU, v5litepod-8 for one: what comes before the number -> the chip, and how many the
# number counts for each chip, for v4 and v5p its two cores.
TYPES = {"v4": ("v4", 2), "v5litepod": ("v5e", 1), "v5p": ("v5p", 2), "v6e": ("v6e", 1)}


@dataclass(frozen=True)
class Topology:
    name: str
    """CHIP:AxB or CHIP:AxBxC."""
    chip: Chip
    shape: tuple[int, ...]
    """Chips along x, y, z of one slice."""
    slices: int
    devices: list[Any]

    def __str__(self) -> str:
        return f"{self.slices} x {self.name}" if self.slices > 1 else self.name


def make_topology(name: str, slices: int = 1) -> Topology:
    """The slices of this name, CHIP:AxB or CHIP:AxBxC, or of an accelerator type. Raises `InputError` for a chip or
    shape that doesn't exist, and where libtpu isn't installed."""
    name = _of_type(name)
    chip_name, shape = _parsed(name)
    chip = CHIPS[chip_name]
    if slices < 1:
        raise InputError(f"--slices {slices}: must be at least 1")
    if slices > 1 and chip.slice_bandwidth is None:
        others = ", ".join(name for name, other in CHIPS.items() if other.slice_bandwidth)
        raise InputError(f"--slices: the network between slices of {chip_name} isn't published; plan {others}")
    if importlib.util.find_spec("libtpu") is None:
        raise InputError("plan compiles with libtpu, which isn't installed; pip install 'bert-jax[tpu]'")
    # Imported late, since the errors above don't need it.
    from jax.experimental import topologies

    # A slice may be smaller than a host's 2 x 2 chips; a v4 chip is two devices unless its cores are joined.
    host = [min(2, shape[0]), min(2, shape[1]), 1]
    options: dict[str, Any] = {
        "chips_per_host_bounds": host,
        **({"chip_config_name": "megacore"} if chip_name == "v4" else {}),
    }
    if slices > 1:
        options["num_slices"] = slices
    os.environ |= ENVIRONMENT
    try:
        description = topologies.get_topology_desc(platform="tpu", topology_name=name, **options)
    except Exception as error:  # libtpu raises JaxRuntimeError and others.
        raise InputError(f"--topology {name}: {first_line(error)}") from error
    return Topology(name, chip, (*shape, *[1] * (3 - len(shape))), slices, list(description.devices))


def _of_type(name: str) -> str:
    """The topology that an accelerator type has by default; any other name as it is."""
    kind, _, number = name.partition("-")
    if kind not in TYPES or not number.isdecimal():
        return name
    chip_name, counted = TYPES[kind]
    sizes = SIZES_2D if CHIPS[chip_name].axes == 2 else SIZES_3D
    known = {str(counted * math.prod(map(int, size.split("x")))): size for size in sizes}
    if number not in known:
        raise InputError(
            f"--topology {name}: there is {kind}-{', '.join(known)}; or name a shape, as {chip_name}:{sizes[1]}"
        )
    return f"{chip_name}:{known[number]}"


def _parsed(name: str) -> tuple[str, tuple[int, ...]]:
    chip_name, colon, rest = name.partition(":")
    if chip_name not in CHIPS:
        raise InputError(f"--topology {name}: no chip {chip_name!r}; there are {', '.join(CHIPS)}, for example v5e:4x4")
    chip = CHIPS[chip_name]
    form = "AxBxC, as v5p:2x2x2" if chip.axes == 3 else "AxB, as v5e:4x4"
    if not re.fullmatch(r"[1-9]\d*" + r"x[1-9]\d*" * (chip.axes - 1), rest):
        raise InputError(f"--topology {name}: a {chip_name} slice is {chip_name}:{form}")
    shape = tuple(map(int, rest.split("x")))
    if chip.axes == 2 and rest not in SIZES_2D:
        raise InputError(f"--topology {name}: {chip_name} comes in {', '.join(SIZES_2D)}")
    if chip.axes == 3 and (shape[0] % 2 or shape[1] % 2 or math.prod(shape) > chip.most_chips):
        whole = f"whole hosts of 2x2x1 and at most {chip.most_chips:,} chips, as {chip_name}:2x2x2"
        raise InputError(f"--topology {name}: a {chip_name} slice has {whole}")
    return chip_name, shape
