"""A fine-tuning run from start to end: from a pretrained model and a task's data to the best model."""

import contextlib
import dataclasses
import functools
import json
import math
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import NoneType
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from bert_jax import tasks
from bert_jax.cluster.signals import Stopped
from bert_jax.config import FinetuneConfig, HeadConfig, InputError, ModelConfig
from bert_jax.config.files import config_of, differences, to_dict
from bert_jax.convert import pretrained
from bert_jax.data import packing
from bert_jax.data.tokenizers import PAD, Tokenizer
from bert_jax.devices import compiling, sharding
from bert_jax.devices.memory import Ahead, bytes_on_a_device
from bert_jax.devices.sharding import path_name
from bert_jax.files import contents, folders, storage
from bert_jax.files.printable import say
from bert_jax.inference.engine import Engine
from bert_jax.models import make_model
from bert_jax.objectives import make_objective
from bert_jax.runs.result import Result
from bert_jax.tasks.base import Feature, Task
from bert_jax.tasks.batches import Batches
from bert_jax.training import loop
from bert_jax.training.plot import plot_finetuning
from bert_jax.training.program import Program, Settings, check_names

# Layers in an iteration of the scan on a CPU, where a step then takes a tenth less time.
UNROLL = 6
# The remedy where a run's scores can't be read.
SCORE_AGAIN = "remove it, and the same command scores the run again"


@storage.errors_in_one_line()
def finetune(
    config: FinetuneConfig,
    init: str | Path,
    workdir: str | Path,
    profile: bool = False,
    *,
    train: Any = None,
    dev: Any = None,
) -> Result:
    """Trains a task's head and the encoder of a pretrained model, or resumes the run in the workdir.

    Compiled programs are kept for other processes, in the folder that JAX was given, else in the user's cache:
    `config.run.compilation_cache`.

    The task's data are files, which `config.task` names, or are given here: a list of dicts, a dict of columns (lists
    or NumPy arrays), a pandas DataFrame, or a Hugging Face `Dataset`, whose `ClassLabel`s become the names of the
    classes. Columns are those that the task's files have: `text_column`, `pair_column`, `label_column` and `id_column`
    of `config.task`; for `ner`, `tokens` and `tags`, lists of strings; for `squad`, `id`, `context`, `question` and
    `answers`; for `swag` and `multiple_choice`, those of their tables. GLUE's tasks and `srl` read only official files.

    Data in memory aren't saved, and `task.train` stays None in the config that a checkpoint holds. The checkpoint also
    has a checksum of the training examples: a run is resumed with the same rows in the same order, or refused. In a run
    of several processes, each process gives the same data.

    Args:
      config: the run.
      init: the pretrained model: a workdir, a checkpoint's folder, or a Hugging Face folder.
      workdir: the folder, or one of a bucket (gs://), that holds the run: checkpoints, metrics.jsonl, loss.png.
      profile: writes a trace of a few steps into the workdir.
      train: the training set in memory, instead of the file `config.task.train`.
      dev: the examples that are scored after each epoch, instead of the file `config.task.dev`.

    Returns:
      A `Result`: `step`, the `scores` after the last step (such as `dev_accuracy`, in percent), `best`, the step with
      the highest score, `workdir`, and `load()`, which gives that step's model as a `Bert`.

    Raises:
      InputError: model, data or settings don't fit, with file and line or row (`train, row 7`, counted from 0); then
        nothing is written. Or the workdir holds another run.

    Example:
      >>> reviews = {"text": ["great", "awful", "lovely", "dull"] * 8, "label": ["good", "bad"] * 16}
      >>> config = bert_jax.FinetuneConfig(epochs=2, optimizer=bert_jax.OptimizerConfig(learning_rate=1e-3))
      >>> result = bert_jax.finetune(config, "bert-base-uncased", "runs/reviews", train=reviews, dev=reviews)
      >>> sorted(result.scores)
      ['dev_accuracy', 'dev_macro_f1']
      >>> bert = result.load()
      >>> bert.classify("great").label in ("good", "bad")
      True
    """
    config.validate()
    check_names(config)
    workdir = storage.path(workdir)
    compiling.set_up(config.run)
    with folders.exclusive(workdir) if jax.process_index() == 0 else contextlib.nullcontext():
        task = tasks.make(config.task, train=train, dev=dev)
        return Result.from_loop(_finetune(config, task, init, workdir, profile), workdir)


def _finetune(config: FinetuneConfig, task: Task, init: str | Path, workdir: Path, profile: bool) -> loop.Result:
    mesh = sharding.make_mesh(config.mesh)
    say(f"on {compiling.devices()}")
    saved = pretrained.read(init)
    model = _model(config, saved.model)
    examples = drawn(task.read("train"), config)
    dev = {split: task.read(split) for split in task.dev_splits}
    _describe(task, examples, dev)
    features = task.features(examples, saved.tokenizer, config.sequence_length, training=True)
    if not features:
        raise InputError(f"task.train: {config.task.name} has no training example")
    if (largest := max(max(types) for feature in features for _, types in feature.texts)) >= model.type_vocab_size:
        what = f"{config.task.name} marks {largest + 1} segments of a text, the model knows {model.type_vocab_size}"
        raise InputError(f"{what}; take a model with type_vocab_size {largest + 1} or more")
    training = _training(config, task, model, saved.tokenizer, features, dev, mesh, str(init))
    say(f"{config.task.name}: {len(examples):,} examples, {training.settings.steps:,} steps")
    storage.make_folder(workdir)
    result = loop.train(training, workdir, mesh, functools.partial(_start, saved, task.head), profile)
    if jax.process_index() == 0:
        scores = [f"{split}_{task.best_by}" for split in task.dev_splits]
        plot_finetuning(workdir / "metrics.jsonl", workdir / "loss.png", scores)
        _report(result, workdir, examples_per_second(result, len(features), config.batch_size))
    return result


def _describe(task: Task, train: list, dev: dict[str, list]) -> None:
    """Prints the labels of the training and dev sets, and how many dev examples are training examples too."""
    say(f"train: {len(train):,} examples: {task.summary(train)}")
    learned = set(map(task.inputs, train))
    for split, examples in dev.items():
        say(f"{split}: {len(examples):,} examples: {task.summary(examples)}")
        if both := sum(task.inputs(example) in learned for example in examples):
            say(f"{split}: {both:,} of its examples are in the training set too, and flatter its scores")


def _model(config: FinetuneConfig, model: ModelConfig) -> ModelConfig:
    """The model's config with the run's settings, and its scan unrolled on a CPU."""
    check_length(config, model)
    changes: dict = {"dtype": config.dtype, "scan_unroll": UNROLL if jax.default_backend() == "cpu" else 1}
    if config.dropout is not None:
        changes |= {"hidden_dropout_prob": config.dropout, "attention_probs_dropout_prob": config.dropout}
    return dataclasses.replace(model, **changes)


def check_length(config: FinetuneConfig, model: ModelConfig) -> None:
    """Raises `InputError` where the model reads fewer tokens than the config's `sequence_length`."""
    if config.sequence_length > (most := model.max_position_embeddings):
        raise InputError(f"sequence_length: is {config.sequence_length}, the model reads {most} tokens")


def drawn(examples: list, config: FinetuneConfig) -> list:
    """The number of examples that the config asks for, drawn at random but always the same, in their order."""
    most = config.task.train_examples
    if most is None or most >= len(examples):
        return examples
    chosen = np.random.default_rng(0).permutation(len(examples))[:most]
    return [examples[i] for i in sorted(chosen)]


def _training(
    config: FinetuneConfig,
    task: Task,
    model: ModelConfig,
    tokenizer: Tokenizer,
    features: list[Feature],
    dev: dict[str, list],
    mesh: Mesh,
    init: str,
) -> loop.Training:
    head, pad = task.head, tokenizer.special_ids[PAD]
    rows = functools.partial(sharding.local_rows, mesh)
    parts = sharding.batch_shards(mesh) * config.run.accumulate_steps
    batches = Batches(features, config.batch_size, head, pad, parts)
    total = math.ceil(len(batches) * config.epochs)
    optimizer = dataclasses.replace(config.optimizer, warmup_steps=round(total * config.warmup))
    module = make_model(model, head)
    scored = {  # The examples of each split and their features: the same after each epoch.
        split: (examples, task.features(examples, tokenizer, config.sequence_length, training=False))
        for split, examples in dev.items()
    }

    def evaluation(program: Program) -> loop.Evaluate:
        def evaluate(params, step: int, check: Callable[[], None]) -> dict[str, float]:
            engine = Engine(program.objective.model, params, mesh, tokenizer)
            scores: dict[str, float] = {}
            for split, (examples, features) in scored.items():
                how = evaluation_batches(config, features)
                logits = engine.logits(features, **how, done=lambda _: check())
                finite = all(np.isfinite(values).all() for values in logits)
                predictions = task.predict(examples, features, logits if finite else [*map(np.zeros_like, logits)])
                split_scores = task.metrics(examples, predictions)
                if not finite:  # Scores of what such outputs happen to predict would pass for real ones.
                    split_scores = dict.fromkeys(split_scores, math.nan)
                scores |= {f"{split}_{name}": value for name, value in split_scores.items()}
            return scores

        return evaluate

    def ahead(program: Program, step: int) -> Iterator[Ahead]:
        """The largest of the programs that a run usually needs; others are compiled when they are needed."""
        if step < total:
            yield _training_ahead(batches, program)
        engine = Engine(program.objective.model, program.state["params"], mesh, tokenizer)
        optimizer = bytes_on_a_device(program.state["opt_state"])
        for split, (_, features) in scored.items():
            if features:
                lowered, shape = engine.lowered(features, **evaluation_batches(config, features))
                remedies = "make room by a smaller evaluation_batch_size or by mesh.fsdp"
                yield Ahead(f"an evaluation step of {_tokens(shape)} on {split}", lowered, remedies, optimizer)

    return loop.Training(
        name="finetune",
        objective=make_objective(config.objective, module),
        settings=Settings(optimizer, total, config.run.accumulate_steps),
        seed=config.seed,
        run=dataclasses.replace(config.run, evaluate_every=len(batches), checkpoint_every=len(batches)),
        batches=lambda step: batches.train(config.seed, step, total, rows),
        ahead=ahead,
        evaluation=evaluation,
        score=functools.partial(_score, task),
        about={
            "config": to_dict(config),
            "examples": _checksum(features),
            "model": to_dict(model),
            "head": to_dict(head),
            "init": init,
        },
        tokenizer=tokenizer.to_dict(),
    )


def _training_ahead(batches: Batches, program: Program) -> Ahead:
    largest = batches.largest()
    shapes = {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=program.rows) for name, x in largest.items()}
    remedies = "make room by a smaller batch_size or sequence_length, run.accumulate_steps, mesh.fsdp"
    return Ahead(f"a training step of {_tokens(largest['input_ids'].shape)}", program.lowered(shapes), remedies)


def _tokens(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) + " tokens"


def evaluation_batches(config: FinetuneConfig, features: list[Feature]) -> dict[str, int]:
    """Arguments of `Engine.outputs` that put about `evaluation_batch_size` features into a batch."""
    tokens = sum(packing.lengths_of(features))
    return {
        "positions": max(round(config.evaluation_batch_size * tokens / max(len(features), 1)), 1),
        "longest": config.sequence_length,
    }


def _checksum(features: list[Feature]) -> str:
    """The checksum of training examples, without a task's own fields: these may be arrays, and serve predictions."""
    values = [(f.input_ids, f.token_type_ids, f.label, f.example) for f in features]
    return f"{zlib.crc32(json.dumps(values).encode()):08x}"


def _score(task: Task, scores: dict[str, float]) -> float | None:
    value = scores.get(f"{task.dev_splits[0]}_{task.best_by}", math.nan) if scores else math.nan
    return value if math.isfinite(value) else None


def _start(saved: pretrained.Pretrained, head: HeadConfig, fresh: dict) -> dict:
    """The fresh parameters, replaced by the pretrained ones; the head of another task stays fresh."""
    params = {path_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(saved.params)}
    same = all(getattr(saved.head, name) == getattr(head, name) for name in ("kind", "labels", "outputs"))

    def take(path, new: jax.Array) -> jax.Array:
        name = path_name(path)
        old = params.get(name) if name.startswith(f"{saved.model.architecture}/") or same else None
        return new if old is None else sharding.put(np.asarray(old, new.dtype), new.sharding)

    return jax.tree_util.tree_map_with_path(take, fresh)


@storage.errors_in_one_line()
def sweep(
    config: FinetuneConfig, init: str | Path, workdir: str | Path, seeds: int, learning_rates: tuple[float, ...]
) -> dict:
    """Fine-tunes with each of the seeds from `config.seed` on at each learning rate, and summarises the scores.

    Each run has its own folder; a run that is finished isn't repeated. Returns, and writes to `summary.json`, the
    `devices` and, for each of the `rates`, the scores after the last step: mean, sample deviation, and each single one.
    Raises `Stopped` where a signal stopped a run.
    """
    workdir = storage.path(workdir)
    compiling.set_up(config.run)
    with folders.exclusive(workdir) if jax.process_index() == 0 else contextlib.nullcontext():
        return _sweep(config, init, workdir, seeds, learning_rates)


def _sweep(
    config: FinetuneConfig, init: str | Path, workdir: Path, seeds: int, learning_rates: tuple[float, ...]
) -> dict:
    runs: dict[str, dict[Path, dict[str, float]]] = {}
    for rate in learning_rates or (config.optimizer.learning_rate,):
        for seed in range(config.seed, config.seed + seeds):
            optimizer = dataclasses.replace(config.optimizer, learning_rate=rate)
            run_config = dataclasses.replace(config, seed=seed, optimizer=optimizer)
            folder = workdir / f"lr-{rate:g}-seed-{seed}"
            runs.setdefault(f"{rate:g}", {})[folder] = _scores_of(run_config, init, folder)
    _check_alike({folder: scores for of_rate in runs.values() for folder, scores in of_rate.items()})
    rates = {rate: _spreads([*of_rate.values()]) for rate, of_rate in runs.items()}
    summary = {"devices": compiling.devices(), "rates": rates}
    if jax.process_index() == 0:
        storage.write_whole(workdir / "summary.json", json.dumps(contents.finite(summary), indent=1).encode())
        for shown, scores in rates.items():
            for name, spread in _without_types(scores).items():
                figure = f"{spread['mean']:.4g} ± {spread['deviation']:.2g}"
                say(f"learning rate {shown}  {name}  {figure}  ({seeds} seeds)")
    return summary


def _scores_of(config: FinetuneConfig, init: str | Path, workdir: Path) -> dict[str, float]:
    """The scores of a run after its last step; it is done now unless it was done before."""
    file, current = workdir / "scores.json", {"init": str(init), "config": to_dict(config)}
    if file.exists():
        saved = contents.without_checksum(contents.json_object(file, remedy=SCORE_AGAIN), file, SCORE_AGAIN)
        shape = {"scores": {str: (float, NoneType)}, "init": str, "config": {}}
        contents.check_values(saved, shape, file, SCORE_AGAIN)
        scores = {name: math.nan if value is None else value for name, value in saved.pop("scores").items()}
        saved["config"] = to_dict(config_of(saved, file))
        for name, before, now in differences(saved, current):
            if not name.startswith(("config.run.", "config.mesh.")):
                what = f"{name.removeprefix('config.')} was {before!r} in the run that is finished, is {now!r} now"
                raise InputError(f"{workdir}: {what}; give it back, or choose another --workdir")
        return scores
    result = finetune(config, init, workdir)
    if result.signal:
        raise Stopped(result.signal)
    if jax.process_index() == 0:
        values = {"scores": contents.finite(result.scores), **current}
        storage.write_whole(file, json.dumps(contents.with_checksum(values)).encode())
    return result.scores


def _check_alike(runs: dict[Path, dict[str, float]]) -> None:
    """Raises `InputError` for a run of a sweep without a score that another has."""
    names = dict.fromkeys(name for scores in runs.values() for name in _without_types(scores))
    for folder, scores in runs.items():
        if lacking := [name for name in names if name not in scores]:
            what = f"lacks {', '.join(lacking)}, which other runs have"
            raise InputError(f"{folder / 'scores.json'}: {what}; {SCORE_AGAIN}")


def _spreads(runs: list[dict[str, float]]) -> dict[str, dict]:
    """The spread of each score over the runs that have it: the types of spans are those that a run has seen."""
    names = dict.fromkeys(name for run in runs for name in run)
    return {name: _spread([run[name] for run in runs if name in run]) for name in names}


def _spread(values: list[float]) -> dict:
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return {"mean": float(np.mean(values)), "deviation": deviation, "runs": values}


def _without_types(scores: dict) -> dict:
    """The scores without those of single types of spans, as f1/PER."""
    return {name: value for name, value in scores.items() if "/" not in name}


def examples_per_second(result: loop.Result, features: int, batch_size: int) -> float | None:
    """The speed of training, without compilation and evaluation; None where nothing was trained."""
    return result.steps_per_second and result.steps_per_second * features / math.ceil(features / batch_size)


def _report(result: loop.Result, workdir: Path, speed: float | None) -> None:
    if result.signal:
        say(f"stopped after {result.step:,} steps and saved; the same command goes on from there")
        return
    scores = [f"{name} {value:.4g}" for name, value in _without_types(result.scores).items()]
    speeds = [f"{speed:,.1f} examples/s"] if speed else []
    say(", ".join([f"done: {result.step:,} steps", *speeds, *scores]))
    say(f"workdir {workdir}, best checkpoint {result.best}")
