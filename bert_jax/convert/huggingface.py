"""Folders of Hugging Face's transformers: config.json and weights. Tokenizer files: `data.tokenizer_folders`."""

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

# Vocabularies are padded to a multiple of 8 to 128 for speed.
MOST_PADDING = 128
LAYER = re.compile(r"\w+\.encoder\.layer\.(\d+)\.")


def read(
    folder: Path, allow_missing: bool = False, kind: str | None = None
) -> tuple[ModelConfig, HeadConfig, dict, Report]:
    """The config, head and parameters of a folder, and a report of what in it doesn't fit.

    The head is of the wanted `kind`, else the one that config.json's `architectures` names, else the one whose weights
    are in the folder. A masked-LM head with a next-sentence head beside it is read as both. With `allow_missing`,
    missing arrays get fresh values. Raises `InputError` for what isn't BERT, isn't whole, or contradicts itself.
    """
    check_adapter(folder)
    config, file, architecture = hf_config.read(folder, kind == Alone.kind)
    tensors = Tensors(folder)
    array_names = hf_names.today(tensors.shapes, folder, architecture.name)
    model = hf_config.model(config, file, architecture)
    head, decided = _head(architecture, config, tensors, array_names, file, kind)
    _check_layers(model, array_names.files, file)
    expected = names.array_shapes(model, head, "hf")
    array = _reader(tensors, array_names)
    _settle_tied(architecture, head_of(model, head).predicts, array, array_names.files, expected, config, folder)
    shapes, padding = _shapes(tensors, array_names, expected, _padded(model, head))
    report = Report.from_shapes(folder, expected, shapes, allow_missing, array_names.files)
    notes = [*decided, *hf_config.unknown(config), *array_names.notes, *padding]
    report = dataclasses.replace(report, notes=notes)

    def get(name: str) -> np.ndarray | None:
        return array(name)[: expected[name][0]] if name in array_names.files else None

    return model, head, names.to_params(get, model, head, "hf"), report


def _reader(tensors: Tensors, array_names: Names) -> Callable[[str], np.ndarray]:
    """A function from today's names to the arrays, kernels [out, in]."""

    def array(name: str) -> np.ndarray:
        values = tensors.read(array_names.files[name])
        return values.T if array_names.transposed(name) else values

    return array


def _head(
    architecture: Architecture, config: dict, tensors: Tensors, array_names: Names, file: Path, kind: str | None
) -> tuple[HeadConfig, list[str]]:
    """The head's config, and short notes on what was decided about it."""
    heads = heads_of(architecture)
    head = heads[kind] if kind else _kind(architecture, config, array_names.files, file)
    dropout = config.get("classifier_dropout")
    if not isinstance(dropout, float | int | None):
        raise InputError(f"{file}: classifier_dropout is {dropout!r}, must be a number or null")
    bias = array_names.files.get(head.names[-1].hf) if head.names else None
    rows = tensors.shapes[bias][0] if bias and tensors.shapes[bias] else None
    fields, notes = outputs.read(head, config, rows, file)
    alone = head.kind == Alone.kind
    pooler = not alone or any(name.startswith(f"{architecture.name}.pooler.") for name in array_names.files)
    notes += ["the encoder has no pooler"] if not pooler else []
    return HeadConfig(head.kind, pooler=pooler, dropout=dropout, **fields), notes


def _kind(architecture: Architecture, config: dict, files: dict[str, str], file: Path) -> Head:
    """The head that `architectures` names, else the one whose weights are there."""
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
    shown = [head for head in heads.values() if _is_shown(head, architecture, files)]
    if not known:
        return shown[0]
    # The weights may hold more than the named head: next sentence beside a masked LM.
    pooler = f"{architecture.name}.pooler.dense.weight" in files
    wider = [head for head in shown if pooler and isinstance(head, type(known[0])) and type(head) is not type(known[0])]
    return (wider or known)[0]


def _is_shown(head: Head, architecture: Architecture, files: dict[str, str]) -> bool:
    marks = head.shown_by
    return marks is not None and all(name.format(encoder=architecture.name) in files for name in marks)


def _check_layers(model: ModelConfig, files: dict[str, str], file: Path) -> None:
    layers = 1 + max((int(layer[1]) for layer in map(LAYER.match, files) if layer), default=-1)
    if layers > model.num_hidden_layers:
        raise InputError(f"{file}: num_hidden_layers is {model.num_hidden_layers}, the weights have {layers}")


def _settle_tied(
    architecture: Architecture,
    predicts: bool,
    array: Callable[[str], np.ndarray],
    files: dict[str, str],
    expected: dict,
    config: dict,
    folder: Path,
) -> None:
    """Drops output weights that equal the word embeddings, or takes them for missing ones; refuses other weights."""
    remedy = "only output weights that are the embeddings are read; bert-jax import --head encoder does without them"
    tied = next((head.tied for head in heads_of(architecture).values() if head.predicts), ())
    if predicts and tied and config.get("tie_word_embeddings") is False and tied[0][0] not in files:
        raise InputError(f"{folder}: lacks {tied[0][0]}, though tie_word_embeddings is false; {remedy}")
    for name, parameter in tied:
        same = parameter.format(encoder=architecture.name)
        if name not in files or same not in expected:
            continue
        if same not in files:
            files[same] = files.pop(name)
        elif predicts:
            if not np.array_equal(array(name), array(same)):
                raise InputError(f"{folder}: {files[name]} differs from {files[same]}; {remedy}")
            del files[name]


def _padded(model: ModelConfig, head: HeadConfig) -> list[str]:
    """The names of arrays with a row for each piece of the vocabulary."""
    return [name.hf for name in (*architecture_of(model).names, *head_of(model, head).names) if name.padded]


def _shapes(
    tensors: Tensors, array_names: Names, expected: dict, padded: list[str]
) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """The arrays' shapes, those of `padded` arrays without the vocabulary's rows of padding, and notes on these."""
    shapes, notes = {}, []
    for name, file_name in array_names.files.items():
        shape = tensors.shapes[file_name]
        shapes[name] = shape[::-1] if array_names.transposed(name) else shape
    for name in padded:
        if name in array_names.files and name in expected:
            rows, size = (shapes[name] or (0,))[0], expected[name][0]
            if 0 < rows - size < MOST_PADDING and rows % 8 == 0:
                shapes[name] = (size, *shapes[name][1:])
                padding = f"{rows - size} rows of padding after vocab_size {size}"
                notes.append(f"{array_names.files[name]}: {padding} are left out")
    return shapes, notes


def write(folder: Path, model: ModelConfig, head: HeadConfig, params: dict) -> None:
    """Writes config.json and model.safetensors, for `AutoModel...from_pretrained`."""
    from safetensors.numpy import save_file

    write_config(folder, model, head)
    arrays = {name: np.ascontiguousarray(array) for name, array in names.to_arrays(params, model, head, "hf")}
    save_file(arrays, folder / SAFETENSORS, metadata={"format": "pt"})


def write_config(folder: Path, model: ModelConfig, head: HeadConfig) -> None:
    """Writes config.json, which describes the model and its labels, whatever file holds the weights."""
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


def match(folder: Path) -> int:
    """`Format.match`."""
    if has_weights(folder):
        return 2
    return 1 if any(present(folder / name) for name in ("config.json", "adapter_config.json")) else 0


HUGGINGFACE = Format("hf", write, read, match, use, on_hub=True)
