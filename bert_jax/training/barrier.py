"""Lets the processes of a run wait until all have written their parts of a checkpoint."""

import sys
import threading
import time

import jax
import orbax.checkpoint as ocp

# Seconds for the supervisor to end this process if another one is gone: the supervisor says which, and why.
GONE = 30.0


def barrier(*, key: str, timeout_ms: int) -> None:
    """Waits for the run's other processes.

    If Orbax's own thread is handling an error, such as a part that couldn't be written, the other processes wait for
    this one at another barrier, and all would wait for 20 minutes: so the error is raised at once.
    """
    error = sys.exc_info()[1]
    if error is not None and threading.current_thread() is not threading.main_thread():
        raise error
    try:
        ocp.multihost.get_barrier_sync_fn()(key=key, timeout_ms=timeout_ms)
    except jax.errors.JaxRuntimeError:
        time.sleep(GONE)
        raise
