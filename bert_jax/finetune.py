"""Fine-tuning as a person asks for it: a pretrained model, a task and its files, and the best model that came of it."""

import dataclasses
import functools
import json
import math
import zlib
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bert_jax import pretrained, storage, tasks
from bert_jax.config import FinetuneConfig, HeadConfig, InputError, ModelConfig, to_dict
from bert_jax.data.tokenizers import PAD, Tokenizer
from bert_jax.model import make_model
from bert_jax.start import placed
from bert_jax.tasks.base import Feature, Task
from bert_jax.tasks.batches import Batches
from bert_jax.training import loop, sharding, steps
from bert_jax.training.program import Program, Settings
from bert_jax.training.sharding import path_name


def finetune(config: FinetuneConfig, init: str | Path, workdir: str | Path, profile: bool = False) -> loop.Result:
    """Trains a task's head and the encoder of the model `init` in `workdir`, or goes on where it was.

    Raises `InputError`, with nothing written, where model, files or settings don't fit.
    """
    config.validate()
    workdir = storage.path(workdir)
    mesh = sharding.make_mesh(config.mesh)
    _check_batches(config, mesh)
    found = pretrained.read(init)
    task = tasks.make(config.task)
    model = _model(config, found.model)
    examples = _drawn(task.read("train"), config)
    features = task.features(examples, found.tokenizer, config.sequence_length, training=True)
    if not features:
        raise InputError(f"task.train: {config.task.name} has no training example")
    training = _training(config, task, model, found.tokenizer, features, mesh, str(init))
    print(f"{config.task.name}: {len(examples):,} examples, {training.settings.steps:,} steps")
    storage.make_folder(workdir)
    result = loop.train(training, workdir, mesh, functools.partial(_start, found, task.head), profile)
    if jax.process_index() == 0:
        _report(result, workdir)
    return result


def _check_batches(config: FinetuneConfig, mesh: Mesh) -> None:
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    for name, parts in (("batch_size", shards * config.run.accumulate_steps), ("evaluation_batch_size", shards)):
        if getattr(config, name) % parts:
            raise InputError(
                f"{name}: {getattr(config, name)} isn't divisible by {parts}, the parts that it is split in"
            )


def _model(config: FinetuneConfig, model: ModelConfig) -> ModelConfig:
    if config.sequence_length > model.max_position_embeddings:
        most = model.max_position_embeddings
        raise InputError(f"sequence_length: is {config.sequence_length}, the model reads {most} tokens")
    changes: dict = {"dtype": config.dtype}
    if config.dropout is not None:
        changes |= {"hidden_dropout_prob": config.dropout, "attention_probs_dropout_prob": config.dropout}
    return dataclasses.replace(model, **changes)


def _drawn(examples: list, config: FinetuneConfig) -> list:
    """As many as asked for, at random but always the same, in their order."""
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
    mesh: Mesh,
    init: str,
) -> loop.Training:
    head, pad = task.head, tokenizer.special_ids[PAD]
    rows = functools.partial(sharding.local_rows, mesh)
    batches = make_batches(features, config.batch_size, head, pad)
    total = math.ceil(len(batches) * config.epochs)
    optimizer = dataclasses.replace(config.optimizer, warmup_steps=round(total * config.warmup))
    module = make_model(model, head)
    dev = {}  # Of each split the examples, their features and batches: the same after each epoch.
    for split in task.dev_splits:
        examples = task.read(split)
        parts = task.features(examples, tokenizer, config.sequence_length, training=False)
        dev[split] = examples, parts, make_batches(parts, config.evaluation_batch_size, head, pad)

    def evaluation(program: Program) -> loop.Evaluate:
        outputs = outputs_of(module, program.shardings["params"], mesh)

        def evaluate(params, step: int) -> dict[str, float]:
            found = {}
            for split, (examples, parts, batched) in dev.items():
                scores = task.metrics(examples, task.predict(examples, parts, outputs(params, batched)))
                found |= {f"{split}_{name}": value for name, value in scores.items()}
            return found

        return evaluate

    return loop.Training(
        name="finetune",
        model=module,
        settings=Settings(config.seed, optimizer, total, config.run.accumulate_steps),
        run=dataclasses.replace(config.run, evaluate_every=len(batches), checkpoint_every=len(batches)),
        batches=lambda step: batches.train(config.seed, step, total, rows),
        evaluation=evaluation,
        score=functools.partial(_score, task),
        about={
            "config": to_dict(config),
            "examples": f"{zlib.crc32(json.dumps([dataclasses.astuple(f) for f in features]).encode()):08x}",
            "model": to_dict(model),
            "head": to_dict(head),
            "init": init,
        },
        tokenizer=tokenizer.to_dict(),
    )


def _score(task: Task, scores: dict[str, float]) -> float | None:
    value = scores.get(f"{task.dev_splits[0]}_{task.best_by}", math.nan) if scores else math.nan
    return value if math.isfinite(value) else None


def make_batches(features: list[Feature], size: int, head: HeadConfig, pad: int) -> Batches:
    regression = head.kind == "sequence_classification" and len(head.labels) == 1
    return Batches(features, size, head.kind, pad, floating=regression)


def outputs_of(module: nn.Module, shardings, mesh: Mesh):
    """A function (params, batches) -> the head's outputs of each feature as an array, without padding."""
    rows = functools.partial(sharding.local_rows, mesh)
    forward = jax.jit(
        functools.partial(steps.forward, module),
        in_shardings=(shardings, sharding.batch_sharding(mesh)),
        out_shardings=NamedSharding(mesh, PartitionSpec()),
    )

    def outputs(params, batches: Batches) -> list[np.ndarray]:
        found: list = [None] * len(batches.features)
        for chosen, batch in batches.in_order(rows):
            del batch["labels"]
            logits = np.asarray(forward(params, sharding.global_batch(mesh, batch)))
            for number, row in zip(chosen, logits, strict=False):
                found[number] = row[: batches.length(number)] if row.ndim == 2 else row
        return found

    return outputs


def _start(found: pretrained.Pretrained, head: HeadConfig, fresh: dict) -> dict:
    """The fresh parameters with the pretrained ones in their place; of another task's head nothing is taken."""
    there = {path_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(found.params)}

    def take(path, new: jax.Array) -> jax.Array:
        name = path_name(path)
        old = there.get(name) if name.startswith("bert/") or found.head == head else None
        return new if old is None else placed(np.asarray(old), new)

    return jax.tree_util.tree_map_with_path(take, fresh)


def sweep(
    config: FinetuneConfig, init: str | Path, workdir: str | Path, seeds: int, learning_rates: tuple[float, ...]
) -> dict:
    """Runs every seed from `config.seed` on at every rate, in folders of their own, and sums them up.

    A run that is finished is not done again. Writes `summary.json`: of each rate the runs' scores of their best
    checkpoints' splits, mean and sample deviation. Returns it; empty where a signal stopped a run.
    """
    workdir, summary = storage.path(workdir), {}
    for rate in learning_rates or (config.optimizer.learning_rate,):
        runs = []
        for seed in range(config.seed, config.seed + seeds):
            one = dataclasses.replace(
                config, seed=seed, optimizer=dataclasses.replace(config.optimizer, learning_rate=rate)
            )
            folder = workdir / f"lr-{rate:g}-seed-{seed}"
            if not (folder / "scores.json").exists():
                result = finetune(one, init, folder)
                if result.signal:
                    return {}
                storage.write_whole(folder / "scores.json", json.dumps(result.held_out).encode())
            runs.append(json.loads((folder / "scores.json").read_text()))
        summary[f"{rate:g}"] = {name: _spread([run[name] for run in runs]) for name in runs[0]}
    storage.write_whole(workdir / "summary.json", json.dumps(summary, indent=1).encode())
    for rate, scores in summary.items():
        for name, spread in scores.items():
            print(f"learning rate {rate}  {name}  {spread['mean']:.4g} ± {spread['deviation']:.2g}  ({seeds} seeds)")
    return summary


def _spread(values: list[float]) -> dict:
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return {"mean": float(np.mean(values)), "deviation": deviation, "runs": values}


def _report(result: loop.Result, workdir: Path) -> None:
    if result.signal:
        print(f"stopped after {result.step:,} steps and saved; the same command goes on from there")
        return
    scores = ", ".join(f"{name} {value:.4g}" for name, value in result.held_out.items())
    print(f"done: {result.step:,} steps; {scores}")
    print(f"workdir {workdir}, best checkpoint {result.best}")
