"""Compiles one phase of a config for one mesh, and tells what it needs on each chip."""

import dataclasses
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from bert_jax.config import InputError, PretrainConfig, files
from bert_jax.devices import sharding
from bert_jax.devices.chips import GIB
from bert_jax.devices.memory import bytes_on_a_device
from bert_jax.models.attention import known_flops
from bert_jax.planning import roofline
from bert_jax.planning.costs import Costs, CustomCall, costs
from bert_jax.planning.topology import Topology, make_topology
from bert_jax.training import steps
from bert_jax.training.program import batch_shapes, make_program, pretraining_setup

# Executed first by the process that compiles, since they may define what the config names.
CONFIG_FILES: list[Path] = []
NO_ROOM = "no room"
CRASHED = "libtpu's compiler crashed"
COMPILE = [sys.executable, "-c", "from bert_jax.planning.phase import main; main()"]
UNITS = {"K": 1 << 10, "M": 1 << 20, "G": GIB, "T": 1 << 40}


@dataclass(frozen=True)
class Memory:
    """Bytes on a chip. The old state is donated: the new one reuses its memory, so it counts once."""

    parameters: int
    optimizer: int
    batch: int
    hbm: float
    """The memory that a chip has for a program."""
    temporaries: int = 0
    """Activations, gradients and other temporary values of the step, by the compiler's report."""
    outputs: int = 0
    """Results that don't reuse the memory of an argument."""
    code: int = 0

    @property
    def total(self) -> int:
        return self.parameters + self.optimizer + self.batch + self.temporaries + self.outputs + self.code


@dataclass(frozen=True)
class Traffic:
    """Collectives of the same kind, over the same axes, and of the same size."""

    kind: str
    axes: str
    bytes: int
    times: int
    hidden: bool
    seconds: float
    """The seconds of all of them together."""


@dataclass(frozen=True)
class CustomCalls:
    """Calls of the same kernel, or other program that the compiler didn't make."""

    target: str
    times: int
    flops: float | None
    """FLOPs of all these calls, included in `compiled_flops`: 0 if they do no arithmetic; None if they are unknown and
    so not included."""


@dataclass(frozen=True)
class PhasePlan:
    """What a phase of a config needs and does on each chip, and its least time."""

    number: int
    mesh: dict[str, int]
    remat: str
    chips: int
    sequence_length: int
    batch_size: int
    steps: int
    memory: Memory
    model_flops: float
    """FLOPs of a step on a chip, by the formula of `Architecture.flops_per_token`."""
    refused: str = ""
    """Why it doesn't compile: `NO_ROOM` (`memory.temporaries` is the need) or `CRASHED`; the costs are then unknown."""
    compiled_flops: float = 0.0
    hbm_traffic: float = 0.0
    collectives: tuple[Traffic, ...] = ()
    custom_calls: tuple[CustomCalls, ...] = ()
    times: roofline.Times | None = None

    @property
    def fits(self) -> bool:
        return not self.refused and self.memory.total <= self.memory.hbm

    @property
    def tokens_per_second(self) -> float:
        return self.batch_size * self.sequence_length / self.times.step if self.times else 0.0

    @property
    def hours(self) -> float:
        return self.steps * self.times.step / 3600 if self.times else 0.0

    def to_dict(self) -> dict:
        """The plan as JSON values, with the totals: bytes, seconds, hours."""
        values = {name: _plain(value) for name, value in vars(self).items()}
        values["memory"]["total"] = self.memory.total
        if self.times:
            values["times"] |= {"step": self.times.step, "network": self.times.network}
        derived = {"tokens_per_second": self.tokens_per_second, "hours": self.hours}
        return {**values, "fits": self.fits, **derived, "chip_hours": self.hours * self.chips}


def _plain(value):
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return dict(vars(value)) if hasattr(value, "__dict__") else value


def plan_phase(config: PretrainConfig, number: int, topology: Topology) -> PhasePlan:
    """Compiles the training step of a phase (0 is the first) for the topology, which takes seconds to minutes.

    It runs in its own process, since some programs crash libtpu's compiler. Raises `InputError` where the mesh doesn't
    fit the chips, the batch or the model.
    """
    plan, _ = _outline(config, number, topology)
    request = pickle.dumps((CONFIG_FILES, (config, number, topology.name, topology.slices)))
    child = subprocess.run(COMPILE, input=request, capture_output=True)
    if child.returncode in (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS):
        return dataclasses.replace(plan, refused=CRASHED)
    if child.returncode == -signal.SIGKILL:
        raise InputError("compiling was killed, probably for lack of memory; it needs a few GiB on this machine")
    if child.returncode:
        raise RuntimeError(f"compiling ended with {child.returncode}: {child.stderr.decode(errors='replace')[-4000:]}")
    return pickle.loads(child.stdout)


def main() -> None:
    """The process that compiles: reads the request from standard input, writes the plan to standard output."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    answer = os.dup(1)
    os.dup2(2, 1)  # What libtpu prints must not mix with the answer.
    config_files, arguments = pickle.load(sys.stdin.buffer)
    for file in config_files:
        files.execute(file)
    plan = _compiled(*arguments)
    with open(answer, "wb") as stream:
        pickle.dump(plan, stream)


def _end_with(parent: int) -> None:
    """Ends this process if its parent has ended: nobody then reads the answer."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _compiled(config: PretrainConfig, number: int, topology_name: str, slices: int) -> PhasePlan:
    topology = make_topology(topology_name, slices)
    plan, lowered = _outline(config, number, topology)
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        memory = dataclasses.replace(plan.memory, temporaries=_needed(str(error), plan.memory.total))
        return dataclasses.replace(plan, memory=memory, refused=NO_ROOM)
    text, stats = compiled.as_text(), compiled.memory_analysis()
    assert text is not None and stats is not None  # libtpu gives both.
    counted = costs(text, known=known_flops)
    mesh = sharding.make_mesh(config.mesh, topology.devices)
    coordinates = [tuple(device.coords) for device in mesh.devices.flat]
    return dataclasses.replace(
        plan,
        memory=dataclasses.replace(
            plan.memory,
            temporaries=stats.temp_size_in_bytes,
            outputs=stats.output_size_in_bytes - stats.alias_size_in_bytes,
            code=stats.generated_code_size_in_bytes,
        ),
        compiled_flops=counted.flops,
        hbm_traffic=counted.bytes,
        collectives=_grouped(counted, topology, mesh, coordinates),
        custom_calls=_custom_calls(counted),
        times=roofline.times(counted, topology.chip, coordinates, topology.shape),
    )


def _outline(config: PretrainConfig, number: int, topology: Topology) -> tuple[PhasePlan, jax.stages.Lowered]:
    """The plan as far as it is known before compiling, and the program to compile."""
    phase = config.phases[number]
    mesh = sharding.make_mesh(config.mesh, topology.devices)
    sharding.check_batch({number: phase}, mesh, config.run.accumulate_steps)
    program = make_program(*pretraining_setup(config), mesh)
    batch = batch_shapes(config, phase, program.rows)
    memory = Memory(
        parameters=bytes_on_a_device(program.state["params"]),
        optimizer=bytes_on_a_device(program.state["opt_state"]) + bytes_on_a_device(program.state["step"]),
        batch=bytes_on_a_device(batch),
        hbm=topology.chip.hbm_bytes,
    )
    plan = PhasePlan(
        number=number,
        mesh=dict(mesh.shape),
        remat=program.objective.model.config.remat,
        chips=len(topology.devices),
        sequence_length=phase.sequence_length,
        batch_size=phase.batch_size,
        steps=phase.steps,
        memory=memory,
        model_flops=steps.model_flops(config.model, batch) / len(topology.devices),
    )
    with jax.set_mesh(mesh):
        return plan, program.lowered(batch)


def _needed(message: str, arguments: int) -> int:
    """Bytes of temporaries that the compiler needed: its message names them, or the total memory."""
    temporaries = re.search(r"temporaries \(([\d.]+)([KMGT])", message)
    size = temporaries or re.search(r"Used ([\d.]+)([KMGT])", message)
    if not size:
        raise ValueError(f"the compiler's refusal doesn't say how much it needs: {message}")
    needed = float(size[1]) * UNITS[size[2]]
    return int(needed if temporaries else max(needed - arguments, 0))


def _grouped(costs: Costs, topology: Topology, mesh: Mesh, coordinates) -> tuple[Traffic, ...]:
    """The collectives, with equal ones together, the longest first."""
    counts: Counter = Counter()
    seconds = {}
    for c in costs.collectives:
        key = (c.kind, _axes(c.group, mesh), c.bytes, c.asynchronous)
        counts[key] += c.times
        seconds[key] = roofline.seconds_of(c, topology.chip, coordinates, topology.shape)
    traffic = [
        Traffic(kind, axes, size, times, hidden, times * seconds[kind, axes, size, hidden])
        for (kind, axes, size, hidden), times in counts.items()
    ]
    return tuple(sorted(traffic, key=lambda t: -t.seconds))


def _custom_calls(costs: Costs) -> tuple[CustomCalls, ...]:
    """The custom calls by target, those of unknown FLOPs apart from the others."""
    calls: dict[tuple[str, bool], list[CustomCall]] = {}
    for call in costs.custom_calls:
        calls.setdefault((call.target, call.flops is None), []).append(call)
    return tuple(
        CustomCalls(
            target, sum(c.times for c in same), None if unknown else sum(c.times * (c.flops or 0) for c in same)
        )
        for (target, unknown), same in sorted(calls.items())
    )


def _axes(group: tuple[int, ...], mesh: Mesh) -> str:
    """The mesh's axes along which a group of its devices extends."""
    if not group:
        return "slices"
    indices = np.unravel_index(group, mesh.devices.shape)
    return " x ".join(axis for axis, along in zip(mesh.axis_names, indices, strict=True) if len(set(along)) > 1)
