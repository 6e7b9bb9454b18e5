"""Checkpoints of google-research/bert: `bert_model.ckpt.*` or a training run's `model.ckpt-N.*`, and bert_config.json.

The names of the variables say what kind of model it is; bert_config.json has no field for it. For labels, and for heads
that the original doesn't have, a field "head" is written, which the original ignores.
"""

import contextlib
import dataclasses
import json
import math
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from bert_jax.config import HeadConfig, InputError, ModelConfig
from bert_jax.config.files import from_dict, to_dict
from bert_jax.config.models import HiddenAct
from bert_jax.convert import hf_config, names, outputs
from bert_jax.convert.formats import Format
from bert_jax.convert.report import Report
from bert_jax.files import contents
from bert_jax.models import HEADS, Alone, architecture_of, head_of

CONFIG, CHECKPOINT = "bert_config.json", "bert_model.ckpt"
LONGEST_CHECKPOINT = 1 << 20  # bytes of the file that lists a run's checkpoints
SIZES = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    *("max_position_embeddings", "type_vocab_size"),
)
RATES = ("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range", "layer_norm_eps")
# The 2018 release computes gelu by erf; the tanh form has its name in transformers.
ACTIVATIONS: dict[str, HiddenAct] = {"gelu": "gelu", "gelu_new": "gelu_tanh"}
POOLER = "bert/pooler/dense/kernel"


def write(folder: Path, model: ModelConfig, head: HeadConfig, params: dict) -> None:
    """Writes a checkpoint with the original's names and shapes, float32, and its bert_config.json.

    The original's code has the epsilon 1e-12 and, since February 2019, the tanh form of gelu built in, whatever the
    config says; it refuses the name that is written for the latter ("gelu_new").
    """
    if not (architecture := architecture_of(model)).tf1:
        raise InputError(f"--format tf1: google-research/bert has no {architecture.title}; choose another format")
    if not all(name.tf1 for name in head_of(model, head).names):
        raise InputError(
            f"--format tf1: google-research/bert has no head of the kind {head.kind}; choose another format"
        )
    tf = _tensorflow()
    folder.mkdir(parents=True, exist_ok=True)
    arrays = dict(names.to_arrays(params, model, head, "tf1"))
    prefix = str(folder / CHECKPOINT)
    with tf.device("CPU"):
        tf.raw_ops.SaveV2(
            prefix=prefix, tensor_names=list(arrays), shape_and_slices=[""] * len(arrays), tensors=list(arrays.values())
        )
    (folder / CONFIG).write_text(json.dumps(_to_json(model, head), indent=2) + "\n")


def read(
    source: Path, allow_missing: bool = False, kind: str | None = None
) -> tuple[ModelConfig, HeadConfig, dict, Report]:
    """The config, head and parameters of a folder with one checkpoint, or of a checkpoint's prefix (RUN/model.ckpt-9).

    The head is of the wanted `kind`, else the one that the variables show. With `allow_missing`, missing parameters get
    fresh values, and are listed. Raises `InputError` naming the file and what it lacks.
    """
    with tempfile.TemporaryDirectory(prefix="bert_jax_") as folder:
        return _read(find(source), Path(folder), allow_missing, kind)


def _read(
    prefix: Path, links: Path, allow_missing: bool, kind: str | None
) -> tuple[ModelConfig, HeadConfig, dict, Report]:
    """`links` is an empty folder for links to the checkpoint's files."""
    file = prefix.parent / CONFIG
    values = _config(file)
    model = _model(values, file)
    beginnings = f"{prefix.name}.index", f"{prefix.name}.data"
    parts = [part for part in sorted(prefix.parent.iterdir()) if part.name.startswith(beginnings)]
    for part in parts:
        contents.check(part)
    with _errors_in_one_line(prefix):
        reader = _tensorflow().train.load_checkpoint(str(_linked(prefix, parts, links)))
        shapes = {name: tuple(shape) for name, shape in reader.get_variable_to_shape_map().items()}
        sizes = {name: max(dtype.size, 0) for name, dtype in reader.get_variable_to_dtype_map().items()}
    # TensorFlow allocates the memory before it reads.
    claimed = sum(math.prod(shape) * sizes[name] for name, shape in shapes.items())
    held = sum(part.stat().st_size for part in parts)
    if claimed > held:
        raise InputError(
            f"{prefix}: damaged (says that {claimed:,} bytes are in its {held:,}); copy the checkpoint again"
        )

    def array(name: str) -> np.ndarray | None:
        if name not in shapes:
            return None
        with _errors_in_one_line(prefix):
            return reader.get_tensor(name)

    head = _head(values, shapes, file, kind)
    _check_layers(model, shapes, file)
    report = Report.from_shapes(prefix, names.array_shapes(model, head, "tf1"), shapes, allow_missing)
    report = dataclasses.replace(report, notes=_notes(values, model, head))
    return model, head, names.to_params(array, model, head, "tf1"), report


def _linked(prefix: Path, parts: list[Path], folder: Path) -> Path:
    """The same checkpoint under a name without [ or *, by which TensorFlow would look for others."""
    for part in parts:
        (folder / f"{CHECKPOINT}{part.name.removeprefix(prefix.name)}").symlink_to(part.absolute())
    return folder / CHECKPOINT


def find(source: Path) -> Path:
    """The prefix of the checkpoint that a path is, or of the only or latest one in a folder."""
    if _index(source).exists():
        return source
    checkpoints = sorted(index.with_suffix("") for index in source.glob("*.index"))
    if len(checkpoints) == 1:
        return checkpoints[0]
    if (latest := _latest(source)) in checkpoints:
        return latest
    if not checkpoints:
        raise InputError(f"{source}: holds no checkpoint; its index, {CHECKPOINT}.index, must be in it")
    raise InputError(f"{source}: holds {', '.join(path.name for path in checkpoints)}; name one: {checkpoints[-1]}")


def _latest(folder: Path) -> Path | None:
    """The checkpoint that a training run's file `checkpoint` names; its path is one of the machine of the run."""
    file = folder / "checkpoint"
    if not file.is_file():
        return None
    contents.check(file)
    with open(file, "rb") as stream:
        named = re.search(rb'^model_checkpoint_path: "([^"\n]*)"', stream.read(LONGEST_CHECKPOINT), re.MULTILINE)
    return folder / contents.plain_name(named[1].decode(errors="replace").rpartition("/")[2], file) if named else None


def _index(prefix: Path) -> Path:
    return prefix.with_name(f"{prefix.name}.index")


def _unnamed() -> list[str]:
    """The kinds of head that share the variables output_weights and output_bias."""
    return [kind for kind, head in HEADS.items() if any(name.tf1 == "output_weights" for name in head.names)]


def _to_json(model: ModelConfig, head: HeadConfig) -> dict:
    values = {name: getattr(model, name) for name in (*SIZES, *RATES)}
    values["hidden_act"] = next(name for name, activation in ACTIVATIONS.items() if activation == model.hidden_act)
    if model.layer_norm_eps == ModelConfig.layer_norm_eps:
        del values["layer_norm_eps"]
    return values | ({"head": to_dict(head)} if head.kind in _unnamed() else {})


def _config(file: Path) -> dict:
    try:
        values = contents.json_object(file)
    except FileNotFoundError:
        origin = "that of the model it was trained from (--bert_config_file, beside its --init_checkpoint)"
        raise InputError(f"{file}: isn't there; a checkpoint of google-research/bert needs it, copy {origin}") from None
    hf_config.check(values, file)
    return values


def _model(values: dict, file: Path) -> ModelConfig:
    fields = {name: values[name] for name in (*SIZES, *RATES) if name in values}
    if lacking := [name for name in SIZES if name not in fields]:
        raise InputError(f"{file}: lacks {', '.join(lacking)}; it must be the one that was released or trained with")
    activation = values.get("hidden_act", "gelu")
    if activation not in list(ACTIVATIONS):
        raise InputError(f"{file}: hidden_act is {activation!r}; there are {', '.join(ACTIVATIONS)}")
    try:
        return ModelConfig(**fields, hidden_act=ACTIVATIONS[activation]).validate()
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def _head(values: dict, shapes: dict[str, tuple[int, ...]], file: Path, kind: str | None) -> HeadConfig:
    """The head of this kind; the field "head" may say what the names of the variables don't."""
    own = _own_head(values["head"], file) if "head" in values else None
    kind = kind or _kind(shapes, own)
    if kind == Alone.kind:
        return HeadConfig(kind, pooler=POOLER in shapes)
    if own and own.kind == kind:
        return own
    if not HEADS[kind].labelled:
        return HeadConfig(kind)
    if "output_weights" not in shapes:
        remedy = "bert-jax import --head encoder takes the encoder alone"
        raise InputError(f"{file.parent}: no variable is called output_weights, so there is no {kind}; {remedy}")
    return HeadConfig(kind, outputs.unnamed(shapes["output_weights"][0], file))


def _kind(shapes: dict[str, tuple[int, ...]], own: HeadConfig | None) -> str:
    """The kind of head that the variables show; a tagger's are named as a classifier's, so the field "head" decides."""
    shown = [h.kind for h in HEADS.values() if h.shown_by_tf1 is not None and shapes.keys() >= {*h.shown_by_tf1}]
    named = [kind for kind in shown if kind not in (*_unnamed(), Alone.kind)]
    return (named or ([own.kind] if own else shown))[0]


def _own_head(values: dict, file: Path) -> HeadConfig:
    if not isinstance(values, dict) or values.get("kind") not in _unnamed():
        raise InputError(f"{file}: head is {values!r}, must have a kind, one of {', '.join(_unnamed())}")
    try:
        return from_dict(HeadConfig, values, "head.").validate()
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def _notes(values: dict, model: ModelConfig, head: HeadConfig) -> list[str]:
    notes = ["gelu is taken as the 2018 release had it, by erf"] if model.hidden_act == "gelu" else []
    if head.labels and "head" not in values:
        labels = (
            f"the names of its {len(head.labels)} labels aren't in the files: LABEL_0, ... unless --labels gives them"
        )
        others = [kind for kind in _unnamed() if HEADS[kind].labelled and kind != head.kind]
        notes.append(f"{labels}; if it isn't of the kind {head.kind}, give --head {' or '.join(others)}")
    return [*notes, *hf_config.unknown({name: value for name, value in values.items() if name != "head"})]


def _check_layers(model: ModelConfig, variables: Iterable[str], file: Path) -> None:
    """Raises `InputError` where the config has fewer layers than the checkpoint; the report lists missing ones."""
    layers = {int(layer[1]) for name in variables if (layer := re.match(r"bert/encoder/layer_(\d+)/", name))}
    if layers and max(layers) >= model.num_hidden_layers:
        sizes = f"num_hidden_layers is {model.num_hidden_layers}, the checkpoint has {max(layers) + 1}"
        raise InputError(f"{file}: {sizes}; this isn't its config")


@contextlib.contextmanager
def _errors_in_one_line(prefix: Path) -> Iterator[None]:
    """Raises `InputError` for what TensorFlow raises where the index or a part of the data is damaged or missing."""
    try:
        yield
    # TensorFlow's reader raises Python's own errors for some damage, as IndexError for a file that ends too soon.
    except (_tensorflow().errors.OpError, IndexError, ValueError, RuntimeError) as error:
        text = " ".join(re.sub(r"\S*/bert_jax_[^/]*/", "", str(error)).split())
        raise InputError(f"{prefix}: damaged or not whole ({text}); copy the checkpoint again") from None


def _tensorflow():
    from bert_jax.data.tensorflow import tf

    return tf


def use(head: HeadConfig) -> list[str]:
    """`Format.use`."""
    return [
        "Names and shapes are those of google-research/bert, which takes it as `--init_checkpoint`. In this folder:",
        """```python
import tensorflow as tf

checkpoint = tf.train.load_checkpoint("bert_model.ckpt")
weights = {name: checkpoint.get_tensor(name) for name in checkpoint.get_variable_to_shape_map()}
```""",
    ]


def match(folder: Path) -> int:
    """`Format.match`, of a folder or one checkpoint of a training run."""
    if any(folder.glob("*.index")) or (folder.parent / f"{folder.name}.index").exists():
        return 2
    return 1 if (folder / CONFIG).exists() else 0


TF1 = Format("tf1", write, read, match, use)
