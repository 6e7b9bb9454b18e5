"""`bert-jax bench finetune`: fine-tuning against transformers in torch, seed by seed, in turns."""

import dataclasses
import importlib.util
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bert_jax import tasks
from bert_jax.bench import compile_seconds, compiled_here, of_a_peer
from bert_jax.cluster.signals import Stopped
from bert_jax.config import FinetuneConfig, InputError
from bert_jax.convert import pretrained
from bert_jax.devices import compiling
from bert_jax.models import init_params, kind_of, make_model
from bert_jax.runs import finetuning
from bert_jax.tasks.base import Feature

PEER = Path(__file__).with_name("torch_finetune.py")
PEERS_RECIPE = {"name": "adamw", "bias_correction": True, "schedule": "linear", "decay": "from_warmup"}
# The uses of a head that the peer supports, named like the methods of `bert_jax.Bert`.
USES = ("classify", "tag", "answer")


@dataclasses.dataclass(frozen=True)
class Run:
    scores: dict[str, float]
    """The scores on the dev split, after the last step."""
    seconds: float
    """Total seconds from reading the model's folder: ours until the last score, the peer's until the last logits."""
    examples_per_second: float
    """The speed of training alone: without evaluation, and for ours without compilation."""


def bench_finetune(config: FinetuneConfig, init: str, seeds: int) -> None:
    """Prints scores and speed of both, with the same features and the same recipe.

    For each seed both begin with the same new head, since heads differ by points on small sets. Both draw their batches
    at random, but not the same ones; ours have several texts in a row, the peer pads to the longest of a batch.
    """
    if importlib.util.find_spec("transformers") is None:
        raise InputError("the peer isn't here: pip install -e '.[test]'")
    if seeds < 1:
        raise InputError(f"--seeds: is {seeds}, must be at least 1")
    config = compiled_here(config)
    compiling.set_up(config.run)  # Before anything else asks JAX for a device.
    compiled = compile_seconds()
    ours, theirs, compile_times = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        peer = _Peer(config, init, Path(folder))
        for seed in range(config.seed, config.seed + seeds):
            seeded = dataclasses.replace(config, seed=seed)
            compiled.clear()
            ours.append(_ours(seeded, init, Path(folder) / f"seed-{seed}", peer.examples))
            compile_times.append(sum(compiled))
            theirs.append(peer.run(seed))
            for name, run in (("bert_jax", ours[-1]), ("torch", theirs[-1])):
                score, speed = run.scores[peer.best_by], f"{run.examples_per_second:.1f} examples/s"
                print(f"seed {seed}, {name}: {peer.best_by} {score:.2f}, {speed}, {run.seconds:.1f} s", flush=True)
    _report(config, peer, ours, theirs, compile_times)


def _ours(config: FinetuneConfig, init: str, workdir: Path, examples: int) -> Run:
    start = time.perf_counter()
    result = finetuning.finetune(config, init, workdir)
    seconds = time.perf_counter() - start
    if result.signal:
        raise Stopped(result.signal)
    split = tasks.make(config.task).dev_splits[0]
    scores = {name.removeprefix(f"{split}_"): value for name, value in result.scores.items()}
    speed = finetuning.examples_per_second(result, examples, config.batch_size)
    if speed is None:
        raise InputError(
            f"{config.task.name}: trained in too few steps to tell the speed; give more examples or epochs"
        )
    return Run(scores, seconds, speed)


class _Peer:
    """transformers' model on our features, in its own process for each seed, so that its threads don't disturb ours."""

    def __init__(self, config: FinetuneConfig, init: str, folder: Path):
        self._folder, self._model = folder, pretrained.read(init).model
        self._task = tasks.make(config.task)
        self.best_by, head = self._task.best_by, self._task.head
        if (kind := kind_of(head)).use not in USES:
            raise InputError(
                f"{config.task.name}: the peer can only {', '.join(USES)}, which a head {head.kind} isn't for"
            )
        if config.epochs != int(config.epochs):
            raise InputError(f"epochs: is {config.epochs}, the peer does whole ones")
        for name, value in PEERS_RECIPE.items():
            if (given := getattr(config.optimizer, name)) != value:
                raise InputError(f"optimizer.{name}: is {given!r}, the peer only has {value!r}")
        if not self._task.dev_splits:
            raise InputError(f"{config.task.name}: no file to compare scores on; give one with --task.dev")
        tokenizer = pretrained.tokenizer_of(init)
        self._dev = self._task.read(self._task.dev_splits[0])

        def features(examples: list, training: bool) -> list[Feature]:
            return self._task.features(examples, tokenizer, config.sequence_length, training)

        train = features(finetuning.drawn(self._task.read("train"), config), True)
        self._features = features(self._dev, False)
        self.examples = len(train)
        steps = math.ceil(len(train) / config.batch_size) * int(config.epochs)
        optimizer = dataclasses.asdict(config.optimizer) | {"warmup_steps": round(steps * config.warmup)}
        self._job = {
            **{name: getattr(config, name) for name in ("batch_size", "evaluation_batch_size", "dropout")},
            **optimizer,
            **dict(model=init, use=kind.use, labels=len(head.labels), steps=steps, epochs=int(config.epochs)),
            "problem_type": head.problem_type,
            "train": [_plain(feature) for feature in train],
            "dev": [_plain(feature) for feature in self._features],
        }

    def run(self, seed: int) -> Run:
        head = init_params(make_model(self._model, self._task.head), seed)["classifier"]["dense"]
        np.savez(self._folder / "head.npz", weight=head["kernel"].T, bias=head["bias"])
        (self._folder / "task.json").write_text(json.dumps(self._job | {"seed": seed}))
        command = [sys.executable, "-W", "ignore", str(PEER), str(self._folder)]
        peer = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=of_a_peer())
        if peer.returncode:
            raise InputError("the peer stopped; its message is above")
        seconds = json.loads(peer.stdout)
        ends = np.cumsum([1 if self._by_text else len(f.input_ids) for f in self._features])
        logits = np.split(np.load(self._folder / "logits.npy"), ends[:-1])
        logits = [row[0] for row in logits] if self._by_text else logits
        scores = self._task.metrics(self._dev, self._task.predict(self._dev, self._features, logits))
        return Run(scores, seconds["seconds"], self.examples * self._job["epochs"] / seconds["training"])

    @property
    def _by_text(self) -> bool:
        return self._job["use"] == "classify"


def _plain(feature: Feature) -> dict:
    return {name: getattr(feature, name) for name in ("input_ids", "token_type_ids", "label")}


def _report(
    config: FinetuneConfig, peer: _Peer, ours: list[Run], theirs: list[Run], compile_times: list[float]
) -> None:
    print(f"{config.task.name}: {peer.examples:,} features, {config.epochs:g} epochs, {len(ours)} seeds")
    means, errors = zip(
        *(_mean_and_error([run.scores[peer.best_by] for run in runs]) for runs in (ours, theirs)), strict=True
    )
    for name, mean, error in zip(("bert_jax", "torch"), means, errors, strict=True):
        print(f"{name}: {peer.best_by} {mean:.2f} ± {error:.2f} (standard error)")
    bound = max(1.0, 2.5 * sum(errors))
    print(f"difference of the means {means[0] - means[1]:+.2f}; the larger of 1 and 2.5 times both errors: {bound:.2f}")
    _ratio(
        "examples/s of training",
        [(a.examples_per_second, b.examples_per_second) for a, b in zip(ours, theirs, strict=True)],
    )
    _ratio("whole runs/h", [(3600 / a.seconds, 3600 / b.seconds) for a, b in zip(ours, theirs, strict=True)])
    print(
        f"compiling: {compile_times[0]:.1f} s of our first run, {sum(compile_times[1:]):.1f} s of the others together"
    )


def _mean_and_error(values: list[float]) -> tuple[float, float]:
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return statistics.mean(values), error


def _ratio(what: str, pairs: list[tuple[float, float]]) -> None:
    ratios = sorted(a / b for a, b in pairs)
    a, b = (statistics.median(side) for side in zip(*pairs, strict=True))
    print(f"{what}: {a:.1f} to {b:.1f}, ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})")
