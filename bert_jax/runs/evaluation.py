"""How good a model is: a task's scores and predictions, or the loss of a pretrained model on any text."""

import contextlib
import dataclasses
import functools
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from bert_jax import tasks
from bert_jax.config import FinetuneConfig, InputError, PretrainConfig
from bert_jax.config.files import TABLES, flags, without_external
from bert_jax.convert import pretrained
from bert_jax.data.records import Examples
from bert_jax.devices import compiling, sharding
from bert_jax.devices.memory import refusals
from bert_jax.files import contents, folders, storage
from bert_jax.files.printable import json_line, say
from bert_jax.inference.engine import Engine
from bert_jax.models import MaskedLM, kind_of, losses, make_model
from bert_jax.objectives import HeadObjective
from bert_jax.runs.finetuning import check_length, evaluation_batches
from bert_jax.runs.page import write_page
from bert_jax.tasks import glue
from bert_jax.training import loop


@storage.errors_in_one_line()
def evaluate(
    model: str | Path | pretrained.Pretrained,
    config: FinetuneConfig | PretrainConfig | None = None,
    output: str | Path | None = None,
    *,
    dev: Any = None,
    test: Any = None,
) -> dict[str, float]:
    """How good a model is: a task's scores, or the loss of a pretrained model on a corpus.

    Compiled programs are kept for other processes, in the folder that JAX was given, else in the user's cache:
    `config.run.compilation_cache`. A task is scored on the files that `config.task` names, or on data given here, which
    are as `finetune` takes them. Without a config, data replace all files that the model was trained and scored with.

    Args:
      model: a workdir (of a fine-tuning run its best checkpoint), a checkpoint's folder, a Hugging Face folder, or what
        `pretrained.read` made of one.
      config: the task and its files, or the corpus (None: those that the model was trained with, if these name
        neither files to read nor code to run).
      output: a folder for `scores.json` and, for a task, the predictions.
      dev: data in memory, with labels, instead of the file `config.task.dev`.
      test: the same instead of `config.task.test`; labels may be missing.

    Returns:
      The scores by name: of a task, such as `dev_accuracy`, in percent; of a corpus `mlm_loss` in nats,
      `mlm_perplexity`, and accuracies from 0 to 1.

    Raises:
      InputError: the model doesn't say what it was trained on, or can't do what the config asks for; or the data don't
        fit, with file and line or row.

    Example:
      >>> reviews = [{"text": "great", "label": "good"}, {"text": "awful", "label": "bad"}]
      >>> scores = bert_jax.evaluate("runs/reviews", dev=reviews)
      >>> sorted(scores)
      ['dev_accuracy', 'dev_macro_f1']
    """
    folder = None if output is None else storage.path(output)
    compiling.set_up()  # Before the model's folder is read, which asks JAX for a device.
    saved = model if isinstance(model, pretrained.Pretrained) else pretrained.read(model)
    data = {split: rows for split, rows in {"dev": dev, "test": test}.items() if rows is not None}
    own, external = (config, {}) if config else own_config(saved)
    if data and not isinstance(own, FinetuneConfig):
        raise InputError(f"{', '.join(data)}: data of a task, but the config is of pretraining; leave them out")
    if isinstance(own, FinetuneConfig) and data and config is None:
        own = dataclasses.replace(own, task=dataclasses.replace(own.task, folder=None, train=None, dev=None, test=None))
    elif config is None:
        check_repeated(own, external)
    with folders.exclusive(folder) if folder is not None else contextlib.nullcontext():
        if isinstance(own, FinetuneConfig):
            return evaluate_task(saved, own, folder, **data)
        return evaluate_pretraining(saved, own, folder)


def own_config(saved: pretrained.Pretrained, name: str = "the model") -> tuple[FinetuneConfig | PretrainConfig, dict]:
    """The config of the run that made a model without its external settings, and these (`without_external`).

    What it takes of this machine (processes, devices, copies of the text, memory where scores don't depend on it) is no
    matter of the model's author either, and has its defaults.
    """
    config = saved.origin.config
    if config is None:
        raise InputError(f"{name}: doesn't say what it was trained on; give a config")
    own, external = without_external(config)
    usual = type(own)()
    changes: dict[str, Any] = {"run": usual.run, "mesh": usual.mesh}
    if isinstance(own, FinetuneConfig):
        changes["evaluation_batch_size"] = min(own.evaluation_batch_size, usual.evaluation_batch_size)
    else:
        changes["examples"] = dataclasses.replace(own.examples, dupe_factor=usual.examples.dupe_factor)
    return dataclasses.replace(own, **changes), external


def check_repeated(config: FinetuneConfig | PretrainConfig, external: dict) -> None:
    """Raises `InputError` where the config lacks a setting that the model was made with, and it isn't given again; and
    where it would take a download that nobody asked for."""
    if isinstance(config, FinetuneConfig):
        task = config.task
        nothing = not (task.data_dir or task.folder or task.dev or task.test)
        lacking = dict.fromkeys(("task.data_dir", *TABLES), nothing)
    else:
        corpus = config.corpus
        lacking = {
            "corpus.files": corpus.source == "text" and not corpus.files,
            "corpus.dataset": corpus.source == "tfds" and not corpus.dataset,
            "examples.word_segmenter": config.masking.whole_word and config.examples.word_segmenter is None,
        }
    if again := {path: value for path, value in external.items() if lacking.get(path)}:
        what = f"the model was made with {flags(again)}, but a model decides neither what is read nor what is run"
        raise InputError(f"{what}; add that, or other values")
    if isinstance(config, FinetuneConfig):
        glue.check_is_here(config.task)


@refusals("the evaluation", "make room by a smaller evaluation_batch_size or by mesh.fsdp")
def evaluate_task(
    saved: pretrained.Pretrained, config: FinetuneConfig, output: Path | None, **data: Any
) -> dict[str, float]:
    """The scores of a fine-tuned model on all splits of a task that have files, or data in memory.

    The folder `output` gets `scores.json` and, for each split, a folder with `predictions.jsonl`, `page.html` and the
    official submission files.
    """
    config.validate()
    check_length(config, saved.model)
    compiling.set_up(config.run)
    task = tasks.make(config.task, saved.head.labels, **data)
    if task.head.kind != saved.head.kind:
        raise InputError(f"{config.task.name}: needs a {task.head.kind} model, this is a {saved.head.kind} one")
    if task.head.outputs != saved.head.outputs:
        source = saved.head.problem_type or saved.head.activation or "its config doesn't say"
        actual = f"this one's are {saved.head.outputs} ({source})"
        needs = f"needs a model whose outputs are {task.head.outputs}, {actual}"
        raise InputError(f"{config.task.name}: {needs}; give a model that was trained on this task")
    splits = (*task.dev_splits, *task.test_splits)
    if not splits:
        raise InputError(f"{config.task.name}: no file to evaluate on; give one with --task.dev or --task.test")
    mesh = sharding.make_mesh(config.mesh)
    say(f"on {compiling.devices()}", file=sys.stderr)
    model = make_model(dataclasses.replace(saved.model, dtype=config.dtype), saved.head)
    engine = Engine.with_params(model, saved.params, mesh, saved.tokenizer)
    scores: dict[str, float] = {}
    for split in splits:
        examples = task.read(split)
        say(f"{split}: {len(examples):,} examples: {task.summary(examples)}")
        features = task.features(examples, saved.tokenizer, config.sequence_length, training=False)
        logits = engine.logits(features, **evaluation_batches(config, features))
        if not all(np.isfinite(values).all() for values in logits):
            raise pretrained.overflowed(split)
        predictions = task.predict(examples, features, logits)
        split_scores = task.metrics(examples, predictions)
        scores |= {f"{split}_{name}": value for name, value in split_scores.items()}
        if output is not None:
            folder = output / split
            storage.make_folder(folder)
            rows = task.rows(examples, predictions)
            storage.write_whole(folder / "predictions.jsonl", _lines(rows))
            task.submit(folder, split, examples, predictions)
            write_page(folder / "page.html", f"{config.task.name}, {split}", split_scores, rows, saved.head.labels)
    if output is not None:
        _write_scores(output, scores)
    return scores


@refusals("the evaluation", "make room by a smaller batch_size of the last phase or by mesh.fsdp")
def evaluate_pretraining(saved: pretrained.Pretrained, config: PretrainConfig, output: Path | None) -> dict[str, float]:
    """Loss, perplexity and accuracies of a pretrained model on the config's whole corpus, in the last phase's shape."""
    from bert_jax.data import pipeline
    from bert_jax.data.prepare import prepare

    if not kind_of(saved.head).predicts:
        raise InputError(f"this is a {saved.head.kind} model; a masked-LM loss needs one with that head")
    if not config.examples.sentence_pairs:  # There is no next sentence to be told.
        saved = pretrained.with_head(saved, MaskedLM.kind)
    corpus = dataclasses.replace(config.corpus, held_out=0.0)
    config = dataclasses.replace(config, model=saved.model, corpus=corpus).validate()
    compiling.set_up(config.run)
    mesh = sharding.make_mesh(config.mesh)
    sharding.check_batch({len(config.phases) - 1: config.phases[-1]}, mesh)
    say(f"on {compiling.devices()}", file=sys.stderr)
    module = make_model(saved.model, saved.head)
    shardings = sharding.param_shardings(mesh, saved.params, module.logical_axes)
    params = sharding.put(saved.params, shardings)
    sums = jax.jit(
        lambda params, batch: HeadObjective(module).sums(params, (), batch),
        in_shardings=(shardings, sharding.batch_sharding(mesh)),
        out_shardings=NamedSharding(mesh, PartitionSpec()),
    )
    with tempfile.TemporaryDirectory(prefix="bert_jax_") as folder:
        data: Examples = prepare(config, Path(folder) / "examples", tokenizer=saved.tokenizer)
        batches = pipeline.held_out_batches(
            data, config, config.phases[-1], functools.partial(sharding.local_rows, mesh), split="train"
        )
        batch_sums: list[dict] = []
        for batch in loop.on_device(batches, mesh):
            batch_sums.append(sums(params, batch))
            loop.await_due(batch_sums)
    means = losses.means(loop.add_up(batch_sums))
    if not np.isfinite(means["loss"]):
        raise pretrained.overflowed("the corpus")
    with np.errstate(over="ignore"):
        scores = {**means, "mlm_perplexity": float(np.exp(means["mlm_loss"]))}
    if output is not None:
        storage.make_folder(output)
        _write_scores(output, scores)
    return scores


def _lines(rows: list[dict]) -> bytes:
    return "".join(json_line(row) + "\n" for row in rows).encode()


def _write_scores(folder: Path, scores: dict[str, float]) -> None:
    storage.write_whole(folder / "scores.json", json.dumps(contents.finite(scores), indent=1).encode())
