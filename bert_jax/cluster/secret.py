"""The secret by which the processes of a run know each other.

Process 0 writes a fresh one into the workdir, which all processes share and nobody else can read; or the environment
has one.
"""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from bert_jax.config import InputError
from bert_jax.files import storage

# The secret's name in the environment, and its file in the workdir otherwise, of which so many bytes are read.
SECRET, FILE, LONGEST = "BERT_JAX_SECRET", ".rendezvous", 1 << 14


@contextlib.contextmanager
def written(workdir: Path) -> Iterator[bytes]:
    """The run's secret: that of the environment, or a fresh one, in a file of its owner's while the block lasts."""
    if ours := given():
        yield ours
        return
    if workdir.exists() and not workdir.is_dir():
        raise InputError(f"{workdir}: is a file; a --workdir is a folder")
    file, secret = workdir / FILE, secrets.token_hex(32).encode()
    made = [] if storage.is_remote(workdir) else [f for f in (workdir, *workdir.parents) if not f.exists()]
    storage.make_folder(workdir)
    try:
        storage.remove(file)  # A run's that was killed.
        if storage.is_remote(file):
            file.write_bytes(secret)
        else:
            with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
                stream.write(secret)
        yield secret
    finally:
        if known(workdir) == secret:
            storage.remove(file)
        for folder in made:  # Bad input leaves nothing behind.
            with contextlib.suppress(OSError):
                folder.rmdir()


def known(workdir: Path) -> bytes | None:
    """The run's secret; None where it isn't there yet, or the workdir is another than process 0's."""
    if ours := given():
        return ours
    try:
        with (workdir / FILE).open("rb") as stream:
            return stream.read(LONGEST)
    except (FileNotFoundError, NotADirectoryError):
        return None


def given() -> bytes | None:
    """The secret that the environment has; raises `InputError` for one that is too short."""
    value = os.environ.get(SECRET)
    if value is not None and len(value) < 32:
        raise InputError(f"{SECRET}: has {len(value)} characters, must have 32 or more, as of openssl rand -hex 32")
    return os.fsencode(value) if value else None
