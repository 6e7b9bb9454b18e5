"""Checkpoints: asynchronous, atomic, and complete (state, config, tokenizer). The only file that knows Orbax."""

import contextlib
import json
import logging
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from bert_jax import storage
from bert_jax.config import InputError, RunConfig, first_line
from bert_jax.config_files import check_about, config_of, differences, to_dict
from bert_jax.training.sharding import path_name

# Settings that may change when a run is resumed. Those of corpus, tokenizer and files stand in the examples'
# fingerprint; the parts of a batch have dropout of their own.
MAY_CHANGE = ("mesh", "run", "corpus", "tokenizer", "model.scan_unroll", "model.remat", "evaluation_batch_size")
MAY_CHANGE += ("task.folder", "task.train", "task.dev", "task.test")
MAY_NOT_CHANGE = ("run.accumulate_steps",)
# Where Orbax looks for a checkpoint's metrics, of which there is one.
METRICS, SCORE = "metrics", "score"

logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax logs, with a traceback, what it raises too.


class _Manager(ocp.CheckpointManager):
    def reached_preemption(self, step: int) -> bool:
        """The loop asks that, after every batch; another's question, by the step, would mix up the count."""
        return False


class Checkpoints:
    """The checkpoints in a folder, each holding `state` (arrays), `about` and `tokenizer` (JSON).

    `about` is what says whether a run goes on with it: `config` (as a dict) and `examples` (their fingerprint).
    The last `keep_last` are kept and the `keep_best` with the highest score. Open for `writing`, it removes what
    a save that was killed left behind; `host_arrays` of numpy are then written as they lie there, in no memory of their
    own, and must not change before `close`.
    """

    def __init__(
        self, folder: str | Path, run: RunConfig = RunConfig(), writing: bool = False, host_arrays: bool = False
    ):
        self.folder = storage.absolute(storage.path(folder))
        self._run, self._scores = run, {}
        options = ocp.CheckpointManagerOptions(preservation_policy=self, create=False, cleanup_tmp_directories=writing)
        handlers = None
        if host_arrays:
            registry = ocp.type_handlers.create_type_handler_registry(
                (np.ndarray, ocp.type_handlers.NumpyHandler(deepcopy_host_arrays=False))
            )
            state = ocp.PyTreeCheckpointHandler(type_handler_registry=registry, use_compression=False)
            handlers = {"state": state, "about": ocp.JsonCheckpointHandler(), "tokenizer": ocp.JsonCheckpointHandler()}
        self._options = dict(options=options, item_handlers=handlers)
        self._manager = _Manager(self.folder, **self._options) if self.folder.is_dir() else None
        found = {step: self._manager.metrics(step) for step in self.steps}
        self._scores = {
            step: values[SCORE] for step, values in found.items() if values and math.isfinite(values[SCORE])
        }

    def save(self, step: int, state: Any, about: dict, tokenizer: dict) -> None:
        """Starts to write; returns once the arrays are copied."""
        if self._manager is None:
            storage.make_folder(self.folder)
            self._manager = _Manager(self.folder, **self._options)
        items = ocp.args.Composite(
            state=ocp.args.PyTreeSave(state), about=ocp.args.JsonSave(about), tokenizer=ocp.args.JsonSave(tokenizer)
        )
        with _room(self.folder):
            self._manager.save(step, args=items)

    def add_score(self, step: int, score: float | None) -> None:
        """Makes a checkpoint, where there is one of the step, a candidate for best; once it is on disk."""
        if score is None or not math.isfinite(score) or step not in self.steps:
            return
        self.wait()
        if jax.process_index() == 0:
            folder = self.folder / str(step) / METRICS
            with _room(self.folder):
                storage.make_folder(folder)
                storage.write_whole(folder / METRICS, json.dumps({SCORE: score}).encode())
        self._scores[step] = score
        for other in set(self.steps) - self._kept(self.steps):
            self._manager.delete(other)

    def _kept(self, steps: Sequence[int]) -> set[int]:
        ranked = self._ranked(steps)
        return {*sorted(steps)[-self._run.keep_last :], *ranked[max(len(ranked) - self._run.keep_best, 0) :]}

    def _ranked(self, steps: Sequence[int]) -> list[int]:
        """Those with a score, the best last; of two alike the earlier."""
        return sorted((step for step in steps if step in self._scores), key=lambda step: (self._scores[step], -step))

    def should_preserve(self, checkpoints: Sequence, *, context: Any) -> list[bool]:
        """Orbax asks it after each save."""
        kept = self._kept([checkpoint.step for checkpoint in checkpoints])
        return [checkpoint.step in kept for checkpoint in checkpoints]

    def wait(self) -> None:
        """Until what was saved is on disk."""
        if self._manager:
            with _room(self.folder):
                self._manager.wait_until_finished()

    def close(self) -> None:
        if self._manager:
            with _room(self.folder):
                self._manager.close()

    @property
    def steps(self) -> list[int]:
        return sorted(self._manager.all_steps()) if self._manager else []

    @property
    def latest(self) -> int | None:
        return self.steps[-1] if self.steps else None

    def score(self, step: int) -> float | None:
        """None where the checkpoint has none, or there is none of the step."""
        return self._scores.get(step)

    @property
    def best(self) -> int | None:
        """The step with the highest score among those kept; None where none has one."""
        ranked = self._ranked(self.steps)
        return ranked[-1] if ranked else None

    def about(self, step: int) -> dict:
        return check_about(self._json(step, "about"), self.folder / str(step) / "about")

    def tokenizer(self, step: int) -> dict:
        return self._json(step, "tokenizer")

    def _json(self, step: int, item: str) -> dict:
        with _named(self.folder / str(step) / item):
            return self._manager.restore(step, args=ocp.args.Composite(**{item: ocp.args.JsonRestore()}))[item]

    def restore(self, step: int, like: Any) -> Any:
        """The part of the state that `like` has, a tree of `jax.ShapeDtypeStruct` with shardings, on any mesh.

        Raises `InputError` naming the first array that is missing or of another shape or type: Orbax casts silently.
        """
        folder = self.folder / str(step) / "state"
        with _named(folder), ocp.PyTreeCheckpointer() as checkpointer:
            saved = checkpointer.metadata(folder).item_metadata
            if saved is None:
                raise ValueError("its list of arrays is missing")
            there = _arrays(saved.tree)
            for name, here in _arrays(like).items():
                if there.get(name) != here:
                    has = there.get(name, "no such array")
                    raise InputError(f"{folder}: {name} is {has}, expected {here}; it is of another model")
            arguments = jax.tree.map(lambda x: ocp.ArrayRestoreArgs(sharding=x.sharding, global_shape=x.shape), like)
            restore = ocp.args.PyTreeRestore(item=like, restore_args=arguments, partial_restore=True)
            return checkpointer.restore(folder, args=restore)


@contextlib.contextmanager
def _named(path: Path):
    """Says which part of which checkpoint couldn't be read, whatever Orbax and TensorStore raise."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if storage.problem(error):
            raise
        raise InputError(
            f"{path}: damaged ({first_line(error)[:200]}); remove {path.parent} to go on from the checkpoint before it"
        ) from error


@contextlib.contextmanager
def _room(folder: Path):
    """Says in one line that the disk is full, which is an OSError of Orbax's or whatever TensorStore makes of it."""
    try:
        yield
    except Exception as error:
        if full := re.search("No space left on device|Disk quota exceeded", str(error)):
            remedy = "make room (or keep less: run.keep_last), and the same command goes on from the last checkpoint"
            raise InputError(f"{folder}: {full[0]}; {remedy}") from error
        raise


def _arrays(tree) -> dict[str, str]:
    """Each array's path, with its type and shape."""
    return {path_name(p): f"{x.dtype}{list(x.shape)}" for p, x in jax.tree_util.tree_flatten_with_path(tree)[0]}


def check_same_run(saved: dict, current: dict, workdir: Path) -> None:
    """Raises `InputError` naming the first setting that differs from the checkpoint's and may not."""
    if "config" not in saved:
        raise InputError(f"{workdir}: holds a model that was imported, no run; choose another --workdir")
    # By way of the config, so that settings which a later version added have their defaults.
    for name, there, here in differences(to_dict(config_of(saved, workdir)), current["config"]):
        if not {name, name.split(".")[0]} & set(MAY_CHANGE) or name in MAY_NOT_CHANGE:
            rest = "give it back, or choose another --workdir"
            raise InputError(f"{workdir}: {name} was {there!r} in the run to resume, is {here!r} now; {rest}")
    if saved["examples"] != current["examples"]:
        raise InputError(f"{workdir}: the examples aren't those of the run to resume; choose another --workdir")
