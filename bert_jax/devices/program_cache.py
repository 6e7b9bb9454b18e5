"""Keeps compiled programs in a folder, so that the next process needn't compile them again."""

import contextlib
import functools
import hashlib
import itertools
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

import filelock
import jax
import jaxlib
from jax.experimental.compilation_cache import compilation_cache

from bert_jax.files import storage
from bert_jax.files.errors import InputError, first_line
from bert_jax.files.printable import say

# Bytes of all programs in the user's folder. A training step of 6 layers, 384 wide, on a CPU has half a megabyte.
MOST_BYTES = 1 << 30
# A program that is compiled in less isn't kept: where a thousand are, JAX takes as long (0.08 s) to keep one more.
LEAST_SECONDS = 0.1
# What JAX appends to the name of a program, and to that of a file which it writes after the program and after each use.
PROGRAM, USE = "-cache", "-atime"
# What Linux tells of a processor, beside its speed and its number.
PROCESSOR = ("vendor_id", "cpu family", "model", "flags", "CPU implementer", "CPU part", "Features")
LOCK_SECONDS = 10.0


def keep_programs(folder: str | None = None) -> None:
    """Has JAX keep compiled programs in a folder: "" is none; None is the one that JAX was given, else the user's own.

    One of several processes has none by itself: JAX lets process 0 alone write, so where homes aren't shared the others
    would compile what it finds, and for GPUs they compile together, so they would wait for it.
    """
    options: Any = jax.config  # Which mypy knows no option of.
    given, bounded = options.jax_compilation_cache_dir, options.jax_compilation_cache_max_size != -1
    if folder is not None:
        options.update("jax_enable_compilation_cache", bool(folder))
    elif given is not None or not options.jax_enable_compilation_cache or jax.process_count() > 1:
        return
    elif (folder := _users_folder()) and not bounded:
        options.update("jax_compilation_cache_max_size", MOST_BYTES)
    if (folder or None) == given:
        return
    options.update("jax_compilation_cache_dir", folder or None)
    if options.jax_persistent_cache_min_compile_time_secs == 1.0:  # JAX's default.
        options.update("jax_persistent_cache_min_compile_time_secs", LEAST_SECONDS)
    compilation_cache.reset_cache()  # JAX has opened another, or none, if it has compiled before.


@functools.cache
def _users_folder() -> str | None:
    """The user's folder of programs for this machine, made fit for use; None, with a line on why, where it can't be."""
    try:
        programs = storage.cache_folder() / "programs"
        folder = programs / _machine()
        programs.parent.mkdir(parents=True, exist_ok=True)
        for each in (programs, folder):
            each.mkdir(mode=0o700, exist_ok=True)
            # A program is code that is run.
            if not storage.is_own_folder(each) or each.stat().st_mode & 0o022:
                raise InputError(f"{each}: is a link, another user's, or others may write in it")
        with filelock.FileLock(folder / ".lockfile", timeout=LOCK_SECONDS):  # JAX's own lock, so it is tried out too.
            _remove_old(folder)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(1 << 20))
    except (OSError, RuntimeError, InputError) as error:
        why = first_line(error)
        if isinstance(error, OSError) and error.filename:
            why = f"{error.filename}: {error.strerror}"
        elsewhere = "JAX_COMPILATION_CACHE_DIR names another folder, or, empty, none"
        say(f"compiled programs aren't kept for the next command ({why}); {elsewhere}", file=sys.stderr)
        return None
    return str(folder)


def _machine() -> str:
    """A name for what programs are compiled for. Programs for a CPU are of its own instructions, and homes are shared
    by machines with other processors."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parts = [platform.system(), platform.machine(), jax.__version__, str(cores), *_processor()]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return f"{jax.default_backend()}-{jaxlib.__version__}-{digest[:16]}"


def _processor() -> list[str]:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            first = list(itertools.takewhile(str.strip, lines))
    except OSError:  # Not Linux.
        return [platform.processor()]
    return [line.strip() for line in first if line.partition(":")[0].strip() in PROCESSOR]


def _remove_old(folder: Path) -> None:
    """Removes the programs that were used least recently, in this folder and those of other machines beside it, until
    the others have `MOST_BYTES`. The folder is locked.

    What a killed process left, a program without the file that JAX writes after it, JAX could neither read nor replace.
    """
    entries = []
    for file in folder.parent.glob(f"*/*{PROGRAM}"):
        with contextlib.suppress(FileNotFoundError):  # Other machines remove theirs too.
            about = file.stat()
            use = file.with_name(file.name.removesuffix(PROGRAM) + USE)
            if use.exists():
                entries.append((use.stat().st_mtime, about.st_size, file, use))
            elif file.parent == folder:
                file.unlink()
    total = 0
    for _, size, file, use in sorted(entries, reverse=True):
        total += size
        if total > MOST_BYTES:
            file.unlink(missing_ok=True)
            use.unlink(missing_ok=True)
