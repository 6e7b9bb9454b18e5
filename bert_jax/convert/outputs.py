"""What config.json of transformers and cross-encoders says of a classifier's logits: their names and meaning."""

import json
from pathlib import Path

from bert_jax.config import HeadConfig, InputError
from bert_jax.config.models import Activation
from bert_jax.files.contents import json_object
from bert_jax.models import Head

# Activations by their names in sentence-transformers.
ACTIVATIONS: dict[str, Activation] = {
    "torch.nn.modules.linear.Identity": "identity",
    "torch.nn.modules.activation.Sigmoid": "sigmoid",
    "torch.nn.modules.activation.Softmax": "softmax",
}
# The number of labels that transformers assumes where config.json doesn't say it.
DEFAULT_LABELS = 2
# More than any classifier has. Naming what a file claims takes time and memory, before any shape is compared.
MOST_LABELS = 1 << 20


def read(kind: Head, config: dict, rows: int | None, file: Path) -> tuple[dict, list[str]]:
    """The fields of a `HeadConfig` that config.json (`file`) decides, and short notes on what was decided.

    `rows` is the number of logits that the head's weights make, None where there are no weights. Raises `InputError`
    where config.json gives another number, or says what can't be read.
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
        notes.append("problem_type isn't given: its single output is taken as a value")
    return {"labels": labels, "problem_type": problem_type, "activation": activation}, notes


def write(head: HeadConfig) -> dict:
    """The fields of config.json for a head, as transformers and sentence-transformers read them."""
    fields: dict = {}
    if head.labels:
        fields["id2label"] = {str(i): label for i, label in enumerate(head.labels)}
        fields["label2id"] = {label: i for i, label in enumerate(head.labels)}
    if head.problem_type is not None:
        fields["problem_type"] = head.problem_type
    if head.activation is not None:
        name = next(name for name, activation in ACTIVATIONS.items() if activation == head.activation)
        fields["sentence_transformers"] = {"activation_fn": name}
    return fields


def _labels(config: dict, rows: int | None, file: Path) -> tuple[tuple[str, ...], list[str]]:
    """A name for each logit. As in transformers, names that are fewer or more than num_labels don't count."""
    names, count = _names(config, file), _count(config, file)
    counts = [number for number in (count, len(names)) if number]
    rows = rows or (counts or [DEFAULT_LABELS])[0]
    if counts and rows not in counts:
        claims = [f"num_labels is {count}"] if count else []
        claims += [f"id2label names {len(names)}"] if names else []
        remedy = "give each its name in id2label, or bring the weights that belong to it"
        raise InputError(f"{file}: {' and '.join(claims)}, but the weights are of {rows} labels; {remedy}")
    if len(names) != rows:
        other = [f"id2label names {len(names)} of {rows} labels and isn't used: they are LABEL_0, ..."] if names else []
        return unnamed(rows, file), other
    if lacking := [i for i in range(rows) if i not in names]:
        keys = f"keys are {', '.join(map(str, sorted(names)))}, so {lacking[0]} has no name"
        raise InputError(f"{file}: id2label's {keys}; number the {rows} labels from 0 on, in the weights' order")
    return tuple(names[i] for i in range(rows)), []


def unnamed(count: int, file: Path) -> tuple[str, ...]:
    """Names for labels without any. Raises `InputError` where a file claims more than `MOST_LABELS`."""
    if count > MOST_LABELS:
        raise InputError(f"{file}: its classifier is of {count:,} labels, must be of at most {MOST_LABELS:,}")
    return tuple(f"LABEL_{i}" for i in range(count))


def _names(config: dict, file: Path) -> dict[int, str]:
    """The names in id2label by number. A name that isn't text is written as JSON; an empty name counts as none."""
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
    """The activation, where sentence-transformers has it: since version 6 in its own file, since 4 in its own field."""
    beside = file.with_name("config_sentence_transformers.json")
    values = json_object(beside) if beside.exists() else {}
    field = config.get("sentence_transformers")
    older = [field.get("activation_fn")] if isinstance(field, dict) else []
    candidates = [values.get("activation_fn"), *older, config.get("sbert_ce_default_activation_function")]
    name = next((name for name in candidates if name), None)
    # sentence-transformers runs only torch's activations, and takes its default instead of others.
    if name is None or not str(name).startswith("torch."):
        return None
    if name not in ACTIVATIONS:
        raise InputError(f"{file}: the activation is {name}; there are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]
