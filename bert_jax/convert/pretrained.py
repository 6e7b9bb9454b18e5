"""Reads and writes a MODEL on disk, whatever its format: the one way for inference, fine-tuning and conversion."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import flax.traverse_util
import jax
import numpy as np

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
from bert_jax.devices.finite import check_finite
from bert_jax.files import contents, folders, storage
from bert_jax.models import kind_of, make_model, param_shapes
from bert_jax.training import metrics, steps
from bert_jax.training.checkpoints import Checkpoints

FORMATS: dict[str, Format] = {form.name: form for form in (HUGGINGFACE, TF1, ONNX, STABLEHLO)}
"""The formats by name; a program may add others."""
# The folders that `export` writes, with a config or a tokenizer beside the model card, and those that `save` does.
MADE = folders.Made(
    "an exported or imported model",
    (
        *(
            (("README.md", config), r"\d+_[A-Z]\w*")
            for config in ("config.json", "bert_config.json", "tokenizer_config.json")
        ),
        (("checkpoints/0",), "checkpoints"),
    ),
)


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A model with its weights and tokenizer."""

    model: ModelConfig
    head: HeadConfig
    tokenizer: tokenizers.Tokenizer
    """A `NoTokenizer` where the folder has no tokenizer that can be read."""
    params: dict
    origin: Origin
    report: Report = dataclasses.field(default_factory=Report)
    """What in a folder from elsewhere didn't fit."""

    @property
    def embedding(self) -> EmbeddingConfig:
        """How vectors of texts are made with the model."""
        return self.origin.embedding


def read(name: str | Path, allow_missing: bool = False, kind: str | None = None) -> Pretrained:
    """The model in a run's workdir (its last checkpoint), a checkpoint's folder, or a folder in one of `FORMATS`.

    Its head is the one that is stored, or of the wanted `kind`: an encoder can be taken out of any model. Raises
    `InputError` where there is no model, or it isn't whole; with `allow_missing`, missing arrays get fresh values.
    """
    compiling.find_devices()
    folder = folder_of(name)
    if form := format_of(folder):
        return _read_format(folder, form, allow_missing, kind)
    saved = _read_checkpoint(*find_checkpoint(name))
    return with_head(saved, kind, allow_missing) if kind else saved


def folder_of(name: str | Path) -> Path:
    """The folder with the files of a MODEL: in old folders of sentence-transformers it lies inside the named folder."""
    folder = storage.path(name)
    return folder if storage.is_remote(folder) else sentence_transformers.encoder_folder(folder)


def format_of(folder: Path) -> Format | None:
    """The format of a folder, by its weights, else by its other files, so that errors can say what is missing. None for
    a run's workdir or checkpoint, and for any other folder."""
    form = max((form for form in FORMATS.values() if form.read), key=lambda form: form.match(folder))
    return form if form.match(folder) else None


def tokenizer_of(name: str | Path) -> tokenizers.Tokenizer:
    """The tokenizer of a MODEL, read without its weights."""
    folder = folder_of(name)
    if format_of(folder):
        return tokenizer_folders.read(folder)
    checkpoints, step = find_checkpoint(name)
    return _tokenizer_of(checkpoints, step)


def save(pretrained: Pretrained, folder: Path) -> None:
    """Writes a folder in bert_jax's own form, which `read` and --init take as they take a run's workdir."""
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
      overwrite: replaces the folder if it exists and was exported or imported; no other is ever replaced.

    Raises:
      InputError: there is no such format, or it has no such architecture or head; the folder exists and isn't to be
        replaced; or the packages for the format are missing. Then nothing is written.

    Example:
      >>> bert_jax.export("runs/base", "exported", "hf", overwrite=True)
      >>> bert_jax.load("exported")
      Bert(kind='pretraining', layers=1, width=32, vocabulary=48)
    """
    if form not in FORMATS:
        raise InputError(f"format: is {form!r:.99}; {did_you_mean(form[:99], FORMATS)}")
    with folders.whole_folder(storage.path(folder), MADE if overwrite else None) as aside:
        saved = model if isinstance(model, Pretrained) else read(model)
        FORMATS[form].write(aside, saved.model, saved.head, saved.params)
        embedding, longest = saved.embedding, saved.model.max_position_embeddings
        tokenizer_folders.write(saved.tokenizer, aside, embedding.max_length or longest)
        if embedding.sentence_transformers:
            sentence_transformers.write(aside, embedding, longest, saved.model.hidden_size)
        model_card.write(aside, FORMATS[form], saved.model, saved.head, saved.origin)


def overflowed(where: str) -> InputError:
    """The error for outputs at `where` that are NaN or infinite; the weights were finite when they were loaded."""
    what = "what the model computes overflows (NaN or infinite)"
    return InputError(f"{where}: {what}; its weights are finite but far too large, bring others")


def with_head(pretrained: Pretrained, kind: str, allow_missing: bool = False) -> Pretrained:
    """The same encoder with a head of this kind, which takes those weights of the old head that fit.

    Raises `InputError` naming the weights that the head needs and the model lacks, unless they may get fresh values.
    """
    if kind != pretrained.head.kind and kind_of(HeadConfig(kind)).labelled:
        raise InputError(f"a model of the kind {pretrained.head.kind} has no labels; bert-jax finetune makes a {kind}")
    if not allow_missing:
        check_has(pretrained.model, pretrained.head, kind)
    head = pretrained.head if kind == pretrained.head.kind else HeadConfig(kind)
    old = flax.traverse_util.flatten_dict(pretrained.params, sep="/")
    shapes = names.shapes_of(pretrained.model, head)
    missing = [name for name in shapes if name not in old]
    unused = [name for name in old if name not in shapes]
    fresh = names.fresh(pretrained.model, head) if missing else {}
    params = flax.traverse_util.unflatten_dict({name: old.get(name, fresh.get(name)) for name in shapes}, sep="/")
    before = pretrained.report
    report = dataclasses.replace(before, missing=before.missing + missing, unused=before.unused + unused)
    return dataclasses.replace(pretrained, head=head, params=params, report=report)


def with_labels(pretrained: Pretrained, labels: Sequence[str]) -> Pretrained:
    """The same model with these names for its labels, in the logits' order. Raises `InputError` for another number."""
    head = pretrained.head
    if len(labels) != len(head.labels):
        raise InputError(f"a model of the kind {head.kind} with {len(head.labels)} labels; {len(labels)} are named")
    return dataclasses.replace(pretrained, head=dataclasses.replace(head, labels=tuple(labels)))


def check_has(model: ModelConfig, head: HeadConfig, kind: str) -> None:
    """Raises `InputError` naming the parameters that a head of `kind` needs and this model lacks."""
    held, wanted = (names.shapes_of(model, h) for h in (head, head if kind == head.kind else HeadConfig(kind)))
    if missing := [name for name in wanted if name not in held]:
        remedy = f"bert-jax import --head {kind} --allow-missing gives them fresh values"
        raise InputError(f"a model of the kind {head.kind} lacks {', '.join(missing)}; {remedy}")


def find_checkpoint(model: str | Path) -> tuple[Checkpoints, int]:
    """The checkpoint of a workdir (its last; for a fine-tuning run its best) or of a checkpoint's folder."""
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
    holds = "" if storage.is_remote(path) else f" ({weight_files.what_is_there(path)})"
    kinds = "a run's workdir, a folder in its checkpoints/, or a Hugging Face folder"
    raise InputError(f"{path}: holds no checkpoint{holds}; give {kinds}")


def read_about(checkpoints: Checkpoints, step: int) -> tuple[ModelConfig, HeadConfig, Origin]:
    """The config and head of a checkpoint's model, and where the model comes from."""
    about = checkpoints.about(step)
    try:
        origin = _origin(checkpoints, step, about)
        if isinstance(origin, PretrainingRun) and "model" not in about:
            model, head = origin.config.model, steps.pretraining_head(origin.config)
        else:
            model, head = from_dict(ModelConfig, about.get("model"), "model."), _head(about.get("head"), origin)
        if model.vocab_size is None:
            raise InputError("model.vocab_size: is null, must be a number")
        # How attention is computed belongs to the run, not to the model.
        return dataclasses.replace(model.validate(), attention="auto"), head.validate(), origin
    except InputError as error:
        raise InputError(f"{checkpoints.folder / str(step) / 'about'}: {error}") from None


def _origin(checkpoints: Checkpoints, step: int, about: dict) -> Origin:
    if "about" in about:  # An imported model.
        return origins.from_dict(about["about"])
    # The scores are only for the model card: a damaged row is reported and left out.
    rows = metrics.read(checkpoints.folder.parent / "metrics.jsonl", whole=False)
    scores = {name: value for name, value in rows_at(rows, step).items() if name.startswith(("held_out_", "dev"))}
    return origins.from_dict(about | {"step": step, "metrics": scores})


def _tokenizer_of(checkpoints: Checkpoints, step: int) -> tokenizers.Tokenizer:
    return tokenizers.from_dict(checkpoints.tokenizer(step), checkpoints.folder / str(step) / "tokenizer")


def _head(values: dict | None, origin: Origin) -> HeadConfig:
    """The head in a checkpoint. A single output of a fine-tuning run is a value; old checkpoints don't say so."""
    head = from_dict(HeadConfig, values, "head.")
    fine_tuned = isinstance(origin, FinetuningRun)
    return dataclasses.replace(head, **VALUE) if fine_tuned and kind_of(head).unsaid(head) else head


def rows_at(rows: list[dict], step: int) -> dict:
    """The values of a step's row, the last one if there are several."""
    return next((row for row in reversed(rows) if row["step"] == step), {})


def _read_checkpoint(checkpoints: Checkpoints, step: int) -> Pretrained:
    model, head, origin = read_about(checkpoints, step)
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    shapes = param_shapes(make_model(model, head))
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), shapes)
    tokenizer = _tokenizer_of(checkpoints, step)
    params = checkpoints.restore(step, {"params": like})["params"]
    return Pretrained(model, head, tokenizer, params, origin)


def _read_format(folder: Path, form: Format, allow_missing: bool, kind: str | None) -> Pretrained:
    if storage.is_remote(folder):
        raise InputError(f"{folder}: only bert_jax's own folders are read from buckets; copy it here first")
    # A checkpoint of TensorFlow is named by the prefix of its files' names.
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
    """The folder's tokenizer. An unknown kind is no error, as ids may be made elsewhere; a damaged file is one."""
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
