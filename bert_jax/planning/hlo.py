"""What a compiled program does, read from its HLO text: FLOPs, bytes to and from HBM, collectives.

XLA's own `cost_analysis` counts the body of a loop once; here it counts as often as it runs. All figures are for one
device.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4, "u32": 4}
BYTES |= {"f64": 8, "s64": 8, "u64": 8, "token": 0}
# Instructions that move no bytes: they name existing arrays, or end what another instruction began.
STILL = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "while", "conditional", "call"}
STILL |= {"opt-barrier", "partition-id", "replica-id", "send", "recv", "send-done", "recv-done", "copy-done"}
STILL |= {"slice-done", "async-done", "async-update", "collective-permute-done", "all-gather-done", "all-reduce-done"}
# Custom calls that move no bytes: marks for the compiler, and reserved buffers.
STILL_CALLS = {"AllocateBuffer", "ConcatBitcast", "AssumeGatherIndicesInBound", "AsyncCollectiveStart"}
STILL_CALLS |= {"AsyncCollectiveDone", "GatherScatterIndicesBitpacked"}
SLICES = {"dynamic-slice", "slice", "gather"}
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


@dataclass(frozen=True)
class Array:
    type: str
    dims: tuple[int, ...]
    in_hbm: bool
    """Whether it is in HBM, not in the memory on the chip (then its layout names a memory space)."""

    @property
    def size(self) -> int:
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        return self.size * BYTES[self.type]


@dataclass(frozen=True)
class Instruction:
    name: str
    arrays: tuple[Array, ...]
    """The result's arrays; several for a tuple."""
    opcode: str
    operands: tuple[str, ...]
    value: str
    """The text between the parentheses: a constant, or a parameter's number."""
    attributes: str

    def called(self, attribute: str) -> str:
        return _match(rf"\b{attribute}=%?([\w.\-]+)", self.attributes)[1]


@dataclass(frozen=True)
class Computation:
    name: str
    instructions: dict[str, Instruction]
    root: Instruction

    @cached_property
    def users(self) -> dict[str, list[Instruction]]:
        users: dict[str, list[Instruction]] = {name: [] for name in self.instructions}
        for instruction in self.instructions.values():
            for name in dict.fromkeys(instruction.operands):
                users[name].append(instruction)
        return users

    @cached_property
    def parameters(self) -> dict[int, Instruction]:
        return {int(i.value): i for i in self.instructions.values() if i.opcode == "parameter"}


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
class Costs:
    work: list[Work]
    collectives: list[Collective]

    @property
    def flops(self) -> float:
        return sum(w.flops * w.times for w in self.work)

    @property
    def bytes(self) -> float:
        return sum(w.bytes * w.times for w in self.work)


def costs(text: str, loops: bool = True) -> Costs:
    """The costs of a compiled module (`jax.stages.Compiled.as_text()`); without `loops`, bodies count once.

    Raises `ValueError` where the text doesn't give the number of a loop's iterations, or has an unknown form.
    """
    module = _Module(text)
    work, collectives = list[Work](), dict[tuple, Collective]()
    for computation, times in module.executed(loops):
        for instruction in computation.instructions.values():
            flops = module.flops(computation, instruction)
            moved = module.traffic(computation, instruction)
            if flops or moved:
                work.append(Work(flops, moved, times))
            for key, collective in module.collectives(computation, instruction, times):
                collectives.setdefault(key, collective)
    return Costs(work, list(collectives.values()))


class _Module:
    def __init__(self, text: str):
        self.computations: dict[str, Computation] = {}
        self.entry = ""
        name, lines = "", list[str]()
        for line in text.splitlines():
            if head := re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line):
                name, lines = head[2], []
                self.entry = name if head[1] else self.entry
            elif line == "}" and name:
                self.computations[name] = _computation(name, lines)
                name = ""
            elif name:
                lines.append(line)

    def executed(self, loops: bool) -> Iterator[tuple[Computation, int]]:
        """Each computation that isn't inside a fusion, with the number of times that it runs; every branch counts."""
        waiting = [(self.entry, 1)]
        while waiting:
            name, times = waiting.pop()
            computation = self.computations[name]
            yield computation, times
            for i in computation.instructions.values():
                if i.opcode == "while":
                    trips = self._trips(i) if loops else 1
                    waiting += [(i.called("body"), times * trips), (i.called("condition"), times * trips)]
                elif i.opcode == "conditional":
                    waiting += [(branch, times) for branch in _branches(i)]
                elif i.opcode == "call":
                    waiting.append((i.called("to_apply"), times))

    def _trips(self, loop: Instruction) -> int:
        """The number of a loop's iterations: it counts from 0 to the only integer in its condition, by its `_step`."""
        if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes):
            return int(known[1])
        condition, body = (self.computations[loop.called(part)] for part in ("condition", "body"))
        bounds = {int(i.value) for i in condition.instructions.values() if i.opcode == "constant" and i.value.isdigit()}
        counters = [i for i in condition.instructions.values() if i.opcode == "get-tuple-element"]
        counters = [i for i in counters if i.arrays[0].type in ("s32", "u32") and not i.arrays[0].dims]
        if len(bounds) != 1 or len(counters) != 1:
            raise ValueError(f"{loop.name}: how often the loop runs isn't written in its condition {condition.name}")
        at = int(_match(r"\bindex=(\d+)", counters[0].attributes)[1])
        return -(-bounds.pop() // self._step(loop, body, at))

    def _step(self, loop: Instruction, body: Computation, at: int) -> int:
        """What a loop adds to its counter, the element `at` of its state, in each iteration; above 1 if unrolled."""
        step, value = 0, body.instructions[body.root.operands[at]]
        while value.opcode in ("add", "copy"):
            parts = [body.instructions[name] for name in value.operands]
            step += sum(int(i.value) for i in parts if i.opcode == "constant")
            value = next(i for i in parts if i.opcode != "constant")
        if value.opcode != "get-tuple-element" or step < 1:
            raise ValueError(f"{loop.name}: what the loop counts by isn't written in its body {body.name}")
        return step

    def flops(self, computation: Computation, i: Instruction) -> float:
        """FLOPs of matrix products, two for a multiply-add, including those inside a fusion."""
        if i.opcode == "fusion":
            inner = self.computations[i.called("calls")]
            return sum(self.flops(inner, j) for j in inner.instructions.values())
        if i.opcode == "dot":
            left = computation.instructions[i.operands[0]].arrays[0]
            return 2.0 * i.arrays[0].size * math.prod(left.dims[d] for d in _numbers("lhs_contracting_dims", i))
        if i.opcode == "convolution":
            return _convolution_flops(i, *(computation.instructions[name].arrays[0] for name in i.operands))
        return 0.0

    def traffic(self, computation: Computation, i: Instruction) -> float:
        """Bytes to and from HBM: operands and results, each once; for slices only the part that is read or written."""
        if i.opcode in STILL or i.opcode == "custom-call" and _target(i) in STILL_CALLS:
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
        key = (kind, _numbers("channel_id", i), chain[1]) if chain else (computation.name, i.name)
        if kind == "send" and "xla_megascale" in i.attributes:
            between = _match(r'transfer_type="(\w+)"', i.attributes)[1].lower().replace("_", "-")
            yield key, Collective(f"slice {between}", i.arrays[0].bytes, (), times, True)
        elif kind in COLLECTIVES:
            operands = sum(a.bytes for name in i.operands for a in computation.instructions[name].arrays)
            group = _group(i.attributes)
            size = operands * len(group) if kind == "all-gather" else operands
            if computation.name.startswith("all-reduce-scatter"):  # A reduce-scatter: a part of the sum is kept.
                kind = "reduce-scatter"
            hidden = bool(chain) or i.opcode.endswith("-start") or "async_collective_name" in i.attributes
            yield key, Collective(kind, size, group, times, hidden)


def _computation(name: str, lines: list[str]) -> Computation:
    instructions = {line: _instruction(line) for line in lines}
    root = _match(r"(?m)^[ \t]+ROOT .*", "\n".join(lines))[0]
    return Computation(name, {i.name: i for i in instructions.values()}, instructions[root])


def _instruction(line: str) -> Instruction:
    name, rest = _match(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*)", line).groups()
    opcode = _match(r" ([a-z][a-z0-9\-]*)\(", rest)
    arrays = tuple(
        Array(type, tuple(map(int, filter(None, dims.split(",")))), "S(" not in (layout or ""))
        for type, dims, layout in re.findall(r"\b([a-z]\w*)\[([\d,]*)\](\{[^}]*\})?", rest[: opcode.start()])
    )
    inside = rest[opcode.end() : _closing(rest, opcode.end())]
    attributes = rest[opcode.end() + len(inside) + 1 :]
    constant = opcode[1] == "constant"
    operands = () if constant else tuple(re.findall(r"%([\w.\-]+)", inside))
    return Instruction(name, arrays, opcode[1], operands, inside, attributes)


def _match(pattern: str, text: str) -> re.Match[str]:
    if match := re.search(pattern, text):
        return match
    raise ValueError(f"HLO of an unknown form: {text[:120]}")


def _closing(text: str, start: int) -> int:
    depth = 1
    for at in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        if not depth:
            return at
    raise ValueError(f"no closing parenthesis: {text[:80]}")


def _copied(i: Instruction) -> float:
    """Bytes to and from HBM of a copy between memories: the first two arrays of its result are source and target."""
    return min(a.bytes for a in i.arrays[:2]) * sum(a.in_hbm for a in i.arrays[:2])


def _target(i: Instruction) -> str:
    return _match(r'custom_call_target="([^"]*)"', i.attributes)[1]


def _branches(i: Instruction) -> list[str]:
    if several := re.search(r"branch_computations=\{([^}]*)\}", i.attributes):
        return re.findall(r"%?([\w.\-]+)", several[1])
    return [i.called("true_computation"), i.called("false_computation")]


def _numbers(attribute: str, i: Instruction) -> tuple[int, ...]:
    match = re.search(rf"\b{attribute}=\{{?([\d,]*)", i.attributes)
    return tuple(map(int, filter(None, match[1].split(",")))) if match else ()


def _convolution_flops(i: Instruction, left: Array, kernel: Array) -> float:
    """FLOPs of a convolution, as which TPU programs write matrix products. A batch dimension is then a spatial one,
    dilated so that each position of the window meets one element; only these count (as in XLA's HloCostAnalysis)."""
    lhs, rhs, out = _match(r"dim_labels=(\w+)_(\w+)->(\w+)", i.attributes).groups()
    meetings = 1
    space = [c for c in rhs if c.isdigit()]
    window = _window(i.attributes, len(space))
    for n, dimension in enumerate(space):
        size, stride, low, dilate, spread = (values[n] for values in window)
        extent = (left.dims[lhs.index(dimension)] - 1) * dilate + 1
        at = np.arange(i.arrays[0].dims[out.index(dimension)])[:, None] * stride + np.arange(size) * spread - low
        meetings *= int(np.count_nonzero((at >= 0) & (at < extent) & (at % dilate == 0)))
    channels = i.arrays[0].dims[out.index("b")] * i.arrays[0].dims[out.index("f")] * kernel.dims[rhs.index("i")]
    return 2.0 * meetings * channels / (_numbers("batch_group_count", i) or (1,))[0]


def _window(attributes: str, rank: int) -> tuple[list[int], ...]:
    """Size, stride, low padding, dilation of the left side and of the window, along each spatial dimension."""

    def values(name, default):
        match = re.search(rf"window=\{{[^}}]*\b{name}=([\dx_\-]+)", attributes)
        return [int(value.split("_")[0]) for value in match[1].split("x")] if match else [default] * rank

    return tuple(values(*v) for v in (("size", 1), ("stride", 1), ("pad", 0), ("lhs_dilate", 1), ("rhs_dilate", 1)))


def _group(attributes: str) -> tuple[int, ...]:
    """The first group of devices, in any of HLO's forms."""
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", attributes):
        return tuple(map(int, listed[1].split(",")))
    if sent := re.search(r"source_target_pairs=\{([{\d,}]*)\}", attributes):
        pairs = re.findall(r"\{(\d+),(\d+)\}", sent[1])
        return next((tuple(map(int, pair)) for pair in pairs if pair[0] != pair[1]), (0,))
    if tiled := re.search(r"replica_groups=\[([\d,]+)\](<=\[[\d,]+\](?:T\([\d,]+\))?)", attributes):
        return tuple(_order(tiled[2][2:]).reshape(_split(tiled[1]))[0].tolist())
    mesh = re.search(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(([^ ]*)\))? \{([^}]*)\}", attributes)
    if not mesh:
        raise ValueError(f"replica groups of an unknown form: {attributes[:120]}")
    sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", mesh[1])}
    devices = _order(mesh[2]) if mesh[2] else np.arange(math.prod(sizes.values()))
    return _along(devices.reshape(list(sizes.values())), list(sizes), mesh[3])


def _along(devices: np.ndarray, names: list[str], axes: str) -> tuple[int, ...]:
    """The devices along some axes of a mesh, or parts of axes like 'axis_0':(1)2, beginning with the first device."""
    index: list = [0] * len(names)
    for name, before, size in re.findall(r"'(\w+)'(?::\((\d+)\)(\d+))?", axes):
        n = names.index(name)
        step = devices.shape[n] // (int(before) * int(size)) if size else 1
        index[n] = slice(0, step * int(size) if size else None, step)
    return tuple(devices[tuple(index)].reshape(-1).tolist())


def _order(tiles: str) -> np.ndarray:
    """The devices in the order of a text like [2,2,2]T(1,0,2): 0, 1, ... in that shape, transposed, flattened."""
    shape, permutation = _match(r"^\[([\d,]+)\](?:T\(([\d,]+)\))?", tiles).groups()
    order = np.arange(math.prod(_split(shape))).reshape(_split(shape))
    return (order.transpose(_split(permutation)) if permutation else order).reshape(-1)


def _split(numbers: str) -> list[int]:
    return list(map(int, numbers.split(",")))
