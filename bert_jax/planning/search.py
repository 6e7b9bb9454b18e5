"""The batch, mesh and rematerialisation that go fastest, of those that fit."""

import dataclasses
import sys
import typing

from bert_jax.config import InputError, MeshConfig, ModelConfig, PretrainConfig
from bert_jax.planning.phase import PhasePlan, plan_phase
from bert_jax.planning.topology import Topology

# Larger ones pay on models far larger than BERT.
TENSOR = (2, 4)
# A plan that is slower than the best by this, at the config's own batch, isn't tried with larger ones: a larger batch
# saves only a share of the network's time and of the update's.
HOPELESS = 2.0


def search(config: PretrainConfig, number: int, topology: Topology) -> list[PhasePlan]:
    """Plans of a phase, the fastest that fits first, those that don't fit last.

    For each mesh and rematerialisation the config's own batch is compiled, and then powers of two of rows on a device
    up to the largest that fits and the next, which doesn't. How much more fits is foretold from what was compiled, so
    that few are compiled in between.
    """
    found: dict[tuple, PhasePlan] = {}
    for mesh in _meshes(len(topology.devices)):
        for remat in _remats():
            tried = _Tries(_changed(config, mesh, remat), number, topology)
            if tried.first is None:
                continue
            best = max((p.tokens_per_second for p in found.values() if p.fits), default=0.0)
            if not tried.first.fits or tried.first.tokens_per_second * HOPELESS > best:
                tried.to_the_largest()
            found |= {(mesh, remat, batch): plan for batch, plan in tried.plans.items()}
    if not found:
        raise InputError(f"--search: no mesh of {topology} divides the model and batch {config.phases[number].batch_size}")
    return sorted(found.values(), key=lambda p: (not p.fits, -p.tokens_per_second))


def _meshes(devices: int) -> list[MeshConfig]:
    """Copies, slices of the state, slices of the work, and eight-way slices with copies."""
    sizes = [(devices, 1, 1), (1, devices, 1)]
    sizes += [(devices // tensor, 1, tensor) for tensor in TENSOR]
    sizes += [(devices // 8, 8, 1)]
    fitting = [s for s in sizes if s[0] * s[1] * s[2] == devices]
    return [MeshConfig(*s) for s in dict.fromkeys(fitting)]


def _remats() -> tuple[str, ...]:
    return typing.get_args(typing.get_type_hints(ModelConfig)["remat"])


def _changed(config: PretrainConfig, mesh: MeshConfig, remat: str) -> PretrainConfig:
    return dataclasses.replace(config, mesh=mesh, model=dataclasses.replace(config.model, remat=remat))


class _Tries:
    """What was compiled of a mesh and rematerialisation, by batch size."""

    def __init__(self, config: PretrainConfig, number: int, topology: Topology):
        self._config, self._number, self._topology = config, number, topology
        self._unit = config.mesh.data * config.mesh.fsdp * config.run.accumulate_steps
        self.plans: dict[int, PhasePlan] = {}
        own = config.phases[number].batch_size
        try:
            self.first = self._plan(own if own % self._unit == 0 else self._unit)
        except InputError:  # The mesh doesn't divide the model.
            self.first = None

    def to_the_largest(self) -> None:
        """Until a number of rows, a power of two, fits and twice as many don't."""
        rows = self._guess()
        while rows and not self._plan(rows * self._unit).fits:
            rows //= 2
        while rows and self._plan(2 * rows * self._unit).fits:
            rows *= 2

    def _guess(self) -> int:
        """The most rows by what the first plan needs, were all temporaries in proportion to them."""
        memory = self.first.memory
        free = memory.hbm - (memory.total - memory.temporaries)
        rows = int(free / memory.temporaries * self.first.batch_size / self._unit)
        return 1 << max(rows, 1).bit_length() - 1

    def _plan(self, batch: int) -> PhasePlan:
        if batch not in self.plans:
            print(f"  compiling {self._config.mesh} {self._config.model.remat} batch {batch}", file=sys.stderr)
            phases = list(self._config.phases)
            phases[self._number] = dataclasses.replace(phases[self._number], batch_size=batch)
            changed = dataclasses.replace(self._config, phases=tuple(phases))
            self.plans[batch] = plan_phase(changed, self._number, self._topology)
        return self.plans[batch]
