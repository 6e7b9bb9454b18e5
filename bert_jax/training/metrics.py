"""Metrics of a run: one JSON line for each logged step, and the same values for TensorBoard."""

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any

import jax

from bert_jax.config import InputError, first_line
from bert_jax.devices.chips import PEAK_FLOPS
from bert_jax.files import contents, storage
from bert_jax.files.printable import say

FLUSH_EVERY = 120  # seconds


def peak_flops() -> float | None:
    """The peak FLOPs per second of all devices together; None if their kind isn't known."""
    peak = PEAK_FLOPS.get(jax.devices()[0].device_kind)
    return peak and peak * jax.device_count()


class Metrics:
    """Writes `metrics.jsonl` and `tensorboard/` in the workdir, each step once; in a bucket, at each `upload`.

    Only process 0 writes. Lines after `step`, from which the run goes on, describe lost work and are dropped.
    """

    def __init__(self, workdir: Path, step: int):
        self._writes = jax.process_index() == 0
        if not self._writes:
            return
        self._mirror = storage.Mirror(workdir)
        self._file = self._mirror.folder / "metrics.jsonl"
        self._rewrite([row for row in read(workdir / self._file.name) if row["step"] <= step])
        self._board = _Board(self._mirror.folder / "tensorboard", step + 1)
        self.upload()

    def write(self, step: int, values: dict[str, float]) -> None:
        if not self._writes:
            return
        self._stream.write(_line({"step": step, **contents.finite(values)}))
        self._draw(step, values)

    def add(self, step: int, values: dict[str, float]) -> None:
        """Adds values to the row of the step, which is the last one."""
        if not self._writes or not values:
            return
        self._stream.close()
        rows = read(self._file)
        row = rows.pop() if rows and rows[-1]["step"] == step else {"step": step}
        self._rewrite([*rows, row | contents.finite(values)])
        self._draw(step, values)

    def _rewrite(self, rows: list[dict]) -> None:
        storage.write_whole(self._file, "".join(map(_line, rows)).encode())
        self._stream = open(self._file, "a", buffering=1)  # noqa: SIM115

    def _draw(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._board.add(name, value, step)

    def upload(self) -> None:
        if self._writes:
            self._board.flush()
            self._mirror.upload()

    def close(self) -> None:
        if self._writes:
            self._stream.close()
            self._board.close()
            self._mirror.upload()


class _Board:
    """An event file for TensorBoard, written in this thread: the thread of tensorboardX's own writer dies of a full
    disk with a traceback, and the run then waits for it forever."""

    def __init__(self, folder: Path, first_step: int):
        """TensorBoard won't show what other files in the folder have from `first_step` on."""
        with _without_torch():  # To read metrics none of them is needed.
            from tensorboardX.event_file_writer import EventsWriter
            from tensorboardX.proto.event_pb2 import Event, SessionLog
            from tensorboardX.summary import scalar

        storage.refuse_link(folder)
        folder.mkdir(exist_ok=True)
        self._event, self._scalar, self._flushed = Event, scalar, time.monotonic()
        self._file = EventsWriter(str(folder / "events"))
        self._write(step=first_step, session_log=SessionLog(status=SessionLog.START))

    def add(self, name: str, value: float, step: int) -> None:
        self._write(step=step, summary=self._scalar(name, value))

    def _write(self, **fields) -> None:
        self._file.write_event(self._event(wall_time=time.time(), **fields))
        if time.monotonic() - self._flushed > FLUSH_EVERY:
            self.flush()

    def flush(self) -> None:
        self._file.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        self._file.close()


@contextlib.contextmanager
def _without_torch() -> Iterator[None]:
    """Where torch is installed, tensorboardX imports it for an annotation, which takes two seconds and 200 MB."""
    if "torch" in sys.modules:
        yield
        return
    modules: dict[str, Any] = sys.modules
    modules["torch"] = None  # It isn't found, then.
    try:
        yield
    finally:
        del modules["torch"]


def _line(row: dict) -> str:
    return json.dumps(row) + "\n"


def read(file: Path, whole: bool = True) -> list[dict]:
    """The rows of a `metrics.jsonl`; an unfinished last line, of a killed process, is left out.

    A damaged line raises `InputError` naming it or, if the rows needn't be `whole`, is reported and left out.
    """
    contents.check_kind(file)
    lines = file.read_bytes().split(b"\n")[:-1] if file.exists() else []
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(_row(line, f"{file}, line {number}"))
        except InputError as error:
            if whole:
                raise
            say(f"{error}; it is left out", file=sys.stderr)
    return rows


def _row(line: bytes, where: str) -> dict:
    remedy = "take the line out, or remove the file for curves that begin anew"
    try:
        row = contents.json_value(line)
    except ValueError as error:
        raise InputError(f"{where}: damaged ({first_line(error)}); {remedy}") from None
    contents.check_values(row, {"step": int}, where, remedy)
    contents.check_values(row, {str: (float, NoneType)}, where, remedy)
    return row
