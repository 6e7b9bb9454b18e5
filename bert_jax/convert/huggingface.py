"""Folders of Hugging Face's transformers: config.json and weights. Tokenizer files are not of this module."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bert_jax.config import HeadConfig, InputError, ModelConfig
from bert_jax.convert import hf_config, hf_names, names, outputs
from bert_jax.convert.formats import Format
from bert_jax.convert.hf_config import FIELDS
from bert_jax.convert.hf_names import Names
from bert_jax.convert.report import Report
from bert_jax.convert.tensors import Tensors
from bert_jax.convert.weight_files import SAFETENSORS, check_adapter, has_weights, present
from bert_jax.models import Alone, Architecture, Head, architecture_of, head_of, heads_of, kind_of

# Vocabularies are filled up to a multiple of 8 to 128 for the sake of speed.
MOST_FILLED = 128
LAYER = re.compile(r"\w+\.encoder\.layer\.(\d+)\.")


def read(
    folder: Path, allow_missing: bool = False, kind: str | None = None
) -> tuple[ModelConfig, HeadConfig, dict, Report]:
    """The config, head and parameters of such a folder, and what in it doesn't fit.

    The head is of the `kind` that is asked for, or that config.json's `architectures` names, or else the one whose
    weights are there. A masked-LM head that comes with the next-sentence head is both. Where `allow_missing`, missing
    arrays get fresh values. Raises `InputError` for what isn't BERT, isn't whole, or contradicts itself.
    """
    check_adapter(folder)
    config, file, architecture = hf_config.read(folder, kind == Alone.kind)
    tensors = Tensors(folder)
    there = hf_names.today(tensors.shapes, folder, architecture.name)
    model = hf_config.model(config, file, architecture)
    head, decided = _head(architecture, config, tensors, there, file, kind)
    _check_layers(model, there.files, file)
    expected = names.shapes_there(model, head, "hf")
    array = _reader(tensors, there)
    _settle_tied(architecture, head_of(model, head).predicts, array, there.files, expected, config, folder)
    shapes, filled_up = _shapes(tensors, there, expected, _padded(model, head))
    report = Report.of(folder, expected, shapes, allow_missing, there.files)
    notes = [*decided, *hf_config.unknown(config), *there.notes, *filled_up]
    report = dataclasses.replace(report, notes=notes)

    def get(name: str) -> np.ndarray | None:
        return array(name)[: expected[name][0]] if name in there.files else None

    return model, head, names.ours(get, model, head, "hf"), report


def _reader(tensors: Tensors, there: Names) -> Callable[[str], np.ndarray]:
    """A function from today's names to the arrays, kernels [out, in]."""

    def array(name: str) -> np.ndarray:
        values = tensors.read(there.files[name])
        return values.T if there.transposed(name) else values

    return array


def _head(
    architecture: Architecture, config: dict, tensors: Tensors, there: Names, file: Path, kind: str | None
) -> tuple[HeadConfig, list[str]]:
    """And what was decided about it, in a few words."""
    heads = heads_of(architecture)
    of_kind = heads[kind] if kind else _kind(architecture, config, there.files, file)
    dropout = config.get("classifier_dropout")
    if not isinstance(dropout, float | int | None):
        raise InputError(f"{file}: classifier_dropout is {dropout!r}, must be a number or null")
    bias = there.files.get(of_kind.names[-1].hf) if of_kind.names else None
    rows = tensors.shapes[bias][0] if bias and tensors.shapes[bias] else None
    fields, notes = outputs.read(of_kind, config, rows, file)
    alone = of_kind.kind == Alone.kind
    pooler = not alone or any(name.startswith(f"{architecture.name}.pooler.") for name in there.files)
    notes += ["the encoder has no pooler"] if not pooler else []
    return HeadConfig(of_kind.kind, pooler=pooler, dropout=dropout, **fields), notes


def _kind(architecture: Architecture, config: dict, there: dict[str, str], file: Path) -> Head:
    """What `architectures` names; else what is there."""
    heads = heads_of(architecture)
    named = {architecture.prefix + head.suffix: head for head in heads.values()}
    architectures = config.get("architectures") or []
    if not isinstance(architectures, list):
        raise InputError(f"{file}: architectures is {architectures!r}, must be a list of names")
    bare = [re.sub("^(TF|Flax)", "", str(name)) for name in architectures]
    known = [named[name] for name in bare if name in named]
    if architectures and not known:
        remedy = f"there are {', '.join(named)}; bert-jax import --head encoder takes the encoder out of any other"
        raise InputError(f"{file}: architectures is {architectures}; {remedy}")
    shown = [head for head in heads.values() if _is_shown(head, architecture, there)]
    if not known:
        return shown[0]
    # More than is named may be there: next sentence beside a masked LM.
    pooler = f"{architecture.name}.pooler.dense.weight" in there
    wider = [head for head in shown if pooler and isinstance(head, type(known[0])) and type(head) is not type(known[0])]
    return (wider or known)[0]


def _is_shown(head: Head, architecture: Architecture, there: dict[str, str]) -> bool:
    marks = head.shown_by
    return marks is not None and all(name.format(encoder=architecture.name) in there for name in marks)


def _check_layers(model: ModelConfig, there: dict[str, str], file: Path) -> None:
    layers = 1 + max((int(found[1]) for found in map(LAYER.match, there) if found), default=-1)
    if layers > model.num_hidden_layers:
        raise InputError(f"{file}: num_hidden_layers is {model.num_hidden_layers}, the weights have {layers}")


def _settle_tied(
    architecture: Architecture,
    predicts: bool,
    array: Callable[[str], np.ndarray],
    there: dict[str, str],
    expected: dict,
    config: dict,
    folder: Path,
) -> None:
    """Output weights that are the word embeddings are dropped, or take their place; others can't be had here."""
    remedy = "only output weights that are the embeddings are read; bert-jax import --head encoder does without them"
    tied = next((head.tied for head in heads_of(architecture).values() if head.predicts), ())
    if predicts and tied and config.get("tie_word_embeddings") is False and tied[0][0] not in there:
        raise InputError(f"{folder}: lacks {tied[0][0]}, though tie_word_embeddings is false; {remedy}")
    for name, parameter in tied:
        same = parameter.format(encoder=architecture.name)
        if name not in there or same not in expected:
            continue
        if same not in there:
            there[same] = there.pop(name)
        elif predicts:
            if not np.array_equal(array(name), array(same)):
                raise InputError(f"{folder}: {there[name]} differs from {there[same]}; {remedy}")
            del there[name]


def _padded(model: ModelConfig, head: HeadConfig) -> list[str]:
    """Arrays with a row for each piece of the vocabulary."""
    return [name.hf for name in (*architecture_of(model).names, *head_of(model, head).names) if name.padded]


def _shapes(
    tensors: Tensors, there: Names, expected: dict, padded: list[str]
) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """The arrays' shapes; of `padded` ones without the rows that fill up a vocabulary, and notes that say so."""
    shapes, notes = {}, []
    for name, file_name in there.files.items():
        shape = tensors.shapes[file_name]
        shapes[name] = shape[::-1] if there.transposed(name) else shape
    for name in padded:
        if name in there.files and name in expected:
            rows, size = (shapes[name] or (0,))[0], expected[name][0]
            if 0 < rows - size < MOST_FILLED and rows % 8 == 0:
                shapes[name] = (size, *shapes[name][1:])
                notes.append(f"{there.files[name]}: {rows - size} rows behind vocab_size {size} are left out")
    return shapes, notes


def write(folder: Path, model: ModelConfig, head: HeadConfig, params: dict) -> None:
    """Writes config.json and model.safetensors, for `AutoModel...from_pretrained`."""
    from safetensors.numpy import save_file

    write_config(folder, model, head)
    arrays = {name: np.ascontiguousarray(array) for name, array in names.theirs(params, model, head, "hf")}
    save_file(arrays, folder / SAFETENSORS, metadata={"format": "pt"})


def write_config(folder: Path, model: ModelConfig, head: HeadConfig) -> None:
    """Writes config.json: with it, what reads a folder knows the model and its labels, whatever holds its weights."""
    activation = {"gelu": "gelu", "gelu_tanh": "gelu_new"}[model.hidden_act]
    architecture = architecture_of(model)
    config = {
        "architectures": [architecture.prefix + head_of(model, head).suffix],
        "model_type": architecture.name,
        **architecture.to_hf(model, {name: getattr(model, name) for name in FIELDS}),
        "hidden_act": activation,
        "position_embedding_type": "absolute",
        "classifier_dropout": head.dropout,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        **outputs.write(head),
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def use(head: HeadConfig) -> list[str]:
    """`Format.use`."""
    model = "AutoModel" + kind_of(head).suffix.removeprefix("Model")
    return [
        "In this folder:",
        f"""```python
from transformers import AutoTokenizer, {model}

tokenizer = AutoTokenizer.from_pretrained(".")
model = {model}.from_pretrained(".")
```""",
    ]


def found(folder: Path) -> int:
    """`Format.found`."""
    if has_weights(folder):
        return 2
    return 1 if any(present(folder / name) for name in ("config.json", "adapter_config.json")) else 0


HUGGINGFACE = Format("hf", write, read, found, use, on_hub=True)
