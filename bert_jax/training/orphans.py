"""When imported, keeps Orbax, Python and asyncio from printing errors that are raised anyway.

If an array can't be read or written, Orbax raises that error and drops its tasks for the other arrays, which may fail
too: Python would print those errors.
"""

import logging
import sys
from collections.abc import Callable
from typing import Any

from bert_jax.files import storage


def _is_orphan(error: BaseException | None) -> bool:
    """Whether the error may be from such a task, by its message."""
    message = str(error)
    of_array = message.startswith(("Event loop is closed", "Encountered error while reading array"))
    full = isinstance(error, OSError) and error.errno in storage.FULL  # Of a file that Orbax doesn't name.
    return of_array or full or "OCDBT database" in message or ".orbax-checkpoint-tmp" in message


def _unraisable(unraisable: Any, print_error: Callable = sys.unraisablehook) -> None:
    if not _is_orphan(unraisable.exc_value):
        print_error(unraisable)


sys.unraisablehook = _unraisable
logging.getLogger("asyncio").addFilter(lambda record: not (record.exc_info and _is_orphan(record.exc_info[1])))
logging.getLogger("absl").setLevel(logging.CRITICAL)
