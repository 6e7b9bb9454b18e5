"""Parses the HLO text of a compiled program: computations, loops, groups of devices. `costs` counts its work."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4, "u32": 4}
BYTES |= {"f64": 8, "s64": 8, "u64": 8, "token": 0}


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

    @property
    def target(self) -> str:
        """The target of a custom call."""
        return matched(r'custom_call_target="([^"]*)"', self.attributes)[1]

    @property
    def operation(self) -> str:
        """The path of the JAX program's operation from which this was made; empty where XLA added it."""
        named = re.search(r'\bop_name="([^"]*)"', self.attributes)
        return named[1] if named else ""

    def called(self, attribute: str) -> str:
        return matched(rf"\b{attribute}=%?([\w.\-]+)", self.attributes)[1]


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


class Module:
    """Raises `ValueError` where the text has another form."""

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
        at = int(matched(r"\bindex=(\d+)", counters[0].attributes)[1])
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


def _computation(name: str, lines: list[str]) -> Computation:
    instructions = {line: instruction(line) for line in lines}
    root = matched(r"(?m)^[ \t]+ROOT .*", "\n".join(lines))[0]
    return Computation(name, {i.name: i for i in instructions.values()}, instructions[root])


def instruction(line: str) -> Instruction:
    name, rest = matched(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*)", line).groups()
    opcode = matched(r" ([a-z][a-z0-9\-]*)\(", rest)
    arrays = tuple(
        Array(type, tuple(map(int, filter(None, dims.split(",")))), "S(" not in (layout or ""))
        for type, dims, layout in re.findall(r"\b([a-z]\w*)\[([\d,]*)\](\{[^}]*\})?", rest[: opcode.start()])
    )
    inside = rest[opcode.end() : _closing(rest, opcode.end())]
    attributes = rest[opcode.end() + len(inside) + 1 :]
    constant = opcode[1] == "constant"
    operands = () if constant else tuple(re.findall(r"%([\w.\-]+)", inside))
    return Instruction(name, arrays, opcode[1], operands, inside, attributes)


def matched(pattern: str, text: str) -> re.Match[str]:
    """The first match. Raises `ValueError` where there is none."""
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


def _branches(i: Instruction) -> list[str]:
    if several := re.search(r"branch_computations=\{([^}]*)\}", i.attributes):
        return re.findall(r"%?([\w.\-]+)", several[1])
    return [i.called("true_computation"), i.called("false_computation")]


def numbers(attribute: str, i: Instruction) -> tuple[int, ...]:
    match = re.search(rf"\b{attribute}=\{{?([\d,]*)", i.attributes)
    return tuple(map(int, filter(None, match[1].split(",")))) if match else ()


def group(attributes: str) -> tuple[int, ...]:
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
    shape, permutation = matched(r"^\[([\d,]+)\](?:T\(([\d,]+)\))?", tiles).groups()
    order = np.arange(math.prod(_split(shape))).reshape(_split(shape))
    return (order.transpose(_split(permutation)) if permutation else order).reshape(-1)


def _split(numbers: str) -> list[int]:
    return list(map(int, numbers.split(",")))
