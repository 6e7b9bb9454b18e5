"""Configs in files and in checkpoints: loading them, writing them as JSON, comparing them."""

import dataclasses
import importlib
import inspect
import json
import os
import re
import shlex
import traceback
import typing
from pathlib import Path
from types import ModuleType, NoneType
from typing import Any

from bert_jax import config as configs
from bert_jax.config import FinetuneConfig, InputError, PretrainConfig, versions
from bert_jax.config.checks import did_you_mean, type_problems
from bert_jax.files import contents


def to_dict(config) -> dict:
    """The config as plain JSON values (tuples become lists)."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(cls: type, values: Any, where: str = "") -> Any:
    """The inverse of `to_dict`, also for what earlier versions wrote: new fields have their defaults.

    Raises `InputError`, whose message begins with `where`, for an unknown field, with the nearest right name, and for a
    value that doesn't have its field's type.
    """
    if not isinstance(values, dict):
        raise InputError(f"{where.rstrip('.') or 'it'}: is {values!r:.99}, must have the fields of {cls.__name__}")
    hints, values = typing.get_type_hints(cls), versions.migrated(cls.__name__, values, where)
    for name in values:
        if name not in hints:
            raise InputError(f"{where + name}: no such field of {cls.__name__}; {did_you_mean(name, hints)}")
    for field in dataclasses.fields(cls):
        if field.name not in values and field.default is field.default_factory is dataclasses.MISSING:
            raise InputError(f"{where}{field.name}: is missing; a {cls.__name__} needs it")
    config = cls(**{name: _from_json(hints[name], value, f"{where}{name}.") for name, value in values.items()})
    for name, problem in type_problems(cls, config):
        raise InputError(f"{where}{name}: {problem}")
    return config


def config_of(about: dict, where: object = "") -> FinetuneConfig | PretrainConfig | None:
    """The config of the run that made a model, from its checkpoint's description; None for an imported model.

    Raises `InputError`, whose message begins with `where`, for unknown fields and values that make no sense.
    """
    values = about.get("config")
    if values is None:
        return None
    kind = FinetuneConfig if isinstance(values, dict) and "task" in values else PretrainConfig
    try:
        return from_dict(kind, values).validate()
    except InputError as error:
        raise InputError(f"{where}: {error}" if where else error) from None


# Settings that name code, text, or a folder to write in. In the config that comes with a model they are its author's,
# who may be a stranger, so whoever uses the model gives them again.
EXTERNAL = (
    *("corpus.files", "corpus.dataset", "corpus.data_dir", "tokenizer.path", "examples.word_segmenter"),
    *("task.data_dir", "run.compilation_cache"),
)
# A task's files are tables, which are only read, so they needn't be given again: but where a name is that of a host to
# be asked, or reading may never end, no table lies.
TABLES = ("task.folder", "task.train", "task.dev", "task.test")
NO_TABLES = re.compile("/+(net|proc|sys)(/|$)")


def without_external(config) -> tuple[Any, dict[str, Any]]:
    """The config with all `EXTERNAL` settings, and `TABLES` where no table lies, at their defaults, and the values that
    weren't, by their paths."""
    values, defaults, external = to_dict(config), to_dict(type(config)()), {}
    for path in (*EXTERNAL, *TABLES):
        section, name = path.split(".")
        value = values[section][name] if section in values else None
        if path in TABLES and not NO_TABLES.match(os.path.abspath(value or "")):
            continue
        if section in values and value != defaults[section][name]:
            external[path] = value
            values[section][name] = defaults[section][name]
    return from_dict(type(config), values), external


def flags(settings: dict[str, Any]) -> str:
    """Settings, given by their paths, as flags of the command line."""
    named = ((path.replace("_", "-"), value) for path, value in settings.items())
    return " ".join(
        f"--{path} {shlex.join(value if isinstance(value, list) else [str(value)])}" for path, value in named
    )


# The shape of a checkpoint's description: of one that a run made, or of an imported model.
ABOUT_RUN = {"config": {}, "examples": (int, str), "init": (str, NoneType), "embedding?": {}, "model?": {}, "head?": {}}
ABOUT_IMPORTED = {
    "model": {},
    "head": {},
    "about": {
        "embedding?": {},
        "init?": (str, NoneType),
        "metrics?": {str: (float, NoneType)},
        "source?": str,
        "step?": int,
    },
}


def check_about(about: Any, file: Path, remedy: str = contents.AGAIN) -> dict:
    """Returns a checkpoint's description; raises `InputError` where it doesn't have its shape. (Values of configs in it
    are checked when the configs are made.)"""
    of_run = isinstance(about, dict) and "config" in about
    contents.check_values(about, ABOUT_RUN if of_run else ABOUT_IMPORTED, file, remedy)
    return about


def _from_json(hint, value, where: str):
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return from_dict(hint, value, where)
    if typing.get_origin(hint) is tuple and isinstance(value, list):
        return tuple(_from_json(typing.get_args(hint)[0], item, f"{where}{i}.") for i, item in enumerate(value))
    return value


def differences(a: dict, b: dict, where: str = "") -> list[tuple[str, Any, Any]]:
    """The fields in which two configs (as `to_dict` gives them) differ: (path, value in a, value in b)."""
    changes = []
    for name in sorted({*a, *b}):
        x, y = a.get(name), b.get(name)
        if isinstance(x, list) and isinstance(y, list) and len(x) == len(y):
            x, y = dict(enumerate(x)), dict(enumerate(y))
        if isinstance(x, dict) and isinstance(y, dict):
            changes += differences(x, y, f"{where}{name}.")
        elif x != y:
            changes.append((f"{where}{name}", a.get(name), b.get(name)))
    return changes


def load_config(name: str, *kinds: type, **arguments) -> Any:
    """The config that a file defines, or one that ships with bert_jax.

    Args:
      name: a file (`my/config.py`) with a `get_config()`, or a shipped config's name (`pretrain_tiny`).
      *kinds: the classes that it may have, `FinetuneConfig` or `PretrainConfig` (none given: the latter).
      **arguments: arguments of its `get_config`, for example `task` where a config serves several.

    Returns:
      The config that `get_config` returns.

    Raises:
      InputError: there is no such file or name, or its `get_config()` fails or names an unknown field.

    Example:
      >>> bert_jax.load_config("pretrain_tiny").model.hidden_size
      128
      >>> bert_jax.load_config("finetune_glue", bert_jax.FinetuneConfig, task="mnli").task.name
      'mnli'
    """
    path = file_of(name)
    try:
        module = execute(path)
        for name in arguments.keys() - inspect.signature(module.get_config).parameters:
            raise InputError(f"its get_config() has no choice of {name}; leave out --{name}")
        config = module.get_config(**arguments)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:
        if isinstance(error, OSError) and error.filename == str(path):
            raise  # The config file itself can't be read.
        raise InputError(f"{path}{_line_in(path, error)}: {_explained(error)}") from error
    if not isinstance(config, kinds or (PretrainConfig,)):
        known = " or a ".join(kind.__name__ for kind in kinds or (PretrainConfig,))
        raise InputError(
            f"{path}: get_config() returned {type(config).__name__}, must return a {known} for this command"
        )
    return config


def file_of(name: str) -> Path:
    """The file of a config, by its path or its shipped name. Raises `InputError` where there is none."""
    path = Path(name)
    shipped = {p.stem: p for p in sorted(_configs_folder().glob("*.py")) if p.stem != "__init__"}
    if path.suffix != ".py":
        if name not in shipped:
            raise InputError(f"config {name!r} is neither a .py file nor one of {', '.join(shipped)}")
        path = shipped[name]
    if not path.is_file():
        raise InputError(f"{path}: no such config file; those that ship with bert_jax are {', '.join(shipped)}")
    return path


def execute(path: Path) -> ModuleType:
    """Executes a config file as a module: its additions to architectures, optimizers and other tables then exist.

    Python's own loader isn't used, since it leaves a __pycache__ in the person's folder.
    """
    module = ModuleType(f"bert_jax_config_{path.stem}")
    module.__file__ = str(path)
    exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    return module


def _configs_folder() -> Path:
    """The folder of the shipped configs: `configs/` is installed as the package `bert_jax.configs`."""
    return Path(importlib.import_module("bert_jax.configs").__path__[0])


def _line_in(path: Path, error: Exception) -> str:
    if isinstance(error, SyntaxError):
        return f", line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f", line {lines[-1]}" if lines else ""


def _explained(error: Exception) -> str:
    """An error in a config file in one line; for an unknown field, with the nearest right name."""
    unknown = re.search(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
    if unknown and isinstance(cls := getattr(configs, unknown[1], None), type):
        names = [f.name for f in dataclasses.fields(cls)]
        return f"{unknown[1]} has no field {unknown[2]!r}; {did_you_mean(unknown[2], names)}"
    return f"{type(error).__name__}: {error}".splitlines()[0]
