"""How a chip's memory, traffic and speed change from one chip to a pod: a plot and tables made from plans."""

import dataclasses
import json
import math
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bert_jax.config import InputError, MeshConfig, PretrainConfig
from bert_jax.data.workers import granted_cores
from bert_jax.devices.chips import GIB
from bert_jax.planning.phase import PhasePlan, plan_phase
from bert_jax.planning.topology import Topology, make_topology

SIZES = {2: ("1x1", "2x2", "4x4", "8x8", "16x16"), 3: ("2x2x1", "2x2x4", "4x4x4", "4x8x8", "8x8x16", "16x16x16")}
# Weak scaling: the tokens for each chip in a step, for any number of chips.
TOKENS = 4096
# Ways to divide the work: the name of the curve, and the mesh over n chips.
MESHES: dict[str, Callable[[int], MeshConfig]] = {
    "data": lambda n: MeshConfig(n, 1, 1),
    "fsdp": lambda n: MeshConfig(1, n, 1),
    "data x fsdp 4": lambda n: MeshConfig(n // 4, 4, 1),
    "data x tensor 2": lambda n: MeshConfig(n // 2, 1, 2),
}


def scaling(config: PretrainConfig, number: int, largest: Topology, folder: Path) -> None:
    """Plans a phase (0 is the first) on growing slices of a chip, up to `largest`.

    Weak scaling: `TOKENS` for each chip, divided by each of the `MESHES`; strong scaling: the phase's batch, divided
    over `data`. Writes `scaling.json`, `scaling.png` and the tables of `scaling.md` to the folder.
    """
    chip = largest.name.partition(":")[0]
    most = math.prod(largest.shape)
    sizes = [size for size in SIZES[largest.chip.axes] if math.prod(map(int, size.split("x"))) <= most]
    topologies = [make_topology(f"{chip}:{size}") for size in sizes]
    rows = max(TOKENS // config.phases[number].sequence_length, 1)
    jobs = [("strong", "data", t, config.phases[number].batch_size) for t in topologies]
    for topology in topologies:
        chips = len(topology.devices)
        divisions: dict[MeshConfig, str] = {}  # For few chips, several meshes are the same.
        for name, mesh in MESHES.items():
            if math.prod(vars(mesh(chips)).values()) == chips:
                divisions.setdefault(mesh(chips), name)
        jobs += [("weak", name, topology, rows * chips) for name in divisions.values()]
    with ThreadPoolExecutor(max(1, granted_cores() // 2)) as pool:
        plans = list(pool.map(lambda job: _planned(config, number, *job), jobs))
    results = [(kind, name, plan) for (kind, name, _, _), plan in zip(jobs, plans, strict=True) if plan]
    folder.mkdir(parents=True, exist_ok=True)
    values = [{"scaling": kind, "division": name, **plan.to_dict()} for kind, name, plan in results]
    (folder / "scaling.json").write_text(json.dumps(values, indent=1) + "\n")
    (folder / "scaling.md").write_text(_tables(results))
    _draw(results, folder / "scaling.png")
    print(_tables(results), end="")


def _planned(
    config: PretrainConfig, number: int, kind: str, name: str, topology: Topology, batch: int
) -> PhasePlan | None:
    """The plan of a job; None where the mesh can't divide it, for example with fewer rows than devices."""
    phases = list(config.phases)
    phases[number] = dataclasses.replace(phases[number], batch_size=batch)
    mesh = MESHES[name](len(topology.devices))
    print(f"compiling {topology}, {kind}, {name}, batch {batch:,}", file=sys.stderr, flush=True)
    try:
        return plan_phase(dataclasses.replace(config, phases=tuple(phases), mesh=mesh), number, topology)
    except InputError:
        return None


def traffic(plan: PhasePlan) -> int:
    """Bytes of a chip's arrays that pass through collectives in a step."""
    return sum(t.bytes * t.times for t in plan.collectives)


def _tables(results: list[tuple[str, str, PhasePlan]]) -> str:
    text = ""
    for kind in ("weak", "strong"):
        text += f"### {kind.capitalize()} scaling\n\n"
        text += "| chips | divided by | batch | GiB a chip | HBM GB | collectives MB | step ms | tokens/s/chip |\n"
        text += "|---|---|---|---|---|---|---|---|\n"
        for _, name, p in sorted((r for r in results if r[0] == kind), key=lambda r: r[2].chips):
            costs = "doesn't fit | | | |"
            if p.times:
                speed = p.tokens_per_second / p.chips
                costs = (
                    f"{p.hbm_traffic / 1e9:.1f} | {traffic(p) / 1e6:.0f} | {p.times.step * 1e3:.1f} | {speed:,.0f} |"
                )
            text += f"| {p.chips} | {name} | {p.batch_size:,} | {p.memory.total / GIB:.2f} | {costs}\n"
        text += "\n"
    return text


def _draw(results: list[tuple[str, str, PhasePlan]], png: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), layout="constrained")
    (memory, network), (weak, strong) = axes = figure.subplots(2, 2)
    for i, name in enumerate(MESHES):
        plans = [p for kind, n, p in results if kind == "weak" and n == name]
        style = dict(color=f"C{i}", marker="o", markersize=4, label=name)
        memory.plot([p.chips for p in plans], [p.memory.total / GIB for p in plans], **style)
        plans = [p for p in plans if p.times]
        network.plot([p.chips for p in plans], [traffic(p) / 1e6 for p in plans], **style)
        weak.plot([p.chips for p in plans], [p.tokens_per_second / p.chips / 1e3 for p in plans], **style)
    plans = [p for kind, _, p in results if kind == "strong" and p.times]
    chips = [p.chips for p in plans]
    strong.plot(chips, [p.tokens_per_second / 1e6 for p in plans], marker="o", markersize=4, label="data")
    ideal = [plans[0].tokens_per_second * n / chips[0] / 1e6 for n in chips]
    strong.plot(chips, ideal, color="0.6", linestyle="--", label="in proportion")
    strong.set_yscale("log")
    memory.axhline(plans[0].memory.hbm / GIB, color="0.6", linestyle="--", label="HBM")
    memory.set(title="GiB a chip", ylim=(0, None))
    network.set(title="MB through collectives, a chip and step", ylim=(0, None))
    weak.set(title=f"thousand tokens/s a chip, at {TOKENS:,} tokens a chip", ylim=(0, None))
    strong.set(title=f"million tokens/s, batch {plans[0].batch_size} x {plans[0].sequence_length}")
    for plot in axes.flat:
        plot.set_xscale("log", base=2)
        plot.set(xlabel="chips", xticks=sorted({p.chips for _, _, p in results}))
        plot.xaxis.set_major_formatter("{x:.0f}")
        plot.grid(alpha=0.3)
        plot.spines[["top", "right"]].set_visible(False)
    for plot in (memory, strong):
        plot.legend(frameon=False)
    figure.savefig(png, dpi=120)
