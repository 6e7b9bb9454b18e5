"""The training loop, from the mesh to the last checkpoint."""

import contextlib
import dataclasses
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from bert_jax.cluster.signals import Stopped
from bert_jax.config import InputError, RunConfig
from bert_jax.devices import compiling
from bert_jax.devices.memory import Ahead, compile_ahead, refusals
from bert_jax.devices.sharding import global_batch, put
from bert_jax.files import storage
from bert_jax.files.printable import say
from bert_jax.models import losses
from bert_jax.objectives import Objective
from bert_jax.training import steps
from bert_jax.training.checkpoints import Checkpoints, check_same_run
from bert_jax.training.interrupt import Interrupt
from bert_jax.training.metrics import Metrics, peak_flops
from bert_jax.training.optimizer import schedule
from bert_jax.training.program import Program, Settings, make_program

Batch = dict[str, np.ndarray]

# How many batches are on the device before the step that takes them, and how many steps are started before the first
# of them has ended.
AHEAD = 2
# The steps in a trace, counted from the start: the first ones compile.
PROFILED = range(5, 10)


# Scores, by the names in the log, of parameters after a number of steps. It calls the given function after each batch,
# which raises `Stopped` if the run is to end.
Evaluate = Callable[[Any, int, Callable[[], None]], dict[str, float]]


@dataclasses.dataclass(frozen=True)
class Training:
    """All that the loop needs to know of a run."""

    name: str
    """The command's name, for the progress bar."""
    objective: Objective
    settings: Settings
    seed: int
    """The seed of the first weights and of dropout."""
    run: RunConfig
    batches: Callable[[int], Iterator[Batch]]
    """The batches from a step (0 is the first) to the last: NumPy arrays with the rows of this process."""
    ahead: Callable[[Program, int], Iterator[Ahead]]
    """The programs to compile, and check against the devices' memory, before this step; others compile when needed."""
    evaluation: Callable[[Program], Evaluate]
    score: Callable[[dict[str, float]], float | None]
    """The score of an evaluation; the checkpoint with the highest is kept. None: there is nothing to compare."""
    about: dict
    """What a checkpoint says about the run: `config`, `examples`, `init` (where the first parameters came from), ..."""
    tokenizer: dict


@dataclasses.dataclass(frozen=True)
class Result:
    """How the loop ended."""

    step: int
    """The number of steps done, including those of earlier commands."""
    scores: dict[str, float]
    """The evaluation after the last step, by name, as in metrics.jsonl; empty if there is nothing to evaluate on, or
    the run was stopped."""
    signal: int | None = None
    """The signal that stopped it early."""
    best: int | None = None
    """The step of the checkpoint with the highest score; None if no checkpoint has a score."""
    steps_per_second: float | None = None
    """The speed of training alone, without compilation and evaluation; None if there were no such steps."""


def train(training: Training, workdir: Path, mesh: Mesh, init: Callable | None = None, profile: bool = False) -> Result:
    """Trains to the last step, resuming from the workdir's last checkpoint if there is one.

    `init` turns fresh parameters into those to start from, with the same shardings. Raises `InputError` if the
    checkpoint is of another run, a device's memory is too small, or too many updates in a row weren't finite. SIGINT
    and SIGTERM save before they end the run.
    """
    # ---- Model and optimizer; the state's shapes and shardings, the jitted steps ----------------------------------
    program = make_program(training.objective, training.settings, mesh)
    total = training.settings.steps
    learning_rate = schedule(training.settings.optimizer, total)
    # Sent to the devices once, not with each step.
    seed, rates = jax.device_put((np.int32(training.seed), learning_rate), program.everywhere)
    constants = put(training.objective.constants(), jax.tree.map(lambda x: x.sharding, program.constants))
    evaluate = training.evaluation(program)

    # ---- Where to start: 1. resume, 2. the weights given, 3. from scratch; nothing is ever held unsharded ---------
    run, about = training.run, training.about
    checkpoints = Checkpoints(workdir / "checkpoints", run, writing=True)
    if checkpoints.latest is not None:
        saved = checkpoints.about(checkpoints.latest)
        check_same_run(saved, about, workdir)
        about = about | {name: saved[name] for name in ("init", "embedding") if name in saved}
    with jax.set_mesh(mesh):  # Before the state is made, which may itself be too large.
        compile_ahead(training.ahead(program, checkpoints.latest or 0))
    if checkpoints.latest is not None:
        state = checkpoints.restore(checkpoints.latest, program.state)
    else:
        state = program.init(seed)
        if init is not None:
            state["params"] = init(state["params"])
    step = int(state["step"])

    # ---- The loop -------------------------------------------------------------------------------------------------
    started = step
    with checkpoints.room(workdir):
        metrics = Metrics(workdir, step)
    held_out: dict[str, float] = {}
    with (
        checkpoints.room(workdir),
        refusals("the run", "make room by smaller batches, run.accumulate_steps, mesh.fsdp"),
        jax.set_mesh(mesh),
        Interrupt() as interrupt,
        contextlib.closing(checkpoints),
        contextlib.closing(metrics),
        _Trace(workdir / "profile" if profile else None) as trace,
        tqdm(total=total, initial=step, desc=training.name, unit=" steps", dynamic_ncols=True) as bar,
        compiling.shown_in(bar),
    ):
        pending: list[dict] = []  # The metrics, still on the device, of the steps since the last row.
        clock, compiled = _Clock(), set()

        def save() -> None:
            with clock.paused():
                checkpoints.save(step, state, about, training.tokenizer)
                metrics.upload()

        def measure() -> dict[str, float]:
            """The scores after this step; also logged, unless an earlier command has done that."""
            with clock.paused():
                scores = evaluate(state["params"], step, interrupt.check)
                lost = [f"{name} is {value}" for name, value in scores.items() if not math.isfinite(value)]
                if lost and jax.process_index() == 0:
                    bar.clear()
                    what = "a checkpoint whose score isn't a finite number is never the best"
                    say(f"warning: step {step}: {', '.join(lost)}; {what}", file=sys.stderr)
                if checkpoints.score(step) is None:
                    metrics.add(step, scores)
                    checkpoints.add_score(step, training.score(scores))
                    metrics.upload()
            return scores

        def is_evaluated() -> bool:
            return step % run.evaluate_every == 0 or step == total

        stopped = False
        try:
            # A run that ended during an evaluation, or just before it, begins with it.
            if step == total or (step and is_evaluated() and checkpoints.score(step) is None):
                held_out = measure()
            for batch in on_device(training.batches(step), mesh):
                if (shape := batch["input_ids"].shape) in compiled:
                    state, values = program.train_step(state, batch, seed, rates, constants)
                    clock.count(batch["input_ids"], steps.model_flops(program.objective.model.config, batch))
                else:
                    # The first step of a shape compiles, so it says nothing about the speed of training.
                    compiled.add(shape)
                    jax.block_until_ready(pending)
                    with clock.paused():
                        state, values = jax.block_until_ready(program.train_step(state, batch, seed, rates, constants))
                pending.append(values)
                _check_finite(await_due(pending), step, run.max_skipped_updates)
                step += 1
                bar.update()
                trace.after(step - started, values)

                stopped = interrupt.should_stop()
                is_saved = step % run.checkpoint_every == 0 or step == total or stopped
                if is_saved or is_evaluated() or step % run.log_every == 0:
                    row = _row(pending, clock, step, learning_rate)
                    _check_finite(pending[-1], step, run.max_skipped_updates)
                    metrics.write(step, row)
                    bar.set_postfix_str(_postfix(row))
                    pending = []
                if is_saved:  # Before the evaluation, for which a preempted machine may have no time.
                    save()
                if stopped:
                    break
                if is_evaluated():
                    held_out = measure()
        except Stopped:
            stopped = True
            if checkpoints.latest != step:
                save()
        checkpoints.wait()
        best = checkpoints.best
    if stopped:
        return Result(step, {}, interrupt.signal, best, clock.steps_per_second)
    return Result(step, held_out, None, best, clock.steps_per_second)


def on_device(batches: Iterator[Batch], mesh: Mesh) -> Iterator[dict[str, jax.Array]]:
    """The batches as global arrays, `AHEAD` of them in transfer while one is in use."""
    waiting: deque = deque()
    for batch in batches:
        waiting.append(global_batch(mesh, batch))
        if len(waiting) > AHEAD:
            yield waiting.popleft()
    yield from waiting


def await_due(values: list[dict]) -> dict | None:
    """The values `AHEAD` steps before the last, once they are computed: so the device is never far behind."""
    return jax.block_until_ready(values[-1 - AHEAD]) if len(values) > AHEAD else None


def _check_finite(values: dict | None, step: int, most: int) -> None:
    """Raises `InputError` if too many updates in a row were skipped."""
    if values is not None and (skipped := int(values.get("skipped_in_a_row", 0))) >= most:
        norm = float(values["gradient_norm"])
        what = f"step {step}: {skipped} updates in a row weren't finite (gradient norm {norm}) and were skipped"
        raise InputError(
            f"{what}; go on from the last checkpoint in another --workdir, with --init and a lower "
            "optimizer.learning_rate"
        )


def add_up(sums: list[dict]) -> dict[str, float]:
    """The sums over all batches: not finite where those of one aren't."""
    values = jax.device_get(sums)
    return {name: float(np.sum([v[name] for v in values], dtype=np.float64)) for name in values[0]}


def _row(pending: list[dict], clock: "_Clock", step: int, learning_rate) -> dict:
    """The means over the steps since the last row, and the last step's gradient norm and learning rate.

    Steps whose loss isn't finite, of which the updates were skipped, are left out, unless there are no others.
    """
    values = jax.device_get(pending)
    sums = add_up([v for v in values if np.isfinite(losses.means(v)["loss"])] or values)
    last = values[-1]
    skipped = int(last["skipped_updates"])
    row = losses.means(sums) | {
        "gradient_norm": float(last["gradient_norm"]),
        # A skipped update doesn't count in the schedule.
        "learning_rate": float(learning_rate(max(step - 1 - skipped, 0))),
        "skipped_updates": skipped,
    }
    lap = clock.lap()
    if lap is None:
        return row
    row["tokens_per_second"], flops = lap
    row["text_tokens_per_second"] = row["tokens_per_second"] * sums["tokens"] / sums["positions"]  # Without padding.
    if peak := peak_flops():
        row["model_flops_utilisation"] = flops / peak
    return row


def _postfix(row: dict) -> str:
    parts = [f"loss {row['loss']:.3f}"]
    shown = {"mlm_accuracy": "MLM", "label_accuracy": "accuracy"}
    parts += [f"{what} {row[name]:.1%}" for name, what in shown.items() if name in row]
    parts.append(f"lr {row['learning_rate']:.1e}")
    if "tokens_per_second" in row:
        parts.append(f"{row['tokens_per_second']:,.0f} tokens/s")
    return ", ".join(parts)


class _Trace:
    """Writes a trace of the steps `PROFILED` into a folder (None: no trace), for TensorBoard or Perfetto."""

    def __init__(self, folder: Path | None):
        self._mirror = storage.Mirror(folder) if folder else None
        self._running = False

    def after(self, done: int, values: dict) -> None:
        if self._mirror and done == PROFILED.start:
            jax.profiler.start_trace(str(self._mirror.folder))
            self._running = True
        elif self._running and done == PROFILED.stop:
            jax.block_until_ready(values)
            self._stop()

    def _stop(self) -> None:
        if self._running and self._mirror:
            jax.profiler.stop_trace()
            self._mirror.upload()
            self._running = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stop()


class _Clock:
    """Measures tokens, FLOPs and steps per second of training alone."""

    def __init__(self):
        self._tokens, self._flops = 0, 0.0
        self._steps, self._seconds = 0, 0.0  # In all laps.
        self._start = time.perf_counter()

    def count(self, input_ids: jax.Array, flops: float) -> None:
        self._tokens += input_ids.size
        self._flops += flops
        self._steps += 1

    def lap(self) -> tuple[float, float] | None:
        """Tokens and FLOPs per second since the last lap; None if there was no step since."""
        now = time.perf_counter()
        seconds = now - self._start
        speed = (self._tokens / seconds, self._flops / seconds) if self._tokens else None
        self._tokens, self._flops, self._start = 0, 0.0, now
        self._seconds += seconds
        return speed

    @property
    def steps_per_second(self) -> float | None:
        return self._steps / self._seconds if self._steps else None

    @contextlib.contextmanager
    def paused(self):
        begin = time.perf_counter()
        yield
        self._start += time.perf_counter() - begin
