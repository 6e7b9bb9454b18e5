"""Worker processes that return their results in order; and the number of CPU cores that this process may use."""

import contextlib
import math
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TypeVar

from bert_jax.config import InputError

Arguments = TypeVar("Arguments", bound=tuple)
Result = TypeVar("Result")


def in_workers(
    function: Callable[..., Result],
    calls: Iterable[Arguments],
    workers: int | None,
    start: Callable[..., None] | None = None,
    start_arguments: tuple = (),
) -> Iterator[tuple[Arguments, Result]]:
    """Yields (arguments, `function(*arguments)`) for each of the calls, computed in `workers` processes.

    None means `granted_cores` processes; each first calls `start`. Results come in the order of the calls; at most two
    calls per worker are pending.
    """
    workers = workers or granted_cores()
    # Spawned, not forked: the parent may hold the threads of JAX and TensorFlow.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _start, (start, start_arguments)) as pool:
        pending: deque[tuple[Arguments, Future[Result]]] = deque()
        try:
            for arguments in calls:
                with _sigint_blocked():
                    pending.append((arguments, pool.submit(function, *arguments)))
                if len(pending) >= 2 * workers:
                    done, future = pending.popleft()
                    yield done, future.result()
            for done, future in pending:
                yield done, future.result()
        except BrokenProcessPool:
            remedy = "give the command again, with --run.workers 1 if memory is short (a script needs "
            remedy += "if __name__ == '__main__')"
            raise InputError(f"a worker process was ended, as by lack of memory; {remedy}") from None
        finally:
            pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Processes started in the block ignore Ctrl-C, which a terminal sends to them too: only the parent handles it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(start: Callable[..., None] | None, arguments: tuple) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # The processes are the parallelism.
    if start:
        start(*arguments)


def _end_with_parent() -> None:
    """Ends this worker when its parent ends: a parent that is killed can't end its workers itself."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


# ---- Cores ----------------------------------------------------------------------------------------------------------


def granted_cores(root: Path = Path("/")) -> int:
    """Number of CPU cores that this process may use: those of its affinity, but at most its cgroups' quota."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min([bound, *_quotas(root)])))


def _quotas(root: Path) -> Iterator[float]:
    """The quota in CPU cores of each of the process's cgroups, of version 1 or 2, and of their parents."""
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return  # No cgroups, as on macOS.
    for _, controllers, path in (line.split(":", 2) for line in groups):
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        # In a container the group may be mounted as the root: then its path doesn't exist, but `mount` does.
        group = mount / path.strip("/")
        for folder in [group, *(parent for parent in group.parents if parent.is_relative_to(mount))]:
            yield from _quota(folder)


def _quota(folder: Path) -> Iterator[float]:
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
    except OSError:
        return
    if quota != "max" and int(quota) > 0:
        yield int(quota) / int(period)
