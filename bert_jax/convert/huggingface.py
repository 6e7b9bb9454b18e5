"""Folders of Hugging Face's transformers: config.json and weights. Tokenizer files are not of this module."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np

from bert_jax.config import HeadConfig, InputError, ModelConfig
from bert_jax.convert import names
from bert_jax.convert.report import Report
from bert_jax.convert.tensors import SAFETENSORS, Tensors

ARCHITECTURES = {
    "BertModel": "encoder",
    "BertForMaskedLM": "masked_lm",
    "BertForPreTraining": "pretraining",
    "BertForSequenceClassification": "sequence_classification",
    "BertForTokenClassification": "token_classification",
    "BertForQuestionAnswering": "question_answering",
    "BertForMultipleChoice": "multiple_choice",
}
# The erf form, and the tanh form under its several names.
ACTIVATIONS = {
    **dict.fromkeys(["gelu", "gelu_python"], "gelu"),
    **dict.fromkeys(["gelu_new", "gelu_fast", "gelu_pytorch_tanh"], "gelu_tanh"),
}
# What transformers takes where config.json is silent is what ModelConfig does, but for these.
DEFAULTS = {"vocab_size": 30_522}
FIELDS = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    *("max_position_embeddings", "type_vocab_size", "hidden_dropout_prob", "attention_probs_dropout_prob"),
    *("initializer_range", "layer_norm_eps"),
)
# A field, what it must be, and what another value would ask for.
EXPECTED = (
    ("model_type", "bert", "another model"),
    ("position_embedding_type", "absolute", "relative positions"),
    ("is_decoder", False, "a decoder"),
    ("add_cross_attention", False, "cross attention"),
)
# Buffers of old files, not weights.
BUFFERS = ("bert.embeddings.position_ids", "bert.embeddings.token_type_ids")
# Where old files have it under another name, or twice.
WORD_EMBEDDINGS, MLM_BIAS = "bert.embeddings.word_embeddings.weight", "cls.predictions.bias"
TIED = {"cls.predictions.decoder.weight": WORD_EMBEDDINGS, "cls.predictions.decoder.bias": MLM_BIAS}
# Vocabularies are filled up to a multiple of 8 to 128 for the sake of speed.
MOST_FILLED = 128
LAYER = re.compile(r"bert\.encoder\.layer\.(\d+)\.")


def read(folder: Path, allow_missing: bool = False) -> tuple[ModelConfig, HeadConfig, dict, Report]:
    """The config, head and parameters of such a folder, and what in it doesn't fit.

    The head is the one that config.json's `architectures` names, or else the one whose weights are there. A masked-LM
    head that comes with the next-sentence head is both. Where `allow_missing`, missing arrays get fresh values. Raises
    `InputError` for what isn't BERT, isn't whole, or contradicts itself.
    """
    file = folder / "config.json"
    config = _config(file)
    tensors = Tensors(folder)
    there = _by_their_names(tensors, folder)
    model, head = _model(config, file), _head(config, there, file)
    _check_layers(model, there, file)
    expected = names.shapes_there(model, head, "hf")
    _settle_tied(tensors, there, expected, folder)
    shapes, notes = _shapes(tensors, there, expected)
    report = Report.of(expected, shapes)
    unused = [there[name] for name in report.unused]
    report = dataclasses.replace(report, unused=unused, notes=[*_notes(config, head), *notes])
    report.check(folder, allow_missing)

    def get(name: str) -> np.ndarray | None:
        return tensors.read(there[name])[: expected[name][0]] if name in there else None

    return model, head, names.ours(get, model, head, "hf"), report


def _config(file: Path) -> dict:
    """config.json, of a BERT that is one here too."""
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{file}: missing; copy it too") from None
    except ValueError as error:
        raise InputError(f"{file}: damaged ({error}); copy it again") from None
    if not isinstance(config, dict):
        raise InputError(f"{file}: damaged (no JSON object); copy it again")
    for name, expected, otherwise in EXPECTED:
        if config.get(name, expected) not in (expected, None):
            raise InputError(f"{file}: {name} is {config[name]!r}, which is {otherwise}; only {expected!r} is read")
    return config


def _model(config: dict, file: Path) -> ModelConfig:
    activation = config.get("hidden_act", "gelu")
    if activation not in ACTIVATIONS:
        raise InputError(f"{file}: hidden_act is {activation!r}; there are {', '.join(ACTIVATIONS)}")
    fields = {name: config[name] for name in FIELDS if config.get(name) is not None}
    try:
        return ModelConfig(**{**DEFAULTS, **fields}, hidden_act=ACTIVATIONS[activation]).validate()
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def _head(config: dict, there: dict[str, str], file: Path) -> HeadConfig:
    architectures = config.get("architectures") or []
    known = [ARCHITECTURES[name] for name in architectures if name in ARCHITECTURES]
    if architectures and not known:
        raise InputError(f"{file}: architectures is {architectures}; there are {', '.join(ARCHITECTURES)}")
    kind = known[0] if known else _kind_there(there)
    if kind == "masked_lm" and {"cls.seq_relationship.weight", "bert.pooler.dense.weight"} <= there.keys():
        kind = "pretraining"
    dropout = config.get("classifier_dropout")
    if not isinstance(dropout, float | int | None):
        raise InputError(f"{file}: classifier_dropout is {dropout!r}, must be a number or null")
    labelled = kind in ("sequence_classification", "token_classification")
    return HeadConfig(
        kind,
        labels=_labels(config, file) if labelled else (),
        pooler=kind != "encoder" or any(name.startswith("bert.pooler.") for name in there),
        dropout=dropout,
    )


def _kind_there(there: dict[str, str]) -> str:
    """The kind of the head whose weights are there, where config.json says none."""
    marks = {
        "cls.seq_relationship.weight": "pretraining",
        "cls.predictions.transform.dense.weight": "masked_lm",
        "qa_outputs.weight": "question_answering",
    }
    if "classifier.weight" in there:
        return "sequence_classification" if "bert.pooler.dense.weight" in there else "token_classification"
    return next((kind for mark, kind in marks.items() if mark in there), "encoder")


def _labels(config: dict, file: Path) -> tuple[str, ...]:
    named = config.get("id2label")
    if not named:
        return tuple(f"LABEL_{i}" for i in range(config.get("num_labels", 2)))
    try:
        return tuple(str(named[str(i)]) for i in range(len(named)))
    except (KeyError, TypeError):
        raise InputError(f"{file}: the keys of id2label must be 0, 1, 2, ...") from None


def _notes(config: dict, head: HeadConfig) -> list[str]:
    notes = []
    if head.kind == "encoder" and not head.pooler:
        notes.append("the encoder has no pooler")
    if config.get("problem_type") == "multi_label_classification":
        notes.append("problem_type multi_label_classification isn't kept: the logits are what they were")
    return notes


def _by_their_names(tensors: Tensors, folder: Path) -> dict[str, str]:
    """The names of today's models -> those in the files: old ones have gamma and beta, bare encoders no prefix."""
    there: dict[str, str] = {}
    for name in tensors.shapes:
        today = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name))
        if today.startswith(("embeddings.", "encoder.", "pooler.")):
            today = f"bert.{today}"
        if today in there:
            raise InputError(f"{folder}: {name} and {there[today]} are the same weights; remove one of them")
        if today not in BUFFERS:
            there[today] = name
    return there


def _check_layers(model: ModelConfig, there: dict[str, str], file: Path) -> None:
    layers = 1 + max((int(found[1]) for found in map(LAYER.match, there) if found), default=-1)
    if layers > model.num_hidden_layers:
        raise InputError(f"{file}: num_hidden_layers is {model.num_hidden_layers}, the weights have {layers}")


def _settle_tied(tensors: Tensors, there: dict[str, str], expected: dict, folder: Path) -> None:
    """Output weights that are the word embeddings are dropped, or take their place; others can't be had here."""
    for name, same in TIED.items():
        if name not in there or same not in expected:
            continue
        if same not in there:
            there[same] = there.pop(name)
        elif MLM_BIAS in expected:
            if not np.array_equal(tensors.read(there[name]), tensors.read(there[same])):
                remedy = "only output weights that are the embeddings are read"
                raise InputError(f"{folder}: {there[name]} differs from {there[same]}; {remedy}")
            del there[name]


def _shapes(tensors: Tensors, there: dict[str, str], expected: dict) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """The arrays' shapes, without the rows that fill up a vocabulary, and where there are such."""
    shapes, notes = {name: tensors.shapes[file_name] for name, file_name in there.items()}, []
    for name in (WORD_EMBEDDINGS, MLM_BIAS):
        if name in there and name in expected:
            rows, size = (shapes[name] or (0,))[0], expected[name][0]
            if 0 < rows - size < MOST_FILLED and rows % 8 == 0:
                shapes[name] = (size, *shapes[name][1:])
                notes.append(f"{there[name]}: {rows - size} rows behind vocab_size {size} are left out")
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
    config = {
        "architectures": [next(name for name, kind in ARCHITECTURES.items() if kind == head.kind)],
        "model_type": "bert",
        **{name: getattr(model, name) for name in FIELDS},
        "hidden_act": activation,
        "position_embedding_type": "absolute",
        "classifier_dropout": head.dropout,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
    }
    if head.labels:
        config["id2label"] = {str(i): label for i, label in enumerate(head.labels)}
        config["label2id"] = {label: i for i, label in enumerate(head.labels)}
    (folder / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
