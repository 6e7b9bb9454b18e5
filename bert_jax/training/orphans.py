"""What Orbax, Python and asyncio print of errors that are raised anyhow: nothing, when this is imported.

Where an array can't be read or written, Orbax raises that, and drops its tasks for the others, which may fail alike.
"""

import logging
import sys
from collections.abc import Callable
from typing import Any

from bert_jax.files import storage


def _is_orphan(error: BaseException | None) -> bool:
    """Whether it may be of such a task: it says what an array's error says."""
    said = str(error)
    of_an_array = said.startswith(("Event loop is closed", "Encountered error while reading array"))
    full = isinstance(error, OSError) and error.errno in storage.FULL  # Of a file that Orbax doesn't name.
    return of_an_array or full or "OCDBT database" in said or ".orbax-checkpoint-tmp" in said


def _unraisable(unraisable: Any, others: Callable = sys.unraisablehook) -> None:
    if not _is_orphan(unraisable.exc_value):
        others(unraisable)


sys.unraisablehook = _unraisable
logging.getLogger("asyncio").addFilter(lambda record: not (record.exc_info and _is_orphan(record.exc_info[1])))
logging.getLogger("absl").setLevel(logging.CRITICAL)
