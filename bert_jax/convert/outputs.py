"""What a classifier's logits are called, and what they are, in the config.json of transformers and cross-encoders."""

import json
from pathlib import Path

from bert_jax.config import HeadConfig, InputError
from bert_jax.config.models import Activation
from bert_jax.files.contents import json_object
from bert_jax.models import Head

# By their names in sentence-transformers.
ACTIVATIONS: dict[str, Activation] = {
    "torch.nn.modules.linear.Identity": "identity",
    "torch.nn.modules.activation.Sigmoid": "sigmoid",
    "torch.nn.modules.activation.Softmax": "softmax",
}
# Where transformers takes so many labels without being told.
DEFAULT_LABELS = 2


def read(kind: Head, config: dict, rows: int | None, file: Path) -> tuple[dict, list[str]]:
    """The fields of a `HeadConfig` that config.json, a `file`, decides, and what was decided in a few words.

    `rows` are the logits that the head's weights make, None where there are no weights. Raises `InputError` where they
    aren't what config.json says, or it says what can't be read.
    """
    if kind.fixed and rows not in (kind.fixed[0], None):
        right, meaning = kind.fixed
        what = f"the head has {rows} outputs, one of {kind.kind} has {right} ({meaning})"
        raise InputError(f"{file}: {what}; bert-jax import --head encoder takes the encoder alone")
    if not kind.labelled:
        return {}, []
    labels, notes = _labels(config, rows, file)
    if not kind.typed:
        return {"labels": labels}, notes
    problem_type, activation = config.get("problem_type"), _activation(config, file)
    try:
        head = HeadConfig(kind.kind, labels, problem_type=problem_type, activation=activation).validate()
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    if kind.unsaid(head):
        notes.append("problem_type isn't said: its one output is taken as a value")
    return {"labels": labels, "problem_type": problem_type, "activation": activation}, notes


def write(head: HeadConfig) -> dict:
    """The fields of config.json for it, as transformers and sentence-transformers read them."""
    fields: dict = {}
    if head.labels:
        fields["id2label"] = {str(i): label for i, label in enumerate(head.labels)}
        fields["label2id"] = {label: i for i, label in enumerate(head.labels)}
    if head.problem_type is not None:
        fields["problem_type"] = head.problem_type
    if head.activation is not None:
        name = next(name for name, ours in ACTIVATIONS.items() if ours == head.activation)
        fields["sentence_transformers"] = {"activation_fn": name}
    return fields


def _labels(config: dict, rows: int | None, file: Path) -> tuple[tuple[str, ...], list[str]]:
    """A name for each logit. As in transformers, names that are fewer or more than num_labels don't count."""
    names, count = _names(config, file), _count(config, file)
    said = [number for number in (count, len(names)) if number]
    rows = rows or (said or [DEFAULT_LABELS])[0]
    if said and rows not in said:
        sayings = [f"num_labels is {count}"] if count else []
        sayings += [f"id2label names {len(names)}"] if names else []
        remedy = "give each its name in id2label, or bring the weights that belong to it"
        raise InputError(f"{file}: {' and '.join(sayings)}, but the weights are of {rows} labels; {remedy}")
    if len(names) != rows:
        other = [f"id2label names {len(names)} of {rows} labels and isn't used: they are LABEL_0, ..."] if names else []
        return tuple(f"LABEL_{i}" for i in range(rows)), other
    if lacking := [i for i in range(rows) if i not in names]:
        keys = f"keys are {', '.join(map(str, sorted(names)))}, so {lacking[0]} has no name"
        raise InputError(f"{file}: id2label's {keys}; number the {rows} labels from 0 on, in the weights' order")
    return tuple(names[i] for i in range(rows)), []


def _names(config: dict, file: Path) -> dict[int, str]:
    """id2label, by number. Names that aren't text are as JSON has them; an empty one is none."""
    named = config.get("id2label") or {}
    try:
        names = {int(key): name for key, name in named.items()}
    except (AttributeError, ValueError):
        shape = 'numbers from 0 on and their names, as {"0": "bad", "1": "good"}'
        raise InputError(f"{file}: id2label is {json.dumps(named)[:80]}; it must be {shape}") from None
    texts = {i: name if isinstance(name, str) else json.dumps(name) for i, name in names.items() if name is not None}
    return {i: texts.get(i) or f"LABEL_{i}" for i in names}


def _count(config: dict, file: Path) -> int | None:
    count = config.get("num_labels")
    if count is not None and (type(count) is not int or count < 1):
        raise InputError(f"{file}: num_labels is {count!r}, must be a number from 1 on")
    return count


def _activation(config: dict, file: Path) -> Activation | None:
    """Where sentence-transformers has it: since version 6 in a file of its own, since 4 in a field of its own."""
    beside = file.with_name("config_sentence_transformers.json")
    values = json_object(beside) if beside.exists() else {}
    field = config.get("sentence_transformers")
    older = [field.get("activation_fn")] if isinstance(field, dict) else []
    said = [values.get("activation_fn"), *older, config.get("sbert_ce_default_activation_function")]
    name = next((name for name in said if name), None)
    # Others than torch's it doesn't run itself, and takes its default.
    if name is None or not str(name).startswith("torch."):
        return None
    if name not in ACTIVATIONS:
        raise InputError(f"{file}: the activation is {name}; there are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]
