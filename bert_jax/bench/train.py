"""`bert-jax bench train`: a step of pretraining beside transformers' in torch, in alternating rounds of one run.

Its batches are random numbers in the shapes of a run, so it needs neither examples nor TensorFlow. Each way to run
torch has a process of its own, which waits while the others compute.
"""

import contextlib
import dataclasses
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, get_args

import jax
import numpy as np
from jax.sharding import Mesh

from bert_jax.bench import Way, compile_seconds, compiled_here, forget_peak_memory, of_a_peer, peak_memory, product
from bert_jax.config import InputError, Phase, PretrainConfig
from bert_jax.convert.huggingface import write_config
from bert_jax.devices import compiling
from bert_jax.devices.sharding import check_batch, make_mesh, put
from bert_jax.models import architecture_of, head_of
from bert_jax.training.optimizer import schedule
from bert_jax.training.program import batch_shapes, make_program, pretraining_setup
from bert_jax.training.steps import model_flops, pretraining_head

PEER = Path(__file__).with_name("torch_train.py")
BATCHES = 4
"""Number of different batches."""
FIRST_ID = 5
"""The ids below this one are the special tokens'."""


class Contestant(Protocol):
    """What is measured."""

    about: dict[str, Any]
    """Versions, the device, `first_step` (seconds from the imports until it was done, compiling included)."""

    def run(self, steps: int) -> float:
        """Does so many steps; returns the seconds."""

    def memory(self) -> int:
        """The most bytes held in all steps, on a CPU in all but the first."""

    def product(self) -> float:
        """FLOP/s of a large product of square matrices: what the device reaches, whatever its maker says."""


def bench_train(
    config: PretrainConfig,
    phase: int = 0,
    against: Sequence[Way] = ("eager", "compiled"),
    rounds: int = 5,
    seconds: float = 5.0,
    json_file: Path | None = None,
) -> dict[str, Any]:
    """Prints a table of the steps' times and memory, and ratios by round; returns the figures, as `json_file` has them.

    Args:
      config: the run. Without `model.vocab_size`, that of the tokenizer to be trained is taken.
      phase: which of its phases gives the batch's shape; 0 is the first.
      against: how torch runs: some of `bench.Way`.
      rounds: in each, all have their turn.
      seconds: the length of a turn.
      json_file: where the figures are written.

    Raises:
      InputError: a number is out of range; the peer isn't here, can't do what the config asks for, or stopped.
    """
    config.validate()
    config = compiled_here(config)
    compiling.set_up(config.run)  # Before anything else asks JAX for a device.
    if not 0 <= phase < len(config.phases):
        raise InputError(f"--phase: is {phase}, the config's phases are 0 to {len(config.phases) - 1}")
    for way in against:
        if way not in get_args(Way):
            raise InputError(f"against: {way!r}; there are {', '.join(get_args(Way))}")
    if rounds < 1 or seconds <= 0:
        raise InputError("--rounds and --seconds must be above 0")
    if json_file and not json_file.absolute().parent.is_dir():
        raise InputError(f"--json {json_file}: no such folder; make it first")
    mesh = make_mesh(config.mesh)
    check_batch({phase: config.phases[phase]}, mesh, config.run.accumulate_steps)
    if against:
        _check_peer(config, mesh)
    if config.model.vocab_size is None:
        model = dataclasses.replace(config.model, vocab_size=config.tokenizer.vocab_size)
        config = dataclasses.replace(config, model=model)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bert_jax_bench_")))
        stack.enter_context(jax.set_mesh(mesh))
        ours = _Ours(config, config.phases[phase], mesh)
        contestants: dict[str, Contestant] = {"bert_jax": ours}
        if against:
            _write_job(folder, config, ours.batches)
        for way in against:
            contestants[f"torch {way}"] = stack.enter_context(_peer(folder, way))
        shape = config.phases[phase]
        result = {
            "machine": _machine(),
            "model": _model(config, shape),
            "tokens": shape.batch_size * shape.sequence_length,
            "flops": ours.flops,
            "milliseconds": _measure(contestants, rounds, seconds),
            "contestants": {
                name: c.about | {"peak_bytes": c.memory(), "product": c.product()} for name, c in contestants.items()
            },
        }
    print(table(result))
    if json_file:
        json_file.write_text(json.dumps(result, indent=2) + "\n")
    return result


def _measure(contestants: dict[str, Contestant], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Milliseconds a step of each, in each round."""
    turns = {name: max(1, round(seconds / contestant.run(1))) for name, contestant in contestants.items()}
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds):
        for name, contestant in contestants.items():
            times[name].append(1000 * contestant.run(turns[name]) / turns[name])
        said = ", ".join(f"{name} {values[-1]:.1f}" for name, values in times.items())
        print(f"round {number + 1}: {said} ms a step", file=sys.stderr, flush=True)
    return times


# ---- Ours: the step of a run, in this process -----------------------------------------------------------------------


class _Ours:
    def __init__(self, config: PretrainConfig, phase: Phase, mesh: Mesh):
        start, compiled = time.perf_counter(), compile_seconds()
        objective, settings = pretraining_setup(config)
        self._program = program = make_program(objective, settings, mesh)
        shapes = batch_shapes(config, phase, program.rows)
        self.batches = [_batch(shapes, config, np.random.default_rng([config.seed, i])) for i in range(BATCHES)]
        self._on_device = [put(batch, dict.fromkeys(batch, program.rows)) for batch in self.batches]
        rates = schedule(settings.optimizer, settings.steps)
        self._fixed = jax.device_put((np.int32(config.seed), rates), program.everywhere)
        self._constants = put(objective.constants(), jax.tree.map(lambda x: x.sharding, program.constants))
        self._state, self._step = program.init(config.seed), 0
        self.flops = model_flops(config.model, self.batches[0])
        self.run(1)
        first_step = time.perf_counter() - start
        self.about = {
            "versions": {name: __import__(name).__version__ for name in ("jax", "flax", "optax")},
            "device": compiling.devices(),
            "first_step": first_step,
            "compiling": sum(compiled),
        }
        forget_peak_memory()

    def run(self, steps: int) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            batch = self._on_device[self._step % BATCHES]
            self._state, metrics = self._program.train_step(self._state, batch, *self._fixed, self._constants)
            self._step += 1
        jax.block_until_ready((self._state, metrics))
        return time.perf_counter() - start

    def memory(self) -> int:
        used = jax.devices()[0].memory_stats() or {}
        return used.get("peak_bytes_in_use") or peak_memory()

    def product(self) -> float:
        n = 2048 if jax.default_backend() == "cpu" else 8192
        dtype = self._program.objective.model.config.dtype
        x = jax.random.normal(jax.random.key(0), (n, n), "float32" if dtype == "float32" else "bfloat16")
        multiply = product(dtype)
        multiply(x, x, 0.0).block_until_ready()
        times = []
        for _ in range(10):
            start = time.perf_counter()
            multiply(x, x, 0.0).block_until_ready()
            times.append(time.perf_counter() - start)
        return 2 * n**3 / statistics.median(times)


def _batch(shapes: dict[str, jax.ShapeDtypeStruct], config: PretrainConfig, rng: np.random.Generator) -> dict:
    """Rows without padding, in two halves, with as many masked tokens as there may be."""
    rows, length = shapes["input_ids"].shape
    vocabulary = config.model.known_vocab_size
    masked = np.argsort(rng.random((rows, length)))[:, : shapes["masked_lm_positions"].shape[1]]
    values = {
        "input_ids": rng.integers(FIRST_ID, vocabulary, (rows, length)),
        "token_type_ids": np.broadcast_to(np.arange(length) >= length // 2, (rows, length)),
        "attention_mask": np.ones((rows, length)),
        "masked_lm_positions": np.sort(masked),
        "masked_lm_ids": rng.integers(FIRST_ID, vocabulary, masked.shape),
        "masked_lm_weights": np.ones(masked.shape),
        "next_sentence_labels": rng.integers(0, 2, rows),
        # Of packed rows: one text in each.
        "position_ids": np.broadcast_to(np.arange(length), (rows, length)),
        "sequence_ids": np.ones((rows, length)),
    }
    if config.model.type_vocab_size < 2:
        values["token_type_ids"] = np.zeros((rows, length))
    return {name: values[name].astype(shape.dtype) for name, shape in shapes.items()}


# ---- The peer: transformers in torch, in a process ------------------------------------------------------------------


def _check_peer(config: PretrainConfig, mesh: Mesh) -> None:
    if importlib.util.find_spec("transformers") is None:
        raise InputError("the peer isn't here: pip install -e '.[test]'")
    if config.optimizer.name != "adamw":
        raise InputError(f"optimizer.name: is {config.optimizer.name!r}, the peer has AdamW; take it, or no --against")
    if config.run.accumulate_steps > 1 or mesh.size > 1:
        raise InputError("the peer runs whole batches on one device; give no accumulate_steps and one device")


def _write_job(folder: Path, config: PretrainConfig, batches: list[dict[str, np.ndarray]]) -> None:
    head = pretraining_head(config)
    write_config(folder, config.model, head)
    kind = architecture_of(config.model).prefix + head_of(config.model, head).suffix
    job = dataclasses.asdict(config.optimizer) | {"class": kind, "seed": config.seed, "steps": config.total_steps}
    (folder / "job.json").write_text(json.dumps(job))
    for i, batch in enumerate(batches):
        arrays = {name: batch[name] for name in ("input_ids", "token_type_ids", "attention_mask")}
        arrays["labels"] = np.full(batch["input_ids"].shape, -100)
        np.put_along_axis(arrays["labels"], batch["masked_lm_positions"], batch["masked_lm_ids"], axis=1)
        if config.examples.sentence_pairs:
            arrays["next_sentence_label"] = batch["next_sentence_labels"]
        np.savez(folder / f"batch-{i}.npz", allow_pickle=False, **arrays)


class _Peer:
    def __init__(self, process: subprocess.Popen):
        assert process.stdin is not None and process.stdout is not None
        self._asks, self._answers = process.stdin, process.stdout
        self.about = self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._answers.readline()
        if not line:
            raise InputError("the peer stopped; its message is above")
        return json.loads(line)

    def _ask(self, what: str) -> dict[str, Any]:
        with contextlib.suppress(BrokenPipeError):  # That it has stopped is said below.
            self._asks.write(what + "\n")
            self._asks.flush()
        return self._answer()

    def run(self, steps: int) -> float:
        return self._ask(str(steps))["seconds"]

    def memory(self) -> int:
        return self._ask("0")["peak_bytes"]

    def product(self) -> float:
        return self.about["product"]


@contextlib.contextmanager
def _peer(folder: Path, way: str):
    command = [sys.executable, "-W", "ignore", str(PEER), str(folder), way]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=of_a_peer()
    ) as process:
        try:
            yield _Peer(process)
        finally:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()


# ---- What is told ---------------------------------------------------------------------------------------------------


def _machine() -> str:
    """The processor, its cores and memory."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), name)
        flags = next((line.split() for line in lines if line.startswith("flags")), [])
        name += "".join(f", {flag}" for flag in ("avx512_bf16", "amx_bf16") if flag in flags)
    return f"{name}; {os.cpu_count()} cores"


def _model(config: PretrainConfig, phase: Phase) -> str:
    m = config.model
    shape = f"{phase.batch_size} x {phase.sequence_length} tokens, {phase.max_predictions} predictions a row"
    dropout = f"dropout {m.hidden_dropout_prob:g} and {m.attention_probs_dropout_prob:g}"
    size = f"{m.num_hidden_layers} layers of {m.hidden_size}, {m.vocab_size:,} pieces"
    return f"{size}, {shape}, {m.dtype}, {dropout}, {config.optimizer.name}"


def table(result: dict[str, Any]) -> str:
    """The figures as a table in Markdown: medians over the rounds, and of the ratios also the least and the most."""
    lines = [
        f"{result['model']}; {result['machine']}; {result['contestants']['bert_jax']['device']}",
        "",
        "| | ms a step | tokens/s | times ours | GFLOP/s, of a large product's | peak memory, GB | first step, s |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    ours = result["milliseconds"]["bert_jax"]
    for name, times in result["milliseconds"].items():
        about, median = result["contestants"][name], statistics.median(times)
        ratios = sorted(theirs / mine for theirs, mine in zip(times, ours, strict=True))
        spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})" if times is not ours else ""
        speed = result["flops"] / median * 1000
        cells = [
            f"{name}, {', '.join(' '.join(version) for version in about['versions'].items())}",
            f"{median:,.1f}",
            f"{result['tokens'] / median * 1000:,.0f}",
            spread,
            f"{speed / 1e9:,.0f}, {speed / about['product']:.0%}",
            f"{about['peak_bytes'] / 1e9:.2f}",
            f"{about['first_step']:.1f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
