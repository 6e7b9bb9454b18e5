"""`bert-jax plan`: what a run will need on chips that aren't here, before you pay for them."""

import dataclasses
import json
import textwrap
from collections.abc import Sequence
from pathlib import Path

from bert_jax.config import InputError, PretrainConfig
from bert_jax.data import tokenizer_folders
from bert_jax.devices.chips import GIB
from bert_jax.planning import roofline
from bert_jax.planning.phase import CRASHED, CustomCalls, PhasePlan, plan_phase
from bert_jax.planning.scaling import scaling
from bert_jax.planning.search import search
from bert_jax.planning.topology import Topology, make_topology
from bert_jax.training.program import check_names

SHOWN = 8  # Number of collectives that are listed; the rest is summed up.


def plan(
    config: PretrainConfig,
    topology: str,
    slices: int = 1,
    phase: int | None = None,
    try_others: bool = False,
    scaling_folder: Path | None = None,
    json_file: Path | None = None,
) -> list[PhasePlan]:
    """Compiles the training step of each phase for a TPU topology and prints what it needs and does.

    Args:
      config: the run; if the model has no vocabulary size, the tokenizer's is taken.
      topology: CHIP:AxB or CHIP:AxBxC, for example v5e:4x4, or an accelerator type, for example v5litepod-16.
      slices: the number of slices, joined by the hosts' network.
      phase: plan only this phase (0 is the first).
      try_others: also try other meshes, batch sizes and rematerialisation; prints a table, the fastest first.
      scaling_folder: plan slices of all sizes up to the topology instead, and write figures and a plot to this folder.
      json_file: the file to write the plans to.

    Raises `InputError` for an unknown topology, or a mesh that fits neither it nor the config.
    """
    chosen = make_topology(topology, slices)
    config = with_vocabulary(config.validate())
    check_names(config)
    numbers = range(len(config.phases)) if phase is None else [phase]
    if not set(numbers) <= set(range(len(config.phases))):
        raise InputError(f"--phase {phase}: the config has phases 0 to {len(config.phases) - 1}")
    if scaling_folder:
        scaling(config, numbers[0], chosen, scaling_folder)
        return []
    if json_file and not json_file.parent.is_dir():
        raise InputError(f"--json {json_file}: there is no folder {json_file.parent}")
    plans = []
    if not try_others:
        print(_head(config, chosen))
    for number in numbers:
        if try_others:
            phase_plans = search(config, number, chosen)
            print(_table(phase_plans, config, number, chosen), flush=True)
        else:
            phase_plans = [plan_phase(config, number, chosen)]
            print(_report(phase_plans[0], chosen), flush=True)
        plans += phase_plans
    if len(plans) > 1 and not try_others and all(p.times for p in plans):
        hours = sum(p.hours for p in plans)
        print(f"all phases            {hours / 24:,.2f} days, {hours * plans[0].chips:,.0f} chip-hours\n")
    print(roofline.ASSUMED)
    if json_file:
        json_file.write_text(json.dumps([p.to_dict() for p in plans], indent=1) + "\n")
    return plans


def with_vocabulary(config: PretrainConfig) -> PretrainConfig:
    """The config with a vocabulary size: its own, that of the tokenizer's file, or that of the tokenizer to train."""
    if config.model.vocab_size is not None:
        return config
    file = config.tokenizer.path
    size = tokenizer_folders.load(file, config.tokenizer).vocab_size if file else config.tokenizer.vocab_size
    return dataclasses.replace(config, model=dataclasses.replace(config.model, vocab_size=size))


def _head(config: PretrainConfig, topology: Topology) -> str:
    m = config.model
    model = f"{m.num_hidden_layers} layers, {m.hidden_size} wide, {m.vocab_size:,} pieces, {m.dtype}"
    return f"{model}, on {topology} ({len(topology.devices)} chips)\n"


def _report(p: PhasePlan, topology: Topology) -> str:
    mesh = " x ".join(f"{axis} {size}" for axis, size in p.mesh.items())
    lines = [
        f"phase {p.number}: length {p.sequence_length}, batch {p.batch_size:,}, {p.steps:,} steps; mesh {mesh}; "
        f"remat {p.remat}",
        *_memory_lines(p),
    ]
    if p.times:
        lines += [*_work_lines(p), *_time_lines(p, p.times, topology)]
    return "\n".join(lines) + "\n"


def _memory_lines(p: PhasePlan) -> list[str]:
    m = p.memory
    left = m.hbm - m.total
    verdict = f"fits, {left / GIB:.2f} left" if p.fits else f"DOESN'T FIT, {-left / GIB:.2f} too much"
    if p.refused == CRASHED:
        return [f"  DOESN'T COMPILE: {CRASHED}; try another model.remat, or dropout 0"]
    if p.refused:
        verdict = "DOESN'T FIT, says the compiler; try a smaller batch, run.accumulate_steps, model.remat, mesh.fsdp"
    rows = [
        ("parameters", m.parameters),
        ("optimizer", m.optimizer),
        ("batch, outputs, code", m.batch + m.outputs + m.code),
        ("activations and temporaries", m.temporaries),
    ]
    lines = [f"    {name:<28}{size / GIB:8.2f} GiB" for name, size in rows]
    return [
        "  memory of a chip",
        *lines,
        f"    {'together':<28}{m.total / GIB:8.2f} GiB of {m.hbm / GIB:.2f}: {verdict}",
    ]


def _work_lines(p: PhasePlan) -> list[str]:
    lines = [
        "  a step on a chip",
        f"    model FLOPs                 {p.model_flops / 1e12:8.3f} T (by formula), "
        f"{p.compiled_flops / 1e12:.3f} T as compiled",
        f"    HBM traffic                 {p.hbm_traffic / 1e9:8.2f} GB",
        *_custom_call_lines(p.custom_calls),
    ]
    for t in p.collectives[:SHOWN]:
        size = f"{t.bytes / 1e6:.2f} MB x {t.times}"
        lines.append(f"    {t.kind + ' over ' + t.axes:<28}{size:>16}{t.seconds * 1e3:9.2f} ms{' hidden' * t.hidden}")
    if rest := p.collectives[SHOWN:]:
        count, seconds = sum(t.times for t in rest), sum(t.seconds for t in rest)
        lines.append(f"    {f'{count} smaller ones':<28}{'':>16}{seconds * 1e3:9.2f} ms")
    return lines


def _custom_call_lines(calls: Sequence[CustomCalls]) -> list[str]:
    """A line for each kernel with FLOPs, or unknown ones, and one for all calls without arithmetic."""
    counted = [f"    {c.target + f' x {c.times}':<28}{c.flops / 1e12:8.3f} T of these FLOPs" for c in calls if c.flops]
    unknown = [
        f"    {c.target} x {c.times}: NOT COUNTED, a custom call of unknown FLOPs" for c in calls if c.flops is None
    ]
    if still := [f"{c.target} x {c.times}" for c in calls if c.flops == 0]:
        unknown += textwrap.wrap(
            f"custom calls without arithmetic: {', '.join(still)}",
            110,
            initial_indent="    ",
            subsequent_indent="      ",
        )
    return counted + unknown


def _time_lines(p: PhasePlan, t: roofline.Times, topology: Topology) -> list[str]:
    bound = max((t.compute, "compute"), (t.memory, "memory"), (t.network, "network"))[1]
    utilisation = p.model_flops / t.step / topology.chip.peak_flops
    return [
        f"  roofline: compute {t.compute * 1e3:.1f} ms, memory {t.memory * 1e3:.1f} ms, network "
        f"{t.network * 1e3:.1f} ms ({t.waiting * 1e3:.1f} waited for); a step {t.step * 1e3:.1f} ms, bound by {bound}",
        f"    at most {p.tokens_per_second:,.0f} tokens/s, {p.tokens_per_second / p.chips:,.0f} a chip, "
        f"{utilisation:.0%} of the peak",
        f"    at least {p.hours / 24:,.2f} days, {p.hours * p.chips:,.0f} chip-hours",
    ]


def _table(plans: list[PhasePlan], config: PretrainConfig, number: int, topology: Topology) -> str:
    phase = config.phases[number]
    lines = [
        _head(config, topology),
        f"phase {number}: length {phase.sequence_length}, batch {phase.batch_size:,} in the config",
        "  data x fsdp x tensor  remat      batch  GiB a chip  ms a step  tokens/s/chip",
    ]
    for p in plans:
        mesh = " x ".join(str(size) for size in p.mesh.values())
        room = "" if p.refused == CRASHED else f"{p.memory.total / GIB:.2f}"
        row = f"  {mesh:<22}{p.remat:<10}{p.batch_size:>6,}{room:>12}"
        speed = f"{p.times.step * 1e3:>11.1f}{p.tokens_per_second / p.chips:>15,.0f}" if p.times else ""
        why = "" if p.fits else f"  {CRASHED}" if p.refused == CRASHED else "  doesn't fit"
        lines.append(row + speed + why)
    return "\n".join(lines) + "\n"
