"""Checkpoints: asynchronous, atomic, complete (state, config, tokenizer), checked. The only file that knows Orbax."""

import contextlib
import errno
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from bert_jax.config import InputError, RunConfig, first_line, versions
from bert_jax.config.files import check_about, config_of, differences, to_dict
from bert_jax.devices.finite import REMEDY, check_finite
from bert_jax.devices.sharding import path_name
from bert_jax.files import contents, storage
from bert_jax.training import orphans  # noqa: F401
from bert_jax.training.barrier import barrier
from bert_jax.training.checksums import checksums
from bert_jax.training.scores import Scores

# Settings that may change when a run is resumed. The examples' fingerprint covers corpus, tokenizer and files.
# `accumulate_steps` may not change, since each part of a batch has dropout of its own.
MAY_CHANGE = (
    *("mesh", "run", "corpus", "tokenizer", "evaluation_batch_size"),
    *("model.scan_unroll", "model.remat", "model.attention"),
    *("task.folder", "task.train", "task.dev", "task.test"),
)
MAY_NOT_CHANGE = ("run.accumulate_steps",)
# What the parts of a checkpoint held when they were saved: checksums of `about` and `tokenizer`, and for each array of
# the state its type and shape, and its checksum.
CHECKSUMS = "checksums"
JSON_FILE = "metadata"  # Orbax's name for the file of a part that is JSON.
# How many times their files' bytes the arrays of a checkpoint may take, if they take more than any machine
# has room for. A fresh one takes 3 times the bytes, as zeros (the moments of AdamW) need none on disk; 6 times with
# weights that were bfloat16, 22 where 9 of 10 weights are zero. What is zero altogether takes thousands of times.
UNPACKED, SMALL = 100, 1 << 28

# System errors because of which a file can't be written, with the remedies: to try again doesn't help.
ROOM = "make room (or keep less: run.keep_last)"
REMEDIES = {n: contents.REMEDIES[n] for n in (errno.EFBIG, errno.EACCES, errno.EROFS, errno.EIO)}
REMEDIES |= {errno.ENOSPC: ROOM, errno.EDQUOT: ROOM}


class _Manager(ocp.CheckpointManager):
    def reached_preemption(self, step: int) -> bool:
        """Never asks JAX: the loop does, after every batch, and a second caller would mix up its count of calls."""
        return False

    def metrics(self, step: int) -> None:
        """Reads nothing: `Scores` does. Here, one damaged score would bar all checkpoints."""


class Checkpoints:
    """The checkpoints in a folder, each holding `state` (arrays), `about`, `tokenizer` and `checksums` (JSON).

    `about` decides whether a run may resume from it: `config` (as a dict) and `examples` (their fingerprint). The last
    `keep_last` checkpoints are kept, and the `keep_best` with the highest scores. Opened for `writing`, it removes what
    a killed save left behind. With `host_arrays`, NumPy arrays are written without a copy in memory, and must not
    change before `close`.

    What is read is what was saved: anything else raises an `InputError` that names it, and the last checkpoint that is
    whole. A damaged checkpoint doesn't affect the others.
    """

    def __init__(
        self, folder: str | Path, run: RunConfig = RunConfig(), writing: bool = False, host_arrays: bool = False
    ):
        self.folder = storage.literal(storage.path(folder))
        self._run = run
        # Otherwise, if a folder can't be made, other threads that wait for it keep the process alive for minutes.
        async_options = ocp.AsyncOptions(create_directories_asynchronously=False, barrier_sync_fn=barrier)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self, create=False, cleanup_tmp_directories=writing, async_options=async_options
        )
        handlers = None
        if host_arrays:
            registry = ocp.type_handlers.create_type_handler_registry(
                (np.ndarray, ocp.type_handlers.NumpyHandler(deepcopy_host_arrays=False))
            )
            state = ocp.PyTreeCheckpointHandler(type_handler_registry=registry, use_compression=False)
            parts = ("about", "tokenizer", CHECKSUMS)
            handlers = {"state": state, **{part: ocp.JsonCheckpointHandler() for part in parts}}
        self._options = dict(options=options, item_handlers=handlers)
        exists = self.folder.is_dir()
        if exists and writing and not storage.is_remote(self.folder) and not os.access(self.folder, os.W_OK):
            raise InputError(f"{self.folder}: {os.strerror(errno.EACCES)}; {REMEDIES[errno.EACCES]}")
        self._manager = self._open() if exists else None
        self._scores = Scores(self.folder)
        for step in self.steps:
            self._scores.read(step, step == self.latest)
        if writing:
            self._scores.check()

    def _open(self) -> _Manager:
        if not storage.is_remote(self.folder):
            contents.check_kinds(Path(self.folder))
        try:
            return _Manager(self.folder, **self._options)
        except Exception as error:  # Orbax reads when each step was saved, and doesn't need it.
            if isinstance(error, OSError) or not _is_damage(error):
                raise
            files = self.folder / "*" / "_CHECKPOINT_METADATA"
            what = f"one is damaged ({first_line(error)[:200]})"
            raise InputError(f"{files}: {what}; remove these files, which the checkpoints don't need") from error

    def save(self, step: int, state: Any, about: dict, tokenizer: dict) -> None:
        """Starts to write a checkpoint; returns once the arrays are copied."""
        if self._manager is None:
            storage.make_folder(self.folder)
            self._manager = _Manager(self.folder, **self._options)
        about, specs = {**about, "format": versions.CHECKPOINT}, _specs(state)
        checked = {
            "state": {name: [specs[name], checksum] for name, checksum in checksums(state).items()},
            "about": contents.json_checksum(about),
            "tokenizer": contents.json_checksum(tokenizer),
        }
        items = ocp.args.Composite(
            state=ocp.args.PyTreeSave(state),
            about=ocp.args.JsonSave(about),
            tokenizer=ocp.args.JsonSave(tokenizer),
            **{CHECKSUMS: ocp.args.JsonSave(checked)},
        )
        with self.room():
            self._manager.save(step, args=items)

    def add_score(self, step: int, score: float | None) -> None:
        """Writes the score of this step's checkpoint, if there is one, once the checkpoint is on disk."""
        if self._manager is None or score is None or not math.isfinite(score) or step not in self.steps:
            return
        self.wait()
        if jax.process_index() == 0:
            with self.room():
                self._scores.write(step, score)
        self._scores.add(step, score)
        for other in set(self.steps) - self._kept(self.steps):
            self._manager.delete(other)

    def _kept(self, steps: Sequence[int]) -> set[int]:
        """The steps whose checkpoints are kept. But for the last one, checkpoints saved because of a signal go first: a
        run keeps the same ones however often it is stopped."""
        ranked, every = self._scores.ranked(steps), self._run.checkpoint_every
        in_order = sorted(steps, key=lambda step: (step == max(steps), step % every == 0, step))
        return {*in_order[-self._run.keep_last :], *ranked[max(len(ranked) - self._run.keep_best, 0) :]}

    def should_preserve(self, checkpoints: Sequence, *, context: Any) -> list[bool]:
        """Which checkpoints to keep; Orbax calls it after each save."""
        kept = self._kept([checkpoint.step for checkpoint in checkpoints])
        return [checkpoint.step in kept for checkpoint in checkpoints]

    def wait(self) -> None:
        """Waits until everything saved is on disk."""
        if self._manager:
            with self.room():
                self._manager.wait_until_finished()

    def close(self) -> None:
        if self._manager:
            with self.room():
                self._manager.close()

    @property
    def steps(self) -> list[int]:
        return sorted(self._manager.all_steps()) if self._manager else []

    @property
    def latest(self) -> int | None:
        return self.steps[-1] if self.steps else None

    def score(self, step: int) -> float | None:
        """The score of the checkpoint of this step; None if it has no score, or there is no such checkpoint."""
        return self._scores.of(step)

    @property
    def best(self) -> int | None:
        """The step of the checkpoint with the highest score; None if no checkpoint has one."""
        self._scores.check()
        ranked = self._scores.ranked(self.steps)
        return ranked[-1] if ranked else None

    def about(self, step: int) -> dict:
        with self._damage(step, "about"):
            return check_about(self._part(step, "about"), self.folder / str(step) / "about")

    def tokenizer(self, step: int) -> dict:
        with self._damage(step, "tokenizer"):
            return self._part(step, "tokenizer")

    def restore(self, step: int, like: Any) -> Any:
        """The arrays of the state that `like` names, a tree of `jax.ShapeDtypeStruct` with shardings on any mesh.

        Raises `InputError` naming the first array that is missing, has another shape or type (Orbax casts silently) or
        isn't what was saved, or the first of the parameters that has a NaN or an infinite number.
        """
        folder = self._state(step)
        with self._damage(step, "state"), ocp.PyTreeCheckpointer() as checkpointer:
            checked = self._checked(step)
            saved = _saved(checkpointer, folder, checked)
            for name, expected in _specs(like).items():
                if (spec := saved.get(name, "no such array")) != expected:
                    raise InputError(f"{folder}: {name} is {spec}, expected {expected}; it is of another model")
            arguments = jax.tree.map(lambda x: ocp.ArrayRestoreArgs(sharding=x.sharding, global_shape=x.shape), like)
            restore = ocp.args.PyTreeRestore(item=like, restore_args=arguments, partial_restore=True)
            restored = checkpointer.restore(folder, args=restore)
            _compare(restored, checked)
        check_finite({"params": restored["params"]}, self.folder / str(step), self._earlier(step))
        return restored

    def _earlier(self, step: int) -> str:
        """The remedy where the parameters are no numbers any more."""
        steps = [other for other in self.steps if other < step]
        if not steps:
            return REMEDY
        remedy = f"after {storage.removal(self.folder / str(step))} the same command takes"
        return f"{remedy} the checkpoint before it, {self.folder / str(steps[-1])}"

    def _state(self, step: int) -> Path:
        return self.folder / str(step) / "state"

    def _part(self, step: int, part: str) -> dict:
        values, checked = self._json(step, part), self._checked(step)
        if checked and contents.json_checksum(values) != checked[part]:
            raise ValueError("isn't what was saved")
        return values

    def _json(self, step: int, part: str) -> dict:
        # Not through Orbax, for which all processes must call it together.
        return contents.json_object(self.folder / str(step) / part / JSON_FILE)

    def _checked(self, step: int) -> dict | None:
        """What the parts held when they were saved; None for a checkpoint from before there were checksums.

        Raises `InputError` if a later version wrote the checkpoint.
        """
        about = self._json(step, "about")
        # A checkpoint with checksums isn't that old, even if its format is missing.
        if "format" not in about and not (self.folder / str(step) / CHECKSUMS).exists():
            return None
        checked = self._json(step, CHECKSUMS)
        if checked["about"] != contents.json_checksum(about):
            raise ValueError("about isn't what was saved")
        versions.check_format(about["format"], versions.CHECKPOINT, self.folder / str(step))
        return checked

    @contextlib.contextmanager
    def _damage(self, step: int, part: str) -> Iterator[None]:
        """Turns whatever Orbax and TensorStore raise for a damaged checkpoint into an `InputError` that names the part,
        and the last checkpoint that is whole."""
        try:
            yield
        except contents.NotTheFile as error:
            raise self._damaged(step, str(error)) from error
        except InputError:
            raise
        except MemoryError as error:
            path = self.folder / str(step) / part
            raise InputError(f"{path}: doesn't fit into this machine's memory; use one with more") from error
        except Exception as error:
            if not _is_damage(error):
                raise
            path = self.folder / str(step) / part
            raise self._damaged(step, f"{path}: damaged ({first_line(_root(error))[:200]})") from error

    def _damaged(self, step: int, what: str) -> InputError:
        good = next((other for other in reversed(self.steps) if other != step and self._is_whole(other)), None)
        if good is None:
            return InputError(f"{what}; no other checkpoint here is whole: copy it again, or make it anew")
        path, removal = self.folder / str(good), storage.removal(self.folder / str(step))
        return InputError(f"{what}; the last good checkpoint is {path}: after {removal} the same command takes it")

    def _is_whole(self, step: int) -> bool:
        """Whether all of a checkpoint can be read and is what was saved. This process reads it alone: the others may
        have seen no damage, and don't call this."""
        alone = ocp.options.MultiprocessingOptions(
            primary_host=jax.process_index(), active_processes={jax.process_index()}, barrier_sync_key_prefix="alone"
        )
        handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
        try:
            with ocp.Checkpointer(handler, multiprocessing_options=alone) as checkpointer:
                checked, folder = self._checked(step), self._state(step)
                self._part(step, "tokenizer")
                _saved(checkpointer, folder, checked)
                tree = checkpointer.metadata(folder).item_metadata.tree
                arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
                _compare(checkpointer.restore(folder, args=ocp.args.PyTreeRestore(restore_args=arguments)), checked)
        except Exception as error:
            if not _is_damage(error):
                raise
            return False
        return True

    @contextlib.contextmanager
    def room(self, writing: Path | None = None) -> Iterator[None]:
        """Turns errors of writing (a full disk, a limit) into a line that says why, and where the run will resume.

        They are OSErrors of this package or Orbax, or whatever TensorStore makes of them. `writing` is the path that is
        named if the error names none (None: only checkpoints are written, so it is their folder).
        """
        try:
            yield
        except InputError:
            raise
        except Exception as error:
            for number, remedy in REMEDIES.items():
                is_number = isinstance(error, OSError) and error.errno == number
                if is_number or (writing is None and os.strerror(number) in str(error)):
                    file = (getattr(error, "filename", None) if is_number else None) or writing or self.folder
                    where = f"{file}: {os.strerror(number)}; {remedy}, and the same command goes on"
                    raise InputError(f"{where} from {self._last_on_disk()}") from error
            raise

    def _last_on_disk(self) -> str:
        # Unlike the manager, this asks no other process, and ignores saves that weren't finished.
        steps = ocp.utils.checkpoint_steps(self.folder) if self.folder.is_dir() else []
        return f"the last checkpoint, of step {max(steps)}" if steps else "the beginning: no checkpoint was saved yet"


def _is_damage(error: Exception) -> bool:
    """Whether the cause is the checkpoint, rather than memory, permissions or a bucket."""
    other_cause = isinstance(error, MemoryError | PermissionError) or storage.problem(error)
    return not (other_cause or "RESOURCE_EXHAUSTED" in str(error))


def _root(error: BaseException) -> BaseException:
    """TensorStore's error, which Orbax has wrapped in errors of its own."""
    return _root(error.__cause__) if error.__cause__ else error


def _saved(checkpointer: ocp.Checkpointer, folder: Path, checked: dict | None) -> dict[str, str]:
    """The type and shape of each array in the folder. Raises ValueError if they aren't those that were saved, or would
    take far more memory than the folder's files."""
    metadata = checkpointer.metadata(folder).item_metadata
    if metadata is None:
        raise ValueError("its list of arrays is missing")
    _check_sizes(metadata.tree, folder)
    specs = _specs(metadata.tree)
    for name, (spec, _) in checked["state"].items() if checked else ():
        if specs.get(name) != spec:
            raise ValueError(f"{name} is {specs.get(name, 'missing')}, was saved as {spec}")
    return specs


def _check_sizes(tree: Any, folder: Path) -> None:
    """Raises ValueError for arrays that claim more memory than `UNPACKED` times what lies in the folder."""
    claimed = 0
    for array in jax.tree.leaves(tree):
        chunk = (array.storage and array.storage.chunk_shape) or ()  # It is read whole, and may be larger.
        claimed += max(math.prod(array.shape), math.prod(chunk)) * np.dtype(array.dtype).itemsize
    if claimed > SMALL and claimed > UNPACKED * (size := storage.size(folder)):
        raise ValueError(f"its arrays would take {claimed:,} bytes, its files have {size:,}")


def _compare(arrays: Any, checked: dict | None) -> None:
    """Raises ValueError for the first array that isn't what was saved."""
    if not checked:
        return
    for name, checksum in checksums(arrays).items():
        if checksum != checked["state"][name][1]:
            raise ValueError(f"{name} isn't what was saved")


def _specs(tree) -> dict[str, str]:
    """Each array's path, with its type and shape."""
    return {path_name(p): f"{x.dtype}{list(x.shape)}" for p, x in jax.tree_util.tree_flatten_with_path(tree)[0]}


def check_same_run(saved: dict, current: dict, workdir: Path) -> None:
    """Raises `InputError` naming the first setting that differs from the checkpoint's and may not."""
    if "config" not in saved:
        raise InputError(f"{workdir}: holds a model that was imported, no run; choose another --workdir")
    # Through the config, so that settings which a later version added have their defaults.
    for name, before, now in differences(to_dict(config_of(saved, workdir)), current["config"]):
        if not {name, name.split(".")[0]} & set(MAY_CHANGE) or name in MAY_NOT_CHANGE:
            rest = "give it back, or choose another --workdir"
            raise InputError(f"{workdir}: {name} was {before!r} in the run to resume, is {now!r} now; {rest}")
    if saved["examples"] != current["examples"]:
        raise InputError(f"{workdir}: the examples aren't those of the run to resume; choose another --workdir")
