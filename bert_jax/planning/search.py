"""Searches the fastest batch size, mesh and rematerialisation among those that fit."""

import dataclasses
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import get_args

from bert_jax.config import InputError, MeshConfig, PretrainConfig
from bert_jax.config.models import Remat
from bert_jax.data.workers import granted_cores
from bert_jax.devices import sharding
from bert_jax.planning.phase import PhasePlan, plan_phase
from bert_jax.planning.topology import Topology
from bert_jax.training.program import make_program, pretraining_setup

# Sizes of the tensor axis to try; larger ones only pay off for models far larger than BERT.
TENSOR = (2, 4)
# For this many of the fastest pairs of mesh and rematerialisation, the largest batch is searched.
ENLARGED = 2


def search(config: PretrainConfig, number: int, topology: Topology) -> list[PhasePlan]:
    """Plans of a phase (0 is the first): the fastest that fits first, those that don't fit last.

    Compiling takes long, so not everything is compiled: the meshes with the config's batch and rematerialisation, then
    the best mesh with each other rematerialisation, then, for the fastest pairs, powers of two of rows on a device, up
    to the largest that fits and the next, which doesn't. Raises `InputError` where no mesh divides model and batch.
    """
    tries = [_Tries(config, mesh, config.model.remat, number, topology) for mesh in meshes(len(topology.devices))]
    tries = [t for t in tries if t.possible]
    if not tries:
        raise InputError(f"--search: no mesh over the {len(topology.devices)} chips divides the model")
    _at_once(_Tries.own, tries)
    best = min(tries, key=lambda t: _rank(t.own()))
    others = [name for name in get_args(Remat) if name not in ("auto", best.own().remat)]
    tries += _at_once(_Tries.own, [_Tries(config, best.mesh, name, number, topology) for name in others])
    _at_once(_Tries.to_the_largest, sorted(tries, key=lambda t: _rank(t.own()))[:ENLARGED])
    return sorted((plan for t in tries for plan in t.plans.values()), key=_rank)


def meshes(devices: int) -> list[MeshConfig]:
    """The meshes to try: only data, only fsdp, fsdp among eight neighbours, and tensor of each size."""
    sizes = [(devices, 1, 1), (1, devices, 1), (devices // 8, 8, 1)]
    sizes += [(devices // tensor, 1, tensor) for tensor in TENSOR]
    return [MeshConfig(*s) for s in dict.fromkeys(sizes) if s[0] * s[1] * s[2] == devices]


def _rank(plan: PhasePlan) -> tuple:
    """The sort key of plans: those that fit by their speed, then the others by the memory that they need."""
    return (not plan.fits, -plan.tokens_per_second if plan.fits else plan.memory.total)


def _at_once(method, tries: Iterable["_Tries"]) -> list["_Tries"]:
    """Calls the method on all, several at a time: a compilation keeps about two CPU cores busy."""
    tries = list(tries)
    with ThreadPoolExecutor(max(1, granted_cores() // 2)) as pool:
        list(pool.map(method, tries))
    return tries


class _Tries:
    """The plans of one mesh and rematerialisation, by batch size."""

    def __init__(self, config: PretrainConfig, mesh: MeshConfig, remat: Remat, number: int, topology: Topology):
        model = dataclasses.replace(config.model, remat=remat)
        self._config = dataclasses.replace(config, mesh=mesh, model=model)
        self._number, self._topology = number, topology
        self._unit = mesh.data * mesh.fsdp * config.run.accumulate_steps  # One row on each device, in each part.
        self.mesh = mesh
        self.plans: dict[int, PhasePlan] = {}

    @property
    def possible(self) -> bool:
        """Whether the mesh divides the model; found without compiling."""
        try:
            make_program(*pretraining_setup(self._config), sharding.make_mesh(self.mesh, self._topology.devices))
        except InputError:
            return False
        return True

    def own(self) -> PhasePlan:
        """The plan with the config's batch, or with one row on each device if the mesh doesn't divide it."""
        batch = self._config.phases[self._number].batch_size
        return self._plan(batch if batch % self._unit == 0 else self._unit)

    def to_the_largest(self) -> None:
        """Plans batches until a power of two of rows on a device fits and twice that doesn't."""
        rows = self._guess()
        while rows and not self._plan(rows * self._unit).fits:
            rows //= 2
        while rows and self._plan(2 * rows * self._unit).fits:
            rows *= 2

    def _guess(self) -> int:
        """The most rows on a device, if all temporaries were proportional to the rows; a power of two."""
        memory = self.own().memory
        free = memory.hbm - (memory.total - memory.temporaries)
        rows = int(free / memory.temporaries * self.own().batch_size / self._unit)
        return 1 << max(rows, 1).bit_length() - 1

    def _plan(self, batch: int) -> PhasePlan:
        if batch not in self.plans:
            c = self._config
            mesh = f"{c.mesh.data} x {c.mesh.fsdp} x {c.mesh.tensor}"
            print(f"compiling mesh {mesh}, remat {c.model.remat}, batch {batch:,}", file=sys.stderr, flush=True)
            phases = list(c.phases)
            phases[self._number] = dataclasses.replace(phases[self._number], batch_size=batch)
            self.plans[batch] = plan_phase(dataclasses.replace(c, phases=tuple(phases)), self._number, self._topology)
        return self.plans[batch]
