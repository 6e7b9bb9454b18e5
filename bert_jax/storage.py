"""Folders that may lie in a bucket: `gs://` paths through etils' epath and gcsfs, all others through pathlib.

Objects of a bucket are written whole, and can be neither renamed nor appended to.
"""

import contextlib
import importlib.util
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import BinaryIO
from urllib.parse import unquote

from bert_jax.config import InputError

REMOTE = "gs://"
COPIED_AT_ONCE = 1 << 24  # bytes

if importlib.util.find_spec("gcsfs"):
    # Else epath goes to buckets through TensorFlow, whose import takes seconds in each worker. Here, not in `path`: a
    # worker is given paths that were made elsewhere.
    os.environ.setdefault("EPATH_USE_TF", "false")
    # Else gcsfs asks for the kind of each bucket, which takes a permission of its own, and again where it has none.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # What it raises is reported, without its tracebacks.


def path(name: str | PurePath) -> Path:
    """A local folder or file as `pathlib.Path`, or one of a bucket as `epath.Path`, which has the same methods.

    Raises `InputError` for any other address, or where the packages for buckets are missing.
    """
    name = os.fspath(name)
    if not name.startswith(REMOTE):
        if re.match(r"\w+:/", name):
            raise InputError(f"{name}: neither a local path nor one that begins with {REMOTE}")
        return Path(name)
    if not name.removeprefix(REMOTE).strip("/"):
        raise InputError(f"{name}: names no bucket; write {REMOTE}BUCKET/FOLDER")
    if not importlib.util.find_spec("gcsfs"):
        raise InputError(f"{name}: buckets need the package gcsfs; pip install 'bert-jax[gs]'")
    import fsspec
    from etils import epath

    # Others write there too: Orbax, and the run's other processes.
    fsspec.config.conf.setdefault("gcs", {}).setdefault("use_listings_cache", False)
    return epath.Path(name)


def is_remote(path: PurePath) -> bool:
    return str(path).startswith(REMOTE)


def absolute(path: Path) -> Path:
    return path if is_remote(path) else path.absolute()


def make_folder(path: Path) -> None:
    """With its parents, and where it isn't there yet; a bucket has none to make."""
    if not is_remote(path):
        path.mkdir(parents=True, exist_ok=True)


def remove(path: Path) -> None:
    """A file, or a folder with all that it holds, where it exists."""
    if is_remote(path):
        path.rmtree(missing_ok=True)
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file that is there whole, or not at all."""
    if is_remote(path):
        path.write_bytes(content)
        return
    aside = path.with_name(f"{path.name}.partial")
    aside.write_bytes(content)
    os.replace(aside, path)


def upload(stream: BinaryIO, path: Path) -> None:
    """Writes an object of the rest of a stream."""
    with path.open("wb") as target:
        shutil.copyfileobj(stream, target, COPIED_AT_ONCE)


def download(path: Path, file: Path) -> None:
    """Makes a local file of an object."""
    import fsspec

    fsspec.filesystem("gcs").get_file(str(path), str(file))


@contextlib.contextmanager
def whole_folder(folder: Path, overwrite: bool = False) -> Iterator[Path]:
    """A local folder to write into, which is `folder` once the block ends without an error; else nothing is left.

    Raises `InputError` where `folder` holds something that isn't to be overwritten. One in a bucket is uploaded at the
    end, after what was there is removed.
    """
    taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    if taken and not overwrite:
        raise InputError(f"{folder}: exists; choose another folder, or --overwrite it")
    if is_remote(folder):
        with tempfile.TemporaryDirectory(prefix="bert_jax_") as aside:
            yield Path(aside)
            remove(folder)
            for file in sorted(file for file in Path(aside).rglob("*") if file.is_file()):
                with open(file, "rb") as stream:
                    upload(stream, folder / file.relative_to(aside).as_posix())
        return
    parents = [parent for parent in folder.absolute().parents if not parent.exists()]
    make_folder(folder.parent)
    aside = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", suffix=".partial", dir=folder.parent))
    try:
        yield aside
        aside.chmod(0o777 & ~_umask())
        old = aside.with_suffix(".old")
        if folder.exists():
            folder.rename(old)
        aside.rename(folder)
        remove(old)
    except BaseException:
        remove(aside)
        for parent in parents:
            with contextlib.suppress(OSError):
                parent.rmdir()
        raise


def _umask() -> int:
    """mkdtemp makes folders for one user alone; this says for whom folders are made."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def cache_folder() -> Path:
    """For what can be downloaded again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bert_jax"


class Mirror:
    """A local folder to write into: the given one itself or, for one in a bucket, another that is uploaded to it."""

    def __init__(self, folder: Path):
        self._remote = folder if is_remote(folder) else None
        self._temporary = tempfile.TemporaryDirectory(prefix="bert_jax_") if self._remote else None
        self.folder = Path(self._temporary.name) if self._temporary else folder
        self._uploaded: dict[Path, tuple[int, int]] = {}

    def upload(self) -> None:
        """Copies the files that have changed since the last time."""
        for file in sorted(self.folder.rglob("*")) if self._remote else ():
            state = file.stat().st_size, file.stat().st_mtime_ns
            if file.is_file() and self._uploaded.get(file) != state:
                with open(file, "rb") as stream:
                    upload(stream, self._remote / file.relative_to(self.folder).as_posix())
                self._uploaded[file] = state


@contextlib.contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Raises `InputError` for what the packages for buckets raise where a bucket can't be had."""
    try:
        yield
    except Exception as error:
        if line := problem(error):
            raise InputError(line) from error
        raise


def problem(error: Exception) -> str | None:
    """What an error says of a bucket, and what to do, in one line; None where it is about something else.

    epath and Orbax go there through gcsfs and google-cloud-storage, TensorStore by itself.
    """
    module, text = type(error).__module__, " ".join(str(error).split())[:500]
    code = getattr(error, "code", None)
    address = re.search(r"(?:^|[/ ])b/([^/? ]+)(?:/o/([^? ]+))?", text)
    where = REMOTE + address[1] if address else "Google Cloud Storage"
    if isinstance(error, FileNotFoundError) and error.errno is None and address:
        return f"{where}/{unquote(address[2])}: no such object" if address[2] else f"{where}: no such bucket"
    if module.startswith("google.auth") or code == 401 or "UNAUTHENTICATED" in text:
        return f"{where}: not logged in ({text}); log in with gcloud auth application-default login"
    if text.startswith("Forbidden: ") or code == 403 or "PERMISSION_DENIED" in text:
        return f"{where}: permission denied ({text}); it takes the role Storage Object User"
    if module.startswith(("aiohttp.", "gcsfs.", "google.")) or re.search(r"UNAVAILABLE|DEADLINE_EXCEEDED", text):
        return f"{where}: {text}; the same command goes on"
    return None
