"""The least time that a compiled step takes, from its costs and the chip's data.

Instructions run one after another; each takes the longer of two times: its products at the chip's peak, and its bytes
at HBM's full speed. A collective takes its bytes over its group's links, by the ring algorithms, and a microsecond for
each hop. Collectives that the compiler started early are hidden behind other work; the chip waits for the others.
"""

import math
from dataclasses import dataclass

from bert_jax.devices.chips import Chip
from bert_jax.planning.costs import Collective, Costs

ASSUMED = """\
Assumed: products at the peak for bf16, HBM at its full speed, no time for what works in registers (dropout's random
bits, GELU) nor for the input; rings over the links that a collective's chips have, 1 us a hop; what the compiler starts
ahead is hidden. A real run is slower: take half the speed for a cautious plan."""
HOP = 1e-6  # seconds
# How many times (n - 1) / n of the array passes a chip's links in a ring of n; twice for a sum that all chips get.
PASSES = {"all-reduce": 2, "all-gather": 1, "reduce-scatter": 1, "all-to-all": 1}


@dataclass(frozen=True)
class Times:
    """Seconds of a step."""

    compute: float
    """All products at the chip's peak."""
    memory: float
    """All bytes at HBM's full speed."""
    chip: float
    """The longer of the two, instruction by instruction."""
    waiting: float
    """Collectives that the chip waits for."""
    hidden: float
    """Collectives that were started early, behind other work."""

    @property
    def network(self) -> float:
        return self.waiting + self.hidden

    @property
    def step(self) -> float:
        return self.waiting + max(self.chip, self.hidden)


def times(costs: Costs, chip: Chip, coordinates: list[tuple[int, ...]], shape: tuple[int, ...]) -> Times:
    """The least times of a step. `coordinates` are those of each device, in the mesh's order; `shape` is the number of
    chips along each axis of the torus."""
    seconds = [(c.times * seconds_of(c, chip, coordinates, shape), c.asynchronous) for c in costs.collectives]
    return Times(
        compute=costs.flops / chip.peak_flops,
        memory=costs.bytes / chip.hbm_bandwidth,
        chip=sum(w.times * max(w.flops / chip.peak_flops, w.bytes / chip.hbm_bandwidth) for w in costs.work),
        waiting=sum(time for time, hidden in seconds if not hidden),
        hidden=sum(time for time, hidden in seconds if hidden),
    )


def seconds_of(collective: Collective, chip: Chip, coordinates: list[tuple[int, ...]], shape: tuple[int, ...]) -> float:
    """The seconds of one collective operation, once."""
    if not collective.group:  # Between slices, over the hosts' network, which sends and receives at the same time.
        assert chip.slice_bandwidth is not None  # `make_topology` refuses several slices of other chips.
        return collective.bytes / chip.slice_bandwidth
    members = [coordinates[device] for device in collective.group]
    extents = [len(set(along)) for along in zip(*members, strict=True)]
    if collective.kind == "collective-permute":
        return collective.bytes / chip.link_bandwidth + HOP
    n, links = len(members), 0
    for extent, size in zip(extents, shape, strict=True):
        if extent > 1:  # A closed ring is used in both directions at once.
            links += 2 if extent == size and closed(chip, shape, size) else 1
    passes = PASSES[collective.kind]
    hops = passes * sum(extent - 1 for extent in extents)
    return passes * collective.bytes * (n - 1) / n / (max(links, 1) * chip.link_bandwidth) + HOP * hops


def closed(chip: Chip, shape: tuple[int, ...], size: int) -> bool:
    """Whether an axis of `size` chips is closed to a ring."""
    sizes = shape if chip.axes == 3 else (size,)
    return math.prod(sizes) > 1 and all(s % chip.ring == 0 for s in sizes)
