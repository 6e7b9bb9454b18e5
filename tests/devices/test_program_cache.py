"""The cache of compiled programs: whose folder it is, what stays in it, and that a run goes on without it."""

import errno
import os
import tempfile
from pathlib import Path

import filelock
import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from bert_jax.devices import program_cache
from bert_jax.devices.program_cache import keep_programs

OPTIONS = (
    "jax_compilation_cache_dir",
    "jax_compilation_cache_max_size",
    "jax_enable_compilation_cache",
    "jax_persistent_cache_min_compile_time_secs",
)


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    """JAX as it is where nobody has set a cache, and a cache folder of the user's; afterwards as it was."""
    before = {name: getattr(jax.config, name) for name in OPTIONS}
    for name, value in zip(OPTIONS, (None, -1, True, 1.0), strict=True):
        jax.config.update(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    program_cache._users_folder.cache_clear()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    program_cache._users_folder.cache_clear()
    compilation_cache.reset_cache()


def the_folder() -> str | None:
    return jax.config.jax_compilation_cache_dir


def compiled(number: int) -> list[str]:
    """What JAX's cache tells while it compiles a program, as it does where a process is new."""
    events = []
    jax.clear_caches()

    def note(event: str, **_) -> None:
        events.append(event.rpartition("/")[2])

    jax.monitoring.register_event_listener(note)
    jax.jit(lambda x: x * number).lower(np.float32(1)).compile()
    jax.monitoring.unregister_event_listener(note)
    return [event for event in events if event in ("cache_hits", "cache_misses")]


def test_programs_are_kept_in_a_folder_of_the_users_alone(tmp_path, monkeypatch, capsys):
    keep_programs()
    folder = Path(the_folder())
    assert folder.parent == tmp_path / "bert_jax/programs" and capsys.readouterr().err == ""
    assert [each.stat().st_mode & 0o777 for each in (folder.parent, folder)] == [0o700, 0o700]
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    assert (compiled(2), compiled(2), compiled(3)) == (["cache_misses"], ["cache_hits"], ["cache_misses"])
    # JAX's own eviction, the least recently used first.
    sizes = [file.stat().st_size for file in folder.glob("*-cache")]
    jax.config.update("jax_compilation_cache_max_size", sum(sizes))
    compilation_cache.reset_cache()
    assert compiled(2) == ["cache_hits"]
    assert (compiled(4), compiled(3)) == (["cache_misses"], ["cache_misses"])


def test_another_processor_has_another_folder(monkeypatch):
    monkeypatch.setattr(program_cache, "_processor", lambda: ["flags : sse2 avx"])
    keep_programs()
    older = the_folder()
    monkeypatch.setattr(program_cache, "_processor", lambda: ["flags : sse2 avx avx512f"])
    program_cache._users_folder.cache_clear()
    jax.config.update("jax_compilation_cache_dir", None)
    keep_programs()
    assert Path(older).parent == Path(the_folder()).parent and older != the_folder()


def link(programs: Path, monkeypatch) -> None:
    (programs.parent / "elsewhere").mkdir()
    programs.symlink_to(programs.parent / "elsewhere")


def writable_for_others(programs: Path, monkeypatch) -> None:
    programs.mkdir()
    programs.chmod(0o777)


def of_another_user(programs: Path, monkeypatch) -> None:
    programs.mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: programs.stat().st_uid + 1)


def a_file(programs: Path, monkeypatch) -> None:
    programs.touch()


def full_disk(programs: Path, monkeypatch) -> None:
    def full(dir):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(dir))

    monkeypatch.setattr(tempfile, "TemporaryFile", full)


def no_locks(programs: Path, monkeypatch) -> None:
    def acquire(*_, **__):
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)


def no_home(programs: Path, monkeypatch) -> None:
    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", home)


CASES = (link, writable_for_others, of_another_user, a_file, full_disk, no_locks, no_home)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_a_folder_that_cant_be_trusted_or_used_isnt_and_is_named_once(case, tmp_path, monkeypatch, capsys):
    """A stranger's program would be run."""
    programs = tmp_path / "bert_jax/programs"
    programs.parent.mkdir()
    case(programs, monkeypatch)
    keep_programs()
    keep_programs()
    assert the_folder() is None and compiled(2) == []
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("compiled programs aren't kept for the next command (")
    assert line.endswith("; JAX_COMPILATION_CACHE_DIR names another folder, or, empty, none")
    assert case is no_home or case is no_locks or str(programs) in line


def test_what_the_person_has_set_wins(tmp_path, monkeypatch):
    for theirs in ("", str(tmp_path / "theirs")):  # As JAX_COMPILATION_CACHE_DIR sets it.
        jax.config.update("jax_compilation_cache_dir", theirs)
        keep_programs()
        assert the_folder() == theirs
    keep_programs(str(tmp_path / "named"))
    assert the_folder() == str(tmp_path / "named")
    keep_programs("")
    assert the_folder() is None
    keep_programs()
    assert the_folder() is None and compiled(2) == []
    keep_programs(str(tmp_path / "named"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    assert compiled(2) == ["cache_misses"]
    assert not (tmp_path / "bert_jax").exists()


def test_one_of_several_processes_keeps_none_by_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    keep_programs()
    assert the_folder() is None and not (tmp_path / "bert_jax").exists()


def test_what_was_used_least_recently_and_what_a_killed_process_left_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(program_cache, "MOST_BYTES", 100)
    here, other = tmp_path / "here", tmp_path / "other"
    for folder, name, used in ((here, "old", 1), (other, "older", 0), (here, "new", 3), (other, "newer", 2)):
        folder.mkdir(exist_ok=True)
        (folder / f"{name}-cache").write_bytes(bytes(40))
        (folder / f"{name}-atime").touch()
        os.utime(folder / f"{name}-atime", (used, used))
    for folder in (here, other):
        (folder / "half-cache").write_bytes(bytes(10))
    program_cache._remove_old(here)
    left = sorted(file.relative_to(tmp_path).as_posix() for file in tmp_path.glob("*/*"))
    # Another machine may be writing its half.
    assert left == ["here/new-atime", "here/new-cache", "other/half-cache", "other/newer-atime", "other/newer-cache"]
