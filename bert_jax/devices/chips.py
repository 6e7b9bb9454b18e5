"""The makers' data of their chips, each number once: peaks, memory, links."""

from dataclasses import dataclass

GIB = 1 << 30


@dataclass(frozen=True)
class Chip:
    """A TPU chip and its pod."""

    kinds: tuple[str, ...]
    """Its names in `jax.Device.device_kind`."""
    peak_flops: float
    """FLOP/s of bf16 matrix products."""
    hbm_bytes: float
    """The memory for programs: the maker's capacity minus what the system reserves."""
    hbm_bandwidth: float
    """Bytes per second."""
    link_bandwidth: float
    """Bytes per second of one link to a neighbour, in one direction; a chip has two for each axis of its torus."""
    slice_bandwidth: float | None
    """Bytes per second of a chip's share of its host's network to other slices; None where it isn't published."""
    axes: int
    """Number of axes of the torus."""
    ring: int
    """An axis with a multiple of this many chips is closed to a ring (in three dimensions, if all axes are)."""
    most_chips: int
    """The most chips in one slice."""


# Google, docs.cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e}: "system architecture" and "configurations". Link:
# "bidirectional ICI bandwidth per chip" / ports / 2, v4's from arXiv 2304.01433, table 4. Slices: v5p's "DCN bandwidth
# per chip", for v5e and v6e the NICs of a host over its chips. HBM: the limit that libtpu 0.0.42 compiles for.
CHIPS = {
    "v4": Chip(("TPU v4",), 275e12, 30.75 * GIB, 1200e9, 50e9, None, axes=3, ring=4, most_chips=4096),
    "v5e": Chip(("TPU v5 lite", "TPU v5e"), 197e12, 15.75 * GIB, 819e9, 50e9, 3.125e9, axes=2, ring=16, most_chips=256),
    "v5p": Chip(("TPU v5", "TPU v5p"), 459e12, 95.74 * GIB, 2765e9, 100e9, 6.25e9, axes=3, ring=4, most_chips=6144),
    "v6e": Chip(
        ("TPU v6 lite", "TPU v6e"), 918e12, 31.25 * GIB, 1638e9, 100e9, 12.5e9, axes=2, ring=16, most_chips=256
    ),
}

# FLOP/s of dense bf16 matrix products, by `jax.Device.device_kind`; for GPUs from NVIDIA's data sheets.
PEAK_FLOPS = {
    **{kind: chip.peak_flops for chip in CHIPS.values() for kind in chip.kinds},
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
}
