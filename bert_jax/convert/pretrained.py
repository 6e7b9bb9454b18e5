"""What a MODEL on disk holds, whatever its format: the one way in and out for inference, fine-tuning and conversion."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import flax.traverse_util
import jax
import numpy as np
from jax.experimental import multihost_utils

from bert_jax.config import VALUE, EmbeddingConfig, HeadConfig, InputError, ModelConfig
from bert_jax.config.checks import did_you_mean
from bert_jax.config.files import from_dict, to_dict
from bert_jax.convert import model_card, names, sentence_transformers, weight_files
from bert_jax.convert import origin as origins
from bert_jax.convert.formats import Format
from bert_jax.convert.huggingface import HUGGINGFACE
from bert_jax.convert.onnx import ONNX
from bert_jax.convert.origin import FinetuningRun, Folder, Origin, PretrainingRun
from bert_jax.convert.report import Report
from bert_jax.convert.stablehlo import STABLEHLO
from bert_jax.convert.tf1 import TF1
from bert_jax.data import tokenizer_folders, tokenizers
from bert_jax.data.no_tokenizer import NoTokenizer
from bert_jax.devices import compiling
from bert_jax.devices.sharding import path_name
from bert_jax.files import contents, folders, storage
from bert_jax.models import init_params, kind_of, make_model
from bert_jax.training import metrics, steps
from bert_jax.training.checkpoints import Checkpoints

FORMATS: dict[str, Format] = {form.name: form for form in (HUGGINGFACE, TF1, ONNX, STABLEHLO)}
"""The formats by name. Whoever brings another adds it to these."""


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A model with its weights and tokenizer."""

    model: ModelConfig
    head: HeadConfig
    tokenizer: tokenizers.Tokenizer
    """Of a folder without one that is read, a `NoTokenizer`."""
    params: dict
    origin: Origin
    report: Report = dataclasses.field(default_factory=Report)
    """What in another's folder didn't fit."""

    @property
    def embedding(self) -> EmbeddingConfig:
        """How its vectors of texts are made."""
        return self.origin.embedding


def read(name: str | Path, allow_missing: bool = False, kind: str | None = None) -> Pretrained:
    """The model of a run's workdir (its last checkpoint), a checkpoint's folder, or another's folder.

    Others are those of `FORMATS` that are read. Its head is the one that is there, or of the `kind` that is asked
    for: an encoder can be had out of any. Raises `InputError` where there is none, or what is there isn't whole;
    missing arrays get fresh values where `allow_missing`.
    """
    compiling.find_devices()
    folder = folder_of(name)
    if form := format_of(folder):
        return _of_others(folder, form, allow_missing, kind)
    found = _of_checkpoint(*find_checkpoint(name))
    return with_head(found, kind, allow_missing) if kind else found


def folder_of(name: str | Path) -> Path:
    """Where the files of a MODEL lie: in old folders of sentence-transformers not in the folder that is named."""
    folder = storage.path(name)
    return folder if storage.is_remote(folder) else sentence_transformers.encoder_folder(folder)


def format_of(folder: Path) -> Format | None:
    """Which of `FORMATS` a folder is of, by its weights, else by its other files: what it lacks will be said. None for
    one of ours, and for any other."""
    form = max((form for form in FORMATS.values() if form.read), key=lambda form: form.found(folder))
    return form if form.found(folder) else None


def tokenizer_of(name: str | Path) -> tokenizers.Tokenizer:
    """That of a MODEL, without its weights."""
    folder = folder_of(name)
    if format_of(folder):
        return tokenizer_folders.read(folder)
    checkpoints, step = find_checkpoint(name)
    return _tokenizer_of(checkpoints, step)


def save(pretrained: Pretrained, folder: Path) -> None:
    """Writes a folder of ours, which `read` and --init take as they take a run's workdir."""
    about = {"model": to_dict(pretrained.model), "head": to_dict(pretrained.head)}
    about["about"] = origins.to_dict(pretrained.origin)
    checkpoints = Checkpoints(folder / "checkpoints", writing=True, host_arrays=True)
    params = jax.tree.map(np.asarray, pretrained.params)
    checkpoints.save(0, {"params": params}, about, pretrained.tokenizer.to_dict())
    checkpoints.close()


@storage.errors_in_one_line()
def export(model: str | Path | Pretrained, folder: str | Path, form: str, overwrite: bool = False) -> None:
    """Makes a folder for others to use: a model in another format, with its tokenizer and a model card.

    Args:
      model: a workdir, a checkpoint's folder, a Hugging Face folder, or what `read` made of one.
      folder: the folder to make.
      form: "hf" (transformers and sentence-transformers), "tf1" (google-research/bert), "onnx", "stablehlo", or what a
        program adds to `bert_jax.convert.pretrained.FORMATS`.
      overwrite: replaces the folder if it exists.

    Raises:
      InputError: there is no such format, or it hasn't the model's architecture or head; the folder exists and isn't to
        be replaced; or the packages for the format are missing. Then nothing is written.

    Example:
      >>> bert_jax.export("runs/base", "exported", "hf", overwrite=True)
      >>> bert_jax.load("exported")
      Bert(kind='pretraining', layers=1, width=32, vocabulary=48)
    """
    if form not in FORMATS:
        raise InputError(f"format: is {form!r:.99}; {did_you_mean(form[:99], FORMATS)}")
    with folders.whole_folder(storage.path(folder), overwrite) as aside:
        saved = model if isinstance(model, Pretrained) else read(model)
        FORMATS[form].write(aside, saved.model, saved.head, saved.params)
        embedding, longest = saved.embedding, saved.model.max_position_embeddings
        tokenizer_folders.write(saved.tokenizer, aside, embedding.max_length or longest)
        if embedding.sentence_transformers:
            sentence_transformers.write(aside, embedding, longest, saved.model.hidden_size)
        model_card.write(aside, FORMATS[form], saved.model, saved.head, saved.origin)


def overflowed(where: str) -> InputError:
    """Of outputs that are NaN or infinite, by `where` they came up: the weights are finite, as they were loaded."""
    what = "what the model computes overflows (NaN or infinite)"
    return InputError(f"{where}: {what}; its weights are finite but far too large, bring others")


def with_head(pretrained: Pretrained, kind: str, allow_missing: bool = False) -> Pretrained:
    """The same encoder with another head, which takes what weights it can.

    Raises `InputError` that names what the head needs and the model hasn't, unless it may get fresh values.
    """
    if kind != pretrained.head.kind and kind_of(HeadConfig(kind)).labelled:
        raise InputError(f"a model of the kind {pretrained.head.kind} has no labels; bert-jax finetune makes a {kind}")
    if not allow_missing:
        check_has(pretrained.model, pretrained.head, kind)
    head = pretrained.head if kind == pretrained.head.kind else HeadConfig(kind)
    there = flax.traverse_util.flatten_dict(pretrained.params, sep="/")
    shapes = names.shapes_of(pretrained.model, head)
    missing, unused = ([name for name in a if name not in b] for a, b in ((shapes, there), (there, shapes)))
    fresh = names.fresh(pretrained.model, head) if missing else {}
    params = flax.traverse_util.unflatten_dict({name: there.get(name, fresh.get(name)) for name in shapes}, sep="/")
    before = pretrained.report
    report = dataclasses.replace(before, missing=before.missing + missing, unused=before.unused + unused)
    return dataclasses.replace(pretrained, head=head, params=params, report=report)


def with_labels(pretrained: Pretrained, labels: Sequence[str]) -> Pretrained:
    """The same with its labels named, in the order of the logits. Raises `InputError` where it has others, or none."""
    head = pretrained.head
    if len(labels) != len(head.labels):
        raise InputError(f"a model of the kind {head.kind} with {len(head.labels)} labels; {len(labels)} are named")
    return dataclasses.replace(pretrained, head=dataclasses.replace(head, labels=tuple(labels)))


def check_has(model: ModelConfig, head: HeadConfig, kind: str) -> None:
    """Raises `InputError` that names the parameters which another kind of head needs and this one hasn't."""
    there, wanted = (names.shapes_of(model, h) for h in (head, head if kind == head.kind else HeadConfig(kind)))
    if missing := [name for name in wanted if name not in there]:
        remedy = f"bert-jax import --head {kind} --allow-missing gives them fresh values"
        raise InputError(f"a model of the kind {head.kind} lacks {', '.join(missing)}; {remedy}")


def find_checkpoint(model: str | Path) -> tuple[Checkpoints, int]:
    """The checkpoint of a workdir (its last; of a fine-tuning run its best) or of a checkpoint's folder."""
    path = storage.path(model)
    if (path / "checkpoints").exists():
        path = path / "checkpoints"
        checkpoints = Checkpoints(path)
        if (latest := checkpoints.latest) is not None:
            fine_tuned = "head" in checkpoints.about(latest)
            return checkpoints, (checkpoints.best or latest) if fine_tuned else latest
    elif path.name.isdecimal() and path.is_dir():
        checkpoints = Checkpoints(path.parent)
        if int(path.name) in checkpoints.steps:
            return checkpoints, int(path.name)
    there = "" if storage.is_remote(path) else f" ({weight_files.what_is_there(path)})"
    kinds = "a run's workdir, a folder in its checkpoints/, or a Hugging Face folder"
    raise InputError(f"{path}: holds no checkpoint{there}; give {kinds}")


def what_it_is(checkpoints: Checkpoints, step: int) -> tuple[ModelConfig, HeadConfig, Origin]:
    """Config and head of a checkpoint's model, and where it comes from."""
    about = checkpoints.about(step)
    try:
        origin = _origin(checkpoints, step, about)
        if isinstance(origin, PretrainingRun) and "model" not in about:
            model, head = origin.config.model, steps.pretraining_head(origin.config)
        else:
            model, head = from_dict(ModelConfig, about.get("model"), "model."), _head(about.get("head"), origin)
        if model.vocab_size is None:
            raise InputError("model.vocab_size: is null, must be a number")
        # How attention is computed is the run's, not the model's.
        return dataclasses.replace(model.validate(), attention="plain"), head.validate(), origin
    except InputError as error:
        raise InputError(f"{checkpoints.folder / str(step) / 'about'}: {error}") from None


def _origin(checkpoints: Checkpoints, step: int, about: dict) -> Origin:
    if "about" in about:  # An imported model.
        return origins.from_dict(about["about"])
    # They are for the model card alone: a row that is damaged is said, and left out.
    rows = metrics.read(checkpoints.folder.parent / "metrics.jsonl", whole=False)
    scores = {name: value for name, value in rows_at(rows, step).items() if name.startswith(("held_out_", "dev"))}
    return origins.from_dict(about | {"step": step, "metrics": scores})


def _tokenizer_of(checkpoints: Checkpoints, step: int) -> tokenizers.Tokenizer:
    return tokenizers.from_dict(checkpoints.tokenizer(step), checkpoints.folder / str(step) / "tokenizer")


def _head(values: dict | None, origin: Origin) -> HeadConfig:
    """A head as a checkpoint has it; the one output of a run of ours is a value, also where it is too old to say so."""
    head = from_dict(HeadConfig, values, "head.")
    ours = isinstance(origin, FinetuningRun)
    return dataclasses.replace(head, **VALUE) if ours and kind_of(head).unsaid(head) else head


def rows_at(rows: list[dict], step: int) -> dict:
    """The values of a step's row; of several, the last."""
    return next((row for row in reversed(rows) if row["step"] == step), {})


def _of_checkpoint(checkpoints: Checkpoints, step: int) -> Pretrained:
    model, head, origin = what_it_is(checkpoints, step)
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    shapes = jax.eval_shape(lambda: init_params(make_model(model, head), 0))
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), shapes)
    tokenizer = _tokenizer_of(checkpoints, step)
    params = checkpoints.restore(step, {"params": like})["params"]
    check_finite(params, checkpoints.folder / str(step))
    return Pretrained(model, head, tokenizer, params, origin)


def check_finite(params: dict, where: object) -> None:
    """Raises `InputError` naming the first array with a number that is none: whatever came of it would be none.

    Of arrays that lie on several processes each looks at its part, and all raise alike.
    """
    arrays = jax.tree.leaves_with_path(params)
    bad = next((number for number, (_, array) in enumerate(arrays) if not _is_finite(array)), len(arrays))
    if not all(getattr(array, "is_fully_addressable", True) for _, array in arrays):
        bad = int(multihost_utils.process_allgather(np.array(bad)).min())
    if bad < len(arrays):
        what = f"{path_name(arrays[bad][0])} has numbers that aren't finite (NaN or infinite)"
        raise InputError(f"{where}: {what}; bring weights from before they became so")


def _is_finite(array) -> bool:
    parts = [part.data for part in array.addressable_shards] if isinstance(array, jax.Array) else [array]
    return all(np.isfinite(np.asarray(part)).all() for part in parts)


def _of_others(folder: Path, form: Format, allow_missing: bool, kind: str | None) -> Pretrained:
    if storage.is_remote(folder):
        raise InputError(f"{folder}: only folders of ours are read from buckets; copy it here first")
    # Of a checkpoint of TensorFlow, the beginning of its files' names is given.
    files = folder if folder.is_dir() else folder.parent
    assert form.read
    model, head, params, report = form.read(folder, allow_missing, kind)
    check_finite(params, folder)
    tokenizer = _tokenizer(files, model)
    if isinstance(tokenizer, NoTokenizer):
        report = dataclasses.replace(report, notes=[*report.notes, f"without its tokenizer: {tokenizer.reason}"])
    embedding = sentence_transformers.read(files, model.max_position_embeddings)
    return Pretrained(model, head, tokenizer, params, Folder(str(folder), embedding), report)


def _tokenizer(folder: Path, model: ModelConfig) -> tokenizers.Tokenizer:
    """One that can't be read bars nobody who makes ids elsewhere; a file that is broken is an error all the same."""
    contents.check_links(folder)
    try:
        tokenizer = tokenizer_folders.read(folder)
    except contents.NotTheFile:
        raise
    except InputError as error:
        return NoTokenizer(str(error))
    if tokenizer.vocab_size > model.known_vocab_size:
        sizes = f"{model.vocab_size} rows of word embeddings, but its tokenizer {tokenizer.vocab_size} tokens"
        raise InputError(f"{folder}: the model has {sizes}; bring the weights that were trained with them")
    return tokenizer
