"""Folders that may lie in a bucket: `gs://` paths through etils' epath and gcsfs, all others through pathlib.

Objects in a bucket are written whole; they can be neither renamed nor appended to.
"""

import contextlib
import errno
import functools
import glob
import importlib.util
import logging
import os
import re
import secrets
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import BinaryIO
from urllib.parse import unquote

from bert_jax.files.errors import InputError, TryAgain

REMOTE = "gs://"
COPIED_AT_ONCE = 1 << 24  # bytes
LONGEST = 255  # bytes of a name, on nearly every file system
# Characters that would break an error's one line or reverse its text; and bytes that aren't UTF-8.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# Local folders that epath takes for the buckets of its services.
TAKEN_FOR_BUCKETS = ("gs", "s3", "az", "hf")
# Errors that mean that no more can be written.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
# Names of files and folders that are being written: nobody can guess them.
ASIDE = re.compile(r"\.[0-9a-f]{16}\.partial")

if importlib.util.find_spec("gcsfs"):
    # Without this, epath opens buckets through TensorFlow, whose import takes seconds in each worker. It isn't set in
    # `path`, since a worker gets paths that were made in another process.
    os.environ.setdefault("EPATH_USE_TF", "false")
    # Without this, gcsfs asks for the kind of each bucket, which needs one more permission, and asks again if refused.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # Its errors are raised and reported; it logs tracebacks too.


def path(name: str | PurePath) -> Path:
    """The path of a local folder or file as `pathlib.Path`, or of one in a bucket as `epath.Path`, which has the same
    methods.

    Raises `InputError` for any other address, for names that Orbax or TensorStore can't take, or where the packages for
    buckets are missing: at the start of a command, not hours later.
    """
    name = os.fspath(name)
    if unprintable := UNPRINTABLE.search(name):
        raise InputError(f"{name!r}: {unprintable[0]!r} is in this name; choose one that can be printed")
    if not name.startswith(REMOTE):
        if re.match(r"\w+:(/|$)", name):
            raise InputError(f"{name}: neither a local path nor one that begins with {REMOTE}")
        _check_local(name)
        return Path(name)
    if not name.removeprefix(REMOTE).strip("/"):
        raise InputError(f"{name}: names no bucket; write {REMOTE}BUCKET/FOLDER")
    if not importlib.util.find_spec("gcsfs"):
        raise InputError(f"{name}: buckets need the package gcsfs; pip install 'bert-jax[gs]'")
    import fsspec
    from etils import epath

    # No cached listings: Orbax and the run's other processes write there too.
    fsspec.config.conf.setdefault("gcs", {}).setdefault("use_listings_cache", False)
    return epath.Path(name)


def _check_local(name: str) -> None:
    if not name:
        raise InputError("'': an empty name; name a folder (. is the one that you are in)")
    for part in name.split("/"):
        if (size := len(part.encode())) > LONGEST:
            raise InputError(f"{part[:40]}...: a name of {size} bytes; a name has {LONGEST} at most")
    whole = os.path.abspath(name)
    if unprintable := UNPRINTABLE.search(whole):
        raise InputError(f"{whole!r}: {unprintable[0]!r} is in this name; choose one that can be printed")
    if "\\" in whole:
        raise InputError(f"{whole}: has a backslash, which TensorStore takes for a slash; choose a name without it")
    if (first := whole.split("/")[1]) in TAKEN_FOR_BUCKETS:
        raise InputError(f"{whole}: Orbax takes /{first}/ for a bucket; choose a folder elsewhere")


def literal(path: Path) -> Path:
    """The absolute path for Orbax, which treats names as glob patterns: here a `[1]` in it is part of the name.

    What Orbax renames, as a checkpoint that is whole, is on the disk before it has its name, and then so is the name.
    """
    return path if is_remote(path) else _literal()(path.absolute())


@functools.cache
def _literal() -> type[Path]:
    from etils import epath

    class Literal(epath.gpath.PosixGPath):
        def glob(self, pattern: str) -> Iterator[Path]:
            return (self / name for name in glob.glob(pattern, root_dir=self))

        def rename(self, target: str | PurePath) -> Path:
            sync(Path(self))
            renamed = super().rename(target)
            sync_entry(renamed.parent)
            return renamed

    return epath.register_path_cls(Literal)


def is_remote(path: PurePath) -> bool:
    return str(path).startswith(REMOTE)


def make_folder(path: Path) -> None:
    """Makes a folder, with its parents, where it doesn't exist; in a bucket there is nothing to make."""
    if is_remote(path):
        return
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    while True:
        try:
            path.mkdir(parents=True, exist_ok=True)
            break
        except (FileExistsError, NotADirectoryError):
            file = next(parent for parent in (path, *path.parents) if os.path.lexists(parent))
            if not file.is_dir():  # Else another process has just removed the folder.
                raise InputError(f"{file}: is a file, where a folder is to be; choose another folder") from None
    for folder in made:
        # A folder that may be written, but not read, can't be synced; and another process may have removed it.
        with contextlib.suppress(PermissionError, FileNotFoundError):
            sync_entry(folder.parent)


def remove(path: Path) -> None:
    """Removes a file, or a folder with all that it holds, where it exists; of a link only the link itself."""
    if is_remote(path):
        from etils import epath

        epath.Path(path).rmtree(missing_ok=True)
    elif path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def refuse_link(path: Path) -> None:
    """Raises `InputError` where a local path is a link: one in a folder from elsewhere may lead anywhere."""
    if not is_remote(path) and path.is_symlink():
        raise InputError(f"{path}: a link to {path.readlink()}, which isn't followed; remove it")


def is_own_folder(path: Path) -> bool:
    """Whether a local path is a folder of the user who runs this process, and no link."""
    return path.is_dir() and not path.is_symlink() and path.stat().st_uid == os.geteuid()


def removal(path: Path) -> str:
    """The command that removes a folder."""
    return f"{'gcloud storage rm --recursive' if is_remote(path) else 'rm -r'} {shlex.quote(str(path))}"


def size(folder: Path) -> int:
    """The bytes of all files in a folder."""
    if is_remote(folder):
        import fsspec

        return fsspec.filesystem("gcs").du(str(folder))
    return sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())


@contextlib.contextmanager
def named_if_full(path: Path) -> Iterator[None]:
    """Adds the path to errors of a full disk or a reached limit, which Python and libraries raise without it.

    Libraries (safetensors, tokenizers, TensorFlow) raise them as any type, with the system's words in the text.
    """
    try:
        yield
    except Exception as error:
        for number in FULL:
            if isinstance(error, OSError):
                is_full = error.errno == number and error.filename is None
            else:
                is_full = not isinstance(error, InputError) and os.strerror(number) in str(error)
            if is_full:
                raise OSError(number, os.strerror(number), str(path)) from error
        raise


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file so that it exists whole or not at all, also after a power failure."""
    if is_remote(path):
        path.write_bytes(content)
        return
    with whole_file(path) as stream:
        stream.write(content)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A local file to write into, which is called `path` once it is whole and on the disk; else nothing is left."""
    under_way = aside(path)
    try:
        # "x": never through a link, nor into a file that exists.
        with named_if_full(path), open(under_way, "xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(under_way, path)
    except BaseException:
        under_way.unlink(missing_ok=True)
        raise
    sync_entry(path.parent)


def new_file(path: Path) -> BinaryIO:
    """Opens a new local file to write and read, in the place of what has its name: never one that a link leads to."""
    path.unlink(missing_ok=True)
    return open(path, "x+b")


def aside(path: Path) -> Path:
    """A new name beside `path`, for what is written there until it is whole."""
    return path.with_name(f".{secrets.token_hex(8)}.partial")


def sync(folder: Path) -> None:
    """Flushes all that a local folder holds to the disk."""
    for path in (*folder.rglob("*"), folder):
        if not path.is_symlink():
            sync_entry(path)


def sync_entry(path: Path) -> None:
    """Flushes one file, or the names in one folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # Some file systems can't do it for folders.
            raise
    finally:
        os.close(descriptor)


def upload(stream: BinaryIO, path: Path) -> None:
    """Writes the rest of a stream to an object in a bucket."""
    with path.open("wb") as target:
        shutil.copyfileobj(stream, target, COPIED_AT_ONCE)


def download(path: Path, file: Path) -> None:
    """Copies an object from a bucket to a local file."""
    import fsspec

    fsspec.filesystem("gcs").get_file(str(path), str(file))


def cache_folder() -> Path:
    """The folder for what can be downloaded again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bert_jax"


class Mirror:
    """A local folder to write into: the given one or, for one in a bucket, a temporary one that is uploaded to it."""

    def __init__(self, folder: Path):
        self._remote = folder if is_remote(folder) else None
        self._temporary = tempfile.TemporaryDirectory(prefix="bert_jax_") if self._remote else None
        self.folder = Path(self._temporary.name) if self._temporary else folder
        self._uploaded: dict[Path, tuple[int, int]] = {}

    def upload(self) -> None:
        """Copies the files that have changed since the last upload to the bucket."""
        if self._remote is None:
            return
        for file in sorted(self.folder.rglob("*")):
            state = file.stat().st_size, file.stat().st_mtime_ns
            if file.is_file() and self._uploaded.get(file) != state:
                with open(file, "rb") as stream:
                    upload(stream, self._remote / file.relative_to(self.folder).as_posix())
                self._uploaded[file] = state


@contextlib.contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Turns errors of the packages for buckets into `InputError`, where a bucket can't be reached."""
    try:
        yield
    except Exception as error:
        if found := problem(error):
            raise found from error
        raise


def problem(error: Exception) -> InputError | None:
    """The problem with a bucket that an error reports, and the remedy, in one line; None for other errors.

    epath and Orbax use gcsfs and google-cloud-storage, TensorStore its own client.
    """
    module, text = type(error).__module__, " ".join(str(error).split())[:500] or type(error).__name__
    code = str(getattr(error, "code", ""))
    address = re.search(r"(?:^|[/ ])b/([^/? ]+)(?:/o/([^? ]+))?", text)
    where = REMOTE + address[1] if address else "Google Cloud Storage"
    if isinstance(error, FileNotFoundError) and error.errno is None and address:
        return InputError(
            f"{where}/{unquote(address[2])}: no such object" if address[2] else f"{where}: no such bucket"
        )
    # A machine's own server of logins, which a pod may not reach in its first seconds, is no lack of a login.
    unreached = any(type(e).__name__ == "TransportError" for e in (error, error.__cause__))
    if (module.startswith("google.auth") and not unreached) or code == "401" or "UNAUTHENTICATED" in text:
        return InputError(f"{where}: not logged in ({text}); log in with gcloud auth application-default login")
    if text.startswith("Forbidden: ") or code == "403" or "PERMISSION_DENIED" in text:
        return InputError(f"{where}: permission denied ({text}); it needs the role Storage Object User")
    ours = module.startswith(("aiohttp.", "gcsfs.", "requests.", "google.auth.", "google.api_core.", "google.cloud."))
    if ours and re.fullmatch("4(?!08|29)..", code):  # But for a timeout and too many requests, these don't pass.
        return InputError(f"{where}: refused ({text}); correct the address, or what the bucket allows")
    if ours or re.search(r"UNAVAILABLE|DEADLINE_EXCEEDED", text):
        return TryAgain(f"{where}: {text}; the same command goes on")
    return None
