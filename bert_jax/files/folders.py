"""Folders that are written whole or not at all, and the locks that keep two processes from working in one.

A lock is a file `.lock` that names the process and its host. The kernel holds it as long as the process lives; in
buckets, and on file systems without locks, the process rewrites it regularly as a sign of life.
"""

import contextlib
import dataclasses
import errno
import fcntl
import os
import re
import secrets
import socket
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

from bert_jax.files import storage
from bert_jax.files.errors import LOST, InputError, TryAgain
from bert_jax.files.printable import printable, say

LOCK = ".lock"
# Where the kernel has no locks, in seconds: between two signs of life; of silence until a holder counts as dead; until
# two processes that came at once can see which one wrote last; between two reads while waiting.
RENEW, STALE, SETTLE, LOOK = 30.0, 120.0, 1.0, 2.0
UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


# ---- Whole folders ---------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Made:
    """What a command makes folders of: only such a folder is overwritten, and none where people keep other things."""

    name: str
    shapes: tuple[tuple[tuple[str, ...], str], ...]
    """The forms that it has: files that are always there, and a pattern for the names of its folders."""

    def is_in(self, folder: Path) -> bool:
        """Whether the folder looks like one of these. A run's workdir doesn't."""
        names = [path.name for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
        return any(
            all((folder / file).exists() for file in files) and all(re.fullmatch(form, name) for name in names)
            for files, form in self.shapes
        )


@contextlib.contextmanager
def whole_folder(folder: Path, replaces: Made | None = None) -> Iterator[Path]:
    """A local folder to write into, which becomes `folder` if the block ends without an error; else nothing is left.

    Raises `InputError` where `folder` holds anything but what may be replaced, or another process works in it or reads
    it. A folder in a bucket is uploaded at the end, after its former content is removed. What earlier, killed processes
    left half written is removed too.
    """
    real = folder if storage.is_remote(folder) else replaceable(folder)
    check_free(folder, replaces)
    if storage.is_remote(folder):
        with exclusive(folder), tempfile.TemporaryDirectory(prefix="bert_jax_") as temporary:
            yield Path(temporary)
            check_free(folder, replaces)
            for path in _content(folder):
                storage.remove(path)
            for file in sorted(file for file in Path(temporary).rglob("*") if file.is_file()):
                with open(file, "rb") as stream:
                    storage.upload(stream, folder / file.relative_to(temporary).as_posix())
        return
    with held(real) as lock, exclusive(aside := storage.aside(real)) as aside_lock:
        check_free(folder, replaces)
        try:
            with storage.named_if_full(folder):
                yield aside
            put_in_place(aside, aside_lock, real, lock, replaces)
        except BaseException:
            storage.remove(aside)
            raise


def is_taken(folder: Path) -> bool:
    """Whether the path is a file, or a folder that holds anything but locks."""
    return folder.exists() and (not folder.is_dir() or bool(_content(folder)))


def _content(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name != LOCK and not path.name.startswith(f"{LOCK}-")]


def check_free(folder: Path, replaces: Made | None = None) -> None:
    """Raises `InputError` where the folder holds anything but what may be replaced."""
    if not is_taken(folder):
        return
    if not replaces:
        raise InputError(f"{folder}: exists; choose another folder, or --overwrite it")
    if not replaces.is_in(folder):
        names = sorted(path.name for path in _content(folder)) if folder.is_dir() else []
        holds = f" (it holds {printable(', '.join(names[:3]))}{', ...' if names[3:] else ''})" if names else ""
        remedy = "remove it yourself, or choose another folder"
        raise InputError(f"{folder}: not a folder of {replaces.name} alone{holds}, so it isn't overwritten; {remedy}")


def replaceable(folder: Path) -> Path:
    """The path at which another folder can replace a local one, with links resolved. Raises `InputError` where it can't
    be renamed."""
    real = folder.resolve()
    if real in ((current := Path.cwd()), *current.parents):
        raise InputError(f"{folder}: you are in this folder, which would be replaced; name one that isn't there yet")
    if os.path.ismount(real):
        raise InputError(f"{folder}: something is mounted there, so it can't be replaced; name a folder in it")
    return real if folder.is_symlink() else folder.absolute()


@contextlib.contextmanager
def held(folder: Path) -> Iterator["Lock | None"]:
    """Locks a local folder that is going to be replaced, where there is one, so that nobody uses it meanwhile.

    First removes what killed processes left beside it, and puts the folder back if one was killed as it replaced it.
    """
    if storage.is_remote(folder):
        yield None
        return
    for left in folder.parent.iterdir() if folder.parent.is_dir() else ():
        is_old = left.name.startswith(_old(folder)) and left.suffix == ".old"
        if (is_old or storage.ASIDE.fullmatch(left.name)) and storage.is_own_folder(left):
            with contextlib.suppress(InUse, OSError), exclusive(left) as lock:
                if is_old and is_taken(left) and not folder.exists():
                    left.rename(folder)
                    lock.moved(folder)
                else:
                    storage.remove(left)
    with exclusive(folder) if folder.exists() else contextlib.nullcontext() as lock:
        yield lock


def put_in_place(aside: Path, aside_lock: "Lock", folder: Path, lock: "Lock | None", replaces: Made | None) -> None:
    """Renames `aside` to `folder` once all of it is on the disk; what was at `folder` is removed.

    `lock` is what `held` gave for the folder. Raises `InputError` where something is there now that mustn't be
    replaced, or another process works there.
    """
    storage.sync(aside)
    with contextlib.nullcontext(lock) if lock else exclusive(folder) as lock:
        check_free(folder, replaces)
        old = folder.with_name(f"{_old(folder)}{secrets.token_hex(4)}.old")
        folder.rename(old)
        lock.moved(old)
        try:
            aside.rename(folder)
        except BaseException:
            old.rename(folder)
            lock.moved(folder)
            raise
        aside_lock.moved(folder)
        storage.sync_entry(folder.parent)
        # From here on, nobody may put it back.
        old = old.rename(storage.aside(folder))
        lock.moved(old)
        storage.remove(old)


def _old(folder: Path) -> str:
    """How the name begins that a folder has while another replaces it."""
    return f".{zlib.crc32(os.fsencode(folder.name)):08x}"


# ---- Who works in a folder ------------------------------------------------------------------------------------------


class InUse(TryAgain):
    """Another process works in the folder: often the one that was to end before this one was started."""


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator["Lock"]:
    """Locks the folder, which is made where it doesn't exist, for this process alone; the lock is removed at the end.

    Raises `InUse`, with nothing written, where another process has locked it or reads it. A process that died holds no
    lock: the kernel frees it, also on NFS; in buckets, and on file systems without locks, its signs of life end.
    """
    made = [] if storage.is_remote(folder) else [path for path in (folder, *folder.parents) if not path.exists()]
    lock = None
    try:
        lock = Lock(folder, LOCK)
        if not storage.is_remote(folder):
            for left in folder.iterdir():
                if left.name.startswith(f"{LOCK}-"):
                    Lock(folder, left.name).release()
                elif storage.ASIDE.fullmatch(left.name) and left.is_file():
                    left.unlink(missing_ok=True)
        with storage.named_if_full(folder):
            yield lock
    finally:
        if lock:
            lock.release()
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()


@contextlib.contextmanager
def shared(folder: Path) -> Iterator[None]:
    """Keeps others from replacing a local folder while it is read; any number may read it.

    Raises `InUse` where another process has locked it. Nothing is locked in a bucket, whose files are copied first.
    """
    if storage.is_remote(folder):
        yield
        return
    try:
        lock = Lock(folder, f"{LOCK}-{secrets.token_hex(8)}")
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        say(f"{folder}: can't be written, so another process may replace it while it is read", file=sys.stderr)
        yield
        return
    try:
        if (folder / LOCK).exists():
            Lock(folder, LOCK).release()
        yield
    finally:
        lock.release()


class Lock:
    """A file in a folder that names the one process which holds it."""

    def __init__(self, folder: Path, name: str):
        """Raises `InUse` where another process holds it."""
        self.file, self._folder = folder / name, folder
        self._descriptor = None if storage.is_remote(folder) else self._by_kernel()
        self._stop = threading.Event()
        self._renewing: threading.Thread | None = None
        if self._descriptor is None:
            self._by_lease()

    def moved(self, folder: Path) -> None:
        """Notes the folder's new path."""
        self.file, self._folder = folder / self.file.name, folder

    def release(self) -> None:
        """Frees the lock and removes its file; more calls do nothing."""
        if self._renewing:
            self._stop.set()
            self._renewing.join()
            self._renewing = None
            if self._read() == self._holder:
                storage.remove(self.file)
        if self._descriptor is not None:
            self.file.unlink(missing_ok=True)  # Before the lock is free: others check that their file is still there.
            os.close(self._descriptor)
            self._descriptor = None

    # ---- By the kernel ----------------------------------------------------------------------------------------------

    def _by_kernel(self) -> int | None:
        """The file's descriptor, which no child inherits; None where the file system has no locks."""
        while True:
            storage.make_folder(self._folder)
            try:
                descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            except FileNotFoundError:  # The folder was removed meanwhile.
                continue
            kept = False
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._is_there(descriptor):
                    self._sign(descriptor)
                    kept = True
                    return descriptor
            except BlockingIOError:
                if self._is_there(descriptor):
                    raise self._in_use(Holder.read(os.pread(descriptor, 4096, 0))) from None
            except OSError as error:
                if error.errno in UNSUPPORTED:
                    return None
                raise
            finally:
                if not kept:
                    os.close(descriptor)

    def _sign(self, descriptor: int) -> None:
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, Holder.this().text(), 0)
        except OSError as error:  # The disk is full.
            self.file.unlink()
            raise OSError(error.errno, error.strerror, str(self.file)) from None

    def _is_there(self, descriptor: int) -> bool:
        """Whether the opened file still has its name: the process that held the lock may have removed it."""
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(descriptor), os.stat(self.file, follow_symlinks=False))
        return False

    def _in_use(self, holder: "Holder | None") -> InUse:
        return InUse(
            f"{self._folder}: in use by {holder or 'another process'}; wait until it has ended, or name another folder"
        )

    # ---- By signs of life -------------------------------------------------------------------------------------------

    def _by_lease(self) -> None:
        """Takes the lock once its holder is dead: one whose lock file didn't change while we waited. No clocks of two
        machines are compared."""
        begin, first = time.monotonic(), self._read()
        holder = first
        if holder and not holder.is_dead():
            say(f"{self.file}: waits to see whether {holder} still works there", file=sys.stderr)
        while holder and not holder.is_dead() and time.monotonic() < begin + STALE:
            if holder != first:
                raise self._in_use(holder)
            time.sleep(LOOK)
            holder = self._read()
        self._holder = Holder.this()
        storage.write_whole(self.file, self._holder.text())
        time.sleep(SETTLE)
        holder = self._read()
        if holder != self._holder:
            raise self._in_use(holder)
        self._renewing = threading.Thread(target=self._renew, daemon=True)
        self._renewing.start()

    def _read(self) -> "Holder | None":
        try:
            return Holder.read(self.file.read_bytes())
        except FileNotFoundError:
            return None

    def _renew(self) -> None:
        while not self._stop.wait(RENEW):
            with contextlib.suppress(Exception):  # A bucket that can't be reached now is tried again.
                holder = self._read()
                if holder and holder.token != self._holder.token:  # This process was suspended for too long.
                    say(f"bert-jax: {self._folder}: {holder} has taken over; this run ends", file=sys.stderr)
                    os._exit(LOST)
                self._holder = dataclasses.replace(self._holder, beat=self._holder.beat + 1)
                storage.write_whole(self.file, self._holder.text())


@dataclasses.dataclass(frozen=True)
class Holder:
    """The process that a lock names."""

    process: int
    host: str
    machine: str
    """The machine's boot and the container on it; empty where they can't be told."""
    started: str
    """When the process started, in clock ticks since the machine's boot."""
    token: str
    beat: int = 0
    """Number of signs of life so far."""

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"

    @classmethod
    def this(cls) -> "Holder":
        host = re.sub(r"[^\w.-]", "_", socket.gethostname(), flags=re.ASCII) or "unknown"
        return cls(os.getpid(), host, _machine(), _started(os.getpid()), secrets.token_hex(8))

    @classmethod
    def read(cls, content: bytes) -> "Holder | None":
        """The holder in a lock's content; None where that isn't whole, as when the holder was killed while it wrote."""
        form = rb"(\d{1,10}) ([\w.-]{1,255}) ([\w-]{0,99}) (\d{0,20}) ([0-9a-f]{16}) (\d{1,18})\n"
        if not (match := re.fullmatch(form, content)):
            return None
        process, host, machine, started, token, beat = (group.decode() for group in match.groups())
        return cls(int(process), host, machine, started, token, int(beat))

    def text(self) -> bytes:
        return f"{self.process} {self.host} {self.machine} {self.started} {self.token} {self.beat}\n".encode()

    def is_dead(self) -> bool:
        """Whether the process is certainly dead: it ran on this machine, and no process has its id and start now."""
        return bool(self.machine) and self.machine == _machine() and self.started != _started(self.process)


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}-{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def _started(process: int) -> str:
    """When a process started, in clock ticks since the boot; empty where there is no such process."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
