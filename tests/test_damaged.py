"""Damaged and hostile files: whatever reads them reads them, or says in one line what is wrong, soon and in bounds."""

import contextlib
import gc
import itertools
import os
import resource
import signal

import pytest
from damage import damaged
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from readers import READERS, build

from bert_jax.config import InputError

# Cases of each reader in the long form, and files that it damages at once.
CASES = int(os.environ.get("BERT_JAX_CASES", 10_000))
# What a case may take: seconds of CPU time, as other work may be in the way, and memory.
SECONDS, BYTES = 5, 1 << 29


class Hang(BaseException):
    """No case may take so long."""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    build(folder)
    with contextlib.chdir(folder):
        yield folder


@pytest.mark.parametrize("name", READERS)
def test_damaged_files(root, name):
    check(root, name, 3)


@pytest.mark.long
@pytest.mark.parametrize("name", READERS)
def test_damaged_files_in_thousands(root, name):
    check(root, name, CASES)


def check(root, name: str, cases: int) -> None:
    reader = READERS[name]
    contents = {file: file.read_bytes() for file in reader.files(root)}
    reader.read(root / reader.folder)  # Whole, it is read.
    done = itertools.count(1)

    @settings(
        max_examples=cases, deadline=None, database=None, derandomize=cases < 100, suppress_health_check=[*HealthCheck]
    )
    @given(st.data())
    def holds(data):
        file = data.draw(st.sampled_from(list(contents)))
        changed = data.draw(damaged(contents[file], tuple(contents.values())))
        file.write_bytes(changed)
        try:
            clean(lambda: reader.read(root / reader.folder))
        finally:
            file.write_bytes(contents[file])
        if next(done) % 100 == 0:
            # With each checkpoint TensorStore loses objects; to look through those of thousands takes seconds.
            gc.collect()
            gc.freeze()

    try:
        holds()
    finally:
        gc.unfreeze()


def clean(read) -> None:
    """Raises where a reader neither reads nor refuses in one line, or takes too much time or memory."""

    def hang(*_):
        raise Hang

    clocks = {signal.SIGVTALRM: (signal.ITIMER_VIRTUAL, SECONDS), signal.SIGALRM: (signal.ITIMER_REAL, 20 * SECONDS)}
    before, memory = {number: signal.signal(number, hang) for number in clocks}, most_memory()
    for clock, seconds in clocks.values():
        signal.setitimer(clock, seconds)
    try:
        read()
    except InputError as error:
        assert str(error).isprintable()
    finally:
        for number, (clock, _) in clocks.items():
            signal.setitimer(clock, 0)
            signal.signal(number, before[number] or signal.SIG_DFL)  # None: one that Python doesn't know.
    assert most_memory() - memory < BYTES


def most_memory() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
