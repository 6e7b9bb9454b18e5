"""Runs as tests start them, and what they leave."""

import dataclasses
import sys
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from bert_jax.config import PretrainConfig
from bert_jax.devices.sharding import path_name
from bert_jax.training import metrics


def rows(workdir) -> list[dict]:
    return metrics.read(workdir / "metrics.jsonl")


def saved_state(workdir, step: int) -> dict[str, np.ndarray]:
    """Every array of a checkpoint, by its path, on whatever devices it was made."""
    folder = workdir / "checkpoints" / str(step) / "state"
    checkpointer = ocp.PyTreeCheckpointer()
    tree = checkpointer.metadata(folder).item_metadata.tree
    restore_args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
    return by_path(checkpointer.restore(folder, restore_args=restore_args))


def by_path(tree) -> dict[str, np.ndarray]:
    return {path_name(path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(tree)}


def assert_same_state(a: dict, b: dict) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert np.array_equal(a[name], b[name]), name


def with_run(config: PretrainConfig, **changes) -> PretrainConfig:
    return dataclasses.replace(config, run=dataclasses.replace(config.run, **changes))


def write_config(file: Path, config: PretrainConfig) -> Path:
    """The config as a file that a command can name."""
    file.write_text(f"from bert_jax.config import *\n\n\ndef get_config():\n    return {config!r}\n")
    return file


def command(config_file, examples, workdir, *flags) -> list[str]:
    command = [sys.executable, "-m", "bert_jax", "pretrain", "--config", str(config_file)]
    return [*command, "--workdir", str(workdir), "--examples", str(examples.folder), *flags]
