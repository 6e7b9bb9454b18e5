"""What a compiled program does, read from its HLO text: FLOPs, bytes to and from HBM, collectives, custom calls.

XLA's own `cost_analysis` counts the body of a loop once; here it counts as often as it runs. All figures are for one
device.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bert_jax.planning.hlo import Array, Computation, Instruction, Module, group, matched, numbers

# Instructions that move no bytes: they name existing arrays, or end what another instruction began.
STILL = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "while", "conditional", "call"}
STILL |= {"opt-barrier", "partition-id", "replica-id", "send", "recv", "send-done", "recv-done", "copy-done"}
STILL |= {"slice-done", "async-done", "async-update", "collective-permute-done", "all-gather-done", "all-reduce-done"}
# Custom calls that move no bytes: marks for the compiler, and reserved buffers.
STILL_CALLS = {"AllocateBuffer", "ConcatBitcast", "AssumeGatherIndicesInBound", "AsyncCollectiveStart"}
STILL_CALLS |= {"AsyncCollectiveDone", "GatherScatterIndicesBitpacked"}
# Custom calls without arithmetic: those above, notes on shardings and layouts, moves, selections, calls of the host.
WITHOUT_ARITHMETIC = STILL_CALLS | {"Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape", "LayoutConstraint"}
WITHOUT_ARITHMETIC |= {"MoveToHost", "MoveToDevice", "annotate_device_placement", "PadToStatic", "SliceToDynamic"}
WITHOUT_ARITHMETIC |= {"TopK", "PartialReduce", "xla_python_cpu_callback", "xla_ffi_python_cpu_callback"}
SLICES = {"dynamic-slice", "slice", "gather"}
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


@dataclass(frozen=True)
class Collective:
    """A collective operation and how often it runs."""

    kind: str
    """One of `COLLECTIVES`, or "slice all-reduce" and the like between slices."""
    bytes: int
    """Bytes of the whole array on a device: of the array to reduce, or of the gathered one."""
    group: tuple[int, ...]
    """The devices of the first group; empty between slices."""
    times: int
    asynchronous: bool
    """Whether it was started early, so that other work hides it."""


@dataclass(frozen=True)
class Work:
    """An instruction's work, and how often it runs."""

    flops: float
    bytes: float
    times: int


@dataclass(frozen=True)
class CustomCall:
    """A call of code that isn't in the HLO text, and how often it runs."""

    target: str
    flops: float | None
    """FLOPs of one call; None where they are unknown."""
    times: int


# FLOPs of a custom call by its operation's name and the shapes of its operands, None where they are unknown:
# `models.attention.Backend.flops` is one.
Known = Callable[[str, Sequence[tuple[int, ...]]], float | None]


def nothing_known(operation: str, operands: Sequence[tuple[int, ...]]) -> float | None:
    return None


@dataclass(frozen=True)
class Costs:
    work: list[Work]
    collectives: list[Collective]
    custom_calls: list[CustomCall]

    @property
    def flops(self) -> float:
        """All FLOPs, without custom calls of unknown FLOPs."""
        return sum(w.flops * w.times for w in self.work)

    @property
    def bytes(self) -> float:
        return sum(w.bytes * w.times for w in self.work)


def costs(text: str, loops: bool = True, known: Known = nothing_known) -> Costs:
    """The costs of a compiled module (`jax.stages.Compiled.as_text()`); without `loops`, bodies count once.

    The text doesn't say what custom calls compute: `known` gives the FLOPs of those that it knows.

    Raises `ValueError` where the text doesn't give the number of a loop's iterations, or has an unknown form.
    """
    module = _Counter(text, known)
    work, calls, collectives = list[Work](), list[CustomCall](), dict[tuple, Collective]()
    for computation, times in module.executed(loops):
        for instruction in computation.instructions.values():
            flops = module.flops(computation, instruction)
            moved = module.traffic(computation, instruction)
            if flops or moved:
                work.append(Work(flops, moved, times))
            for key, collective in module.collectives(computation, instruction, times):
                collectives.setdefault(key, collective)
            for call, flops_of_call in module.custom_calls(computation, instruction):
                calls.append(CustomCall(call.target, flops_of_call, times))
    return Costs(work, list(collectives.values()), calls)


class _Counter(Module):
    def __init__(self, text: str, known: Known):
        super().__init__(text)
        self._known = known

    def custom_calls(self, computation: Computation, i: Instruction) -> Iterator[tuple[Instruction, float | None]]:
        """Yields (custom call, its FLOPs or None) for an instruction that is one, or holds some."""
        if i.opcode in ("fusion", "async-start"):
            inner = self.computations[i.called("calls")]
            for j in inner.instructions.values():
                yield from self.custom_calls(inner, j)
        elif i.opcode == "custom-call":
            operands = [computation.instructions[name].arrays for name in i.operands]
            shapes = [arrays[0].dims if arrays else () for arrays in operands]
            yield i, 0.0 if i.target in WITHOUT_ARITHMETIC else self._known(i.operation, shapes)

    def flops(self, computation: Computation, i: Instruction) -> float:
        """FLOPs of matrix products, two for a multiply-add, including those in fusions and known custom calls."""
        if i.opcode in ("custom-call", "async-start"):
            return sum(flops or 0.0 for _, flops in self.custom_calls(computation, i))
        if i.opcode == "fusion":
            inner = self.computations[i.called("calls")]
            return sum(self.flops(inner, j) for j in inner.instructions.values())
        if i.opcode == "dot":
            left = computation.instructions[i.operands[0]].arrays[0]
            return 2.0 * i.arrays[0].size * math.prod(left.dims[d] for d in numbers("lhs_contracting_dims", i))
        if i.opcode == "convolution":
            return _convolution_flops(i, *(computation.instructions[name].arrays[0] for name in i.operands))
        return 0.0

    def traffic(self, computation: Computation, i: Instruction) -> float:
        """Bytes to and from HBM: operands and results, each once; for slices only the part that is read or written.

        A kernel that XLA didn't make may read its operands more often.
        """
        if i.opcode in STILL or i.opcode == "custom-call" and i.target in STILL_CALLS:
            return 0.0
        if i.opcode in ("copy-start", "slice-start"):
            return _copied(i)
        read = sum(self._read(computation, i, n) for n in range(len(i.operands)))
        return read + self._written(computation, i)

    def _read(self, computation: Computation, i: Instruction, n: int) -> float:
        """Bytes that an instruction reads of its n-th operand."""
        arrays = computation.instructions[i.operands[n]].arrays
        whole = sum(a.bytes for a in arrays if a.in_hbm)
        return min(whole, self._used(i, n)) if whole else 0.0

    def _used(self, i: Instruction, n: int) -> float:
        if i.opcode in SLICES and n == 0:
            return sum(a.bytes for a in i.arrays)
        if i.opcode == "dynamic-update-slice" and n == 0:  # In place.
            return 0.0
        if i.opcode == "fusion":
            inner = self.computations[i.called("calls")]
            return self._used_by_all(inner, inner.parameters[n].name)
        return math.inf

    def _used_by_all(self, fused: Computation, name: str) -> float:
        """Bytes that a fusion needs of a value inside it: users may take slices, also after mere copies."""
        if name == fused.root.name:
            return math.inf
        return sum(
            self._used_by_all(fused, user.name) if self._passes(user) else self._used(user, user.operands.index(name))
            for user in fused.users[name]
        )

    def _passes(self, i: Instruction) -> bool:
        if i.opcode == "fusion":
            return all(self._passes(j) for j in self.computations[i.called("calls")].instructions.values())
        return i.opcode in ("parameter", "bitcast", "copy", "convert")

    def _written(self, computation: Computation, i: Instruction) -> float:
        if not any(a.in_hbm for a in i.arrays):
            return 0.0
        whole = sum(a.bytes for a in i.arrays if a.in_hbm)
        return min(whole, sum(self._put(computation, i)))

    def _put(self, computation: Computation, i: Instruction) -> Iterator[float]:
        """Yields the bytes of each result that are actually written."""
        operands = [computation.instructions[name] for name in i.operands]
        if i.opcode == "dynamic-update-slice":
            yield operands[1].arrays[0].bytes
        elif i.opcode in ("bitcast", "copy", "convert") and operands[0].opcode == "dynamic-update-slice":
            yield from self._put(computation, operands[0])
        elif i.opcode == "tuple":
            for operand in operands:
                yield from self._put(computation, operand)
        elif i.opcode == "fusion":
            inner = self.computations[i.called("calls")]
            yield from self._put(inner, inner.root)
        else:
            yield sum(a.bytes for a in i.arrays)

    def collectives(self, computation: Computation, i: Instruction, times: int) -> Iterator[tuple[tuple, Collective]]:
        """Yields (key, collective): one that is hidden behind several fusions occurs in each, with the same key."""
        if i.opcode == "fusion":
            inner = self.computations[i.called("calls")]
            for j in inner.instructions.values():
                yield from self.collectives(inner, j, times)
        kind = i.opcode.removesuffix("-start")
        chain = re.search(r'chain_id="(\d+)"', i.attributes)
        key = (kind, numbers("channel_id", i), chain[1]) if chain else (computation.name, i.name)
        if kind == "send" and "xla_megascale" in i.attributes:
            between = matched(r'transfer_type="(\w+)"', i.attributes)[1].lower().replace("_", "-")
            yield key, Collective(f"slice {between}", i.arrays[0].bytes, (), times, True)
        elif kind in COLLECTIVES:
            operands = sum(a.bytes for name in i.operands for a in computation.instructions[name].arrays)
            members = group(i.attributes)
            size = operands * len(members) if kind == "all-gather" else operands
            if computation.name.startswith(
                "all-reduce-scatter"
            ):  # XLA's reduce-scatter: only a part of the sum is kept.
                kind = "reduce-scatter"
            hidden = bool(chain) or i.opcode.endswith("-start") or "async_collective_name" in i.attributes
            yield key, Collective(kind, size, members, times, hidden)


def _copied(i: Instruction) -> float:
    """Bytes to and from HBM of a copy between memories: the first two arrays of its result are source and target."""
    return min(a.bytes for a in i.arrays[:2]) * sum(a.in_hbm for a in i.arrays[:2])


def _convolution_flops(i: Instruction, left: Array, kernel: Array) -> float:
    """FLOPs of a convolution, as which TPU programs write matrix products. A batch dimension is then a spatial one,
    dilated so that each position of the window meets one element; only these count (as in XLA's HloCostAnalysis)."""
    lhs, rhs, out = matched(r"dim_labels=(\w+)_(\w+)->(\w+)", i.attributes).groups()
    meetings = 1
    space = [c for c in rhs if c.isdigit()]
    window = _window(i.attributes, len(space))
    for n, dimension in enumerate(space):
        size, stride, low, dilate, spread = (values[n] for values in window)
        extent = (left.dims[lhs.index(dimension)] - 1) * dilate + 1
        at = np.arange(i.arrays[0].dims[out.index(dimension)])[:, None] * stride + np.arange(size) * spread - low
        meetings *= int(np.count_nonzero((at >= 0) & (at < extent) & (at % dilate == 0)))
    channels = i.arrays[0].dims[out.index("b")] * i.arrays[0].dims[out.index("f")] * kernel.dims[rhs.index("i")]
    return 2.0 * meetings * channels / (numbers("batch_group_count", i) or (1,))[0]


def _window(attributes: str, rank: int) -> tuple[list[int], ...]:
    """Size, stride, low padding, dilation of the left side and of the window, along each spatial dimension."""

    def values(name, default):
        match = re.search(rf"window=\{{[^}}]*\b{name}=([\dx_\-]+)", attributes)
        return [int(value.split("_")[0]) for value in match[1].split("x")] if match else [default] * rank

    return tuple(values(*v) for v in (("size", 1), ("stride", 1), ("pad", 0), ("lhs_dilate", 1), ("rhs_dilate", 1)))
