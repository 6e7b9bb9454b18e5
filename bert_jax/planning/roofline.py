"""How long a compiled step takes at best, from its costs and the chip's facts.

Each instruction takes the longer of its products at the chip's peak and its bytes at HBM's full speed, one instruction
after another. A collective takes its bytes over the links that its group has, by the ring algorithms, and a microsecond
a hop. Those that the compiler started ahead are hidden behind the rest, the others are waited for.
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
# Times that the array passes a chip's links, for a ring of n: (n - 1) / n of it, twice for a sum that all get.
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
    """Collectives that were started ahead."""

    @property
    def network(self) -> float:
        return self.waiting + self.hidden

    @property
    def step(self) -> float:
        return self.waiting + max(self.chip, self.hidden)


def times(costs: Costs, chip: Chip, places: list[tuple[int, ...]], shape: tuple[int, ...]) -> Times:
    """`places`: the coordinates of each device, in the order of the mesh; `shape`: chips along the torus's axes."""
    seconds = [(c.times * seconds_of(c, chip, places, shape), c.asynchronous) for c in costs.collectives]
    return Times(
        compute=costs.flops / chip.peak_flops,
        memory=costs.bytes / chip.hbm_bandwidth,
        chip=sum(w.times * max(w.flops / chip.peak_flops, w.bytes / chip.hbm_bandwidth) for w in costs.work),
        waiting=sum(time for time, hidden in seconds if not hidden),
        hidden=sum(time for time, hidden in seconds if hidden),
    )


def seconds_of(collective: Collective, chip: Chip, places: list[tuple[int, ...]], shape: tuple[int, ...]) -> float:
    """Of one collective operation."""
    if not collective.group:  # Between slices, over the hosts' network; what is sent is received at the same time.
        assert chip.slice_bandwidth is not None  # `make_topology` makes slices of no other chips.
        return collective.bytes / chip.slice_bandwidth
    members = [places[device] for device in collective.group]
    extents = [len(set(along)) for along in zip(*members, strict=True)]
    if collective.kind == "collective-permute":
        return collective.bytes / chip.link_bandwidth + HOP
    n, links = len(members), 0
    for extent, size in zip(extents, shape, strict=True):
        if extent > 1:  # A closed ring goes round both ways at once.
            links += 2 if extent == size and closed(chip, shape, size) else 1
    passes = PASSES[collective.kind]
    hops = passes * sum(extent - 1 for extent in extents)
    return passes * collective.bytes * (n - 1) / n / (max(links, 1) * chip.link_bandwidth) + HOP * hops


def closed(chip: Chip, shape: tuple[int, ...], size: int) -> bool:
    """Whether an axis of so many chips is a ring."""
    sizes = shape if chip.axes == 3 else (size,)
    return math.prod(sizes) > 1 and all(s % chip.ring == 0 for s in sizes)
