"""Processes that work on chunks side by side, with the results in the chunks' order."""

import multiprocessing
import multiprocessing.connection
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
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
    """`function(*arguments)` for each of the calls, in `workers` processes (None: one a core), each set up by `start`.

    Results come in the order of the calls; at most two calls a worker are under way.
    """
    workers = workers or os.cpu_count()
    # Spawned, not forked: the parent may hold the threads of JAX and TensorFlow.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _start, (start, start_arguments)) as pool:
        pending = deque()
        try:
            for arguments in calls:
                pending.append((arguments, pool.submit(function, *arguments)))
                if len(pending) >= 2 * workers:
                    done, future = pending.popleft()
                    yield done, future.result()
            for done, future in pending:
                yield done, future.result()
        except BrokenProcessPool:
            causes = "as by lack of memory (try --run.workers 1), or a script without if __name__ == '__main__'"
            raise InputError(f"a worker ended by itself, {causes}") from None
        finally:
            pool.shutdown(cancel_futures=True)


def _start(start: Callable[..., None] | None, arguments: tuple) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # The processes are the parallelism.
    if start:
        start(*arguments)


def _end_with_parent() -> None:
    """A parent that is killed can't end its workers."""
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)
