"""The secret by which the processes of a run recognise each other.

It comes from the environment or, if that has none, process 0 writes a fresh one into the workdir, which all processes
share, in a file that nobody else can read.
"""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from bert_jax.config import InputError
from bert_jax.files import contents, storage

# The secret's name in the environment, its file in the workdir, and the most bytes that are read of the file.
SECRET, FILE, LONGEST = "BERT_JAX_SECRET", ".rendezvous", 1 << 14


@contextlib.contextmanager
def written(workdir: Path) -> Iterator[bytes]:
    """The run's secret: from the environment, or a fresh one, in a file only for its owner while the block lasts."""
    if from_environment := given():
        yield from_environment
        return
    if workdir.exists() and not workdir.is_dir():
        raise InputError(f"{workdir}: is a file; a --workdir is a folder")
    file, secret = workdir / FILE, secrets.token_hex(32).encode()
    new_folders = [] if storage.is_remote(workdir) else [f for f in (workdir, *workdir.parents) if not f.exists()]
    storage.make_folder(workdir)
    try:
        storage.remove(file)  # Left behind by a run that was killed.
        if storage.is_remote(file):
            file.write_bytes(secret)
        else:
            with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
                stream.write(secret)
        yield secret
    finally:
        if known(workdir) == secret:
            storage.remove(file)
        for folder in new_folders:  # Bad input leaves nothing behind.
            with contextlib.suppress(OSError):
                folder.rmdir()


def known(workdir: Path) -> bytes | None:
    """The run's secret; None if it isn't written yet, or the workdir isn't that of process 0."""
    if from_environment := given():
        return from_environment
    contents.check_kind(workdir / FILE)
    try:
        with (workdir / FILE).open("rb") as stream:
            return stream.read(LONGEST)
    except (FileNotFoundError, NotADirectoryError):
        return None


def given() -> bytes | None:
    """The secret in the environment, or None; raises `InputError` if it is too short."""
    value = os.environ.get(SECRET)
    if value is not None and len(value) < 32:
        raise InputError(f"{SECRET}: has {len(value)} characters, must have 32 or more; openssl rand -hex 32 makes one")
    return os.fsencode(value) if value else None
