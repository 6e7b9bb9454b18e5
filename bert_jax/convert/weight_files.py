"""Finds the files with the weights in a folder from elsewhere, or says what it holds instead and what to do."""

import os
from pathlib import Path, PurePath

from bert_jax.config import InputError
from bert_jax.files.contents import NotTheFile, json_object, plain_name

# Weight files in the order in which they are looked for, whole or in shards with an index file.
SAFETENSORS, TORCH, FLAX = NAMES = ("model.safetensors", "pytorch_model.bin", "flax_model.msgpack")
SHARDS = ("model-*-of-*.safetensors", "pytorch_model-*-of-*.bin", "flax_model-*-of-*.msgpack")
# How many files of a folder an error names.
SHOWN = 5

ADAPTER = (
    "an adapter (LoRA or the like), not a model; merge it into its base model with peft (merge_and_unload) and save"
)
CONVERTED = (
    "transformers 4 makes safetensors of it: BertModel.from_pretrained(FOLDER, from_tf=True).save_pretrained(NEW)"
)
ORIGIN = "bring the folder that it was made from, with model.safetensors"
# Files that people take for a model: patterns of their names, what they are, and what to do.
OTHERS = (
    (("adapter_config.json", "adapter_model.*"), ADAPTER),
    (("tf_model.h5", "tf_model-*-of-*.h5"), f"weights of TensorFlow's Keras; {CONVERTED}"),
    (SHARDS, "a part of the weights, without the index file that names all parts (as model.safetensors.index.json)"),
    (
        ("model.*.safetensors", "pytorch_model.*.bin"),
        "a variant of the weights; rename it to be read, without the middle",
    ),
    (
        ("zero_pp_rank_*", "*_model_states.pt", "global_step*", "zero_to_fp32.py"),
        "parts of a DeepSpeed run; python zero_to_fp32.py FOLDER FOLDER makes pytorch_model.bin of them",
    ),
    (("checkpoint-*",), "the checkpoints of a training run; give the folder of one"),
    (("optimizer.*", "scheduler.*", "trainer_state.json"), "the state of a trainer, without its model's weights"),
    (("*.distcp", "pytorch_model_fsdp*"), "parts of an FSDP run; accelerate merge-weights makes one file of them"),
    (
        ("*.ckpt", "*.pt", "*.pth", "pytorch_model*.bin", "model.bin"),
        "a name that isn't looked for; if it holds the model's weights as torch saves them, call it pytorch_model.bin",
    ),
    (("snapshots",), "the cache of a model"),
    (("*.onnx", "onnx"), f"an ONNX graph, which is for running alone; {ORIGIN}"),
    (("openvino_model.*", "openvino"), f"OpenVINO's form of a model, which is for running alone; {ORIGIN}"),
    (("*.gguf", "ggml*", "*.tflite", "*.mlmodel", "*.mlpackage", "rust_model.ot"), f"another program's form; {ORIGIN}"),
    (("saved_model.pb",), f"a program of TensorFlow's, which is for running alone; {ORIGIN}"),
    (("*.zip", "*.tar", "*.tar.*", "*.tgz"), "a packed archive; unpack it"),
)


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights: safetensors before torch's pickles, and these before Flax's msgpack.

    Raises `InputError` where there are none, saying what the folder holds, or where an index file names missing ones.
    """
    for name in NAMES:
        if present(folder / name):
            return [folder / name]
        if present(index := folder / f"{name}.index.json"):
            return _shards(index)
    raise InputError(f"{folder}: holds no weights ({' or '.join(NAMES)}); {what_is_there(folder)}")


def has_weights(folder: Path) -> bool:
    return any(present(folder / name) for file in NAMES for name in (file, f"{file}.index.json"))


def present(file: Path) -> bool:
    """Whether there is such a file, or a link that should lead to one."""
    return file.exists() or os.path.islink(file)


def check_adapter(folder: Path) -> None:
    """Raises `InputError` for an adapter: transformers adds it to the model beside it, which differs without it."""
    if (file := folder / "adapter_config.json").exists():
        base = json_object(file).get("base_model_name_or_path")
        raise InputError(f"{file}: {ADAPTER}" + (f"; the base is {base}" if base else ""))


def _shards(index: Path) -> list[Path]:
    try:
        files = sorted({index.parent / plain_name(file, index) for file in json_object(index)["weight_map"].values()})
    except (KeyError, AttributeError, TypeError):
        raise NotTheFile(f"{index}: damaged (no weight_map of names and files); copy it again") from None
    for file in files:
        if not present(file):
            raise InputError(f"{file}: {index.name} names it, but it isn't there; copy it too")
    return files


def what_is_there(path: Path) -> str:
    """For a path that holds no model: what it is, by the names of its files, and what to do."""
    if path.is_file():
        return f"it is a file; give its folder, {path.parent}"
    if not path.is_dir():
        return "there is no such folder; a model of the Hub has to be downloaded first"
    names = sorted(file.name for file in path.iterdir())
    for patterns, what in OTHERS:
        if matching := [name for name in names if any(PurePath(name).match(pattern) for pattern in patterns)]:
            inner = [str(snapshot) for snapshot in sorted((path / "snapshots").glob("*"))]
            return f"there is {_listed(matching)}: {what}" + (f"; give {' or '.join(inner)}" if inner else "")
    if models := [name for name in names if (path / name / "config.json").exists()]:
        return f"there is {_listed(models)}, a model's folder by its config.json; give that"
    return f"there is {_listed(names)}" if names else "it is empty"


def _listed(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
