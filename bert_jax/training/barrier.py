"""Where the processes of a run wait for each other to have written their parts of a checkpoint."""

import sys
import threading
import time

import jax
import orbax.checkpoint as ocp

# Seconds for a supervisor to end this process, where another one is gone: that one's tells why.
GONE = 30.0


def barrier(*, key: str, timeout_ms: int) -> None:
    """Waits for the run's other processes.

    Where an error is on its way in Orbax's own thread, as of a part that couldn't be written, they wait for this
    process elsewhere, and both would for 20 minutes: then it goes its way at once.
    """
    error = sys.exc_info()[1]
    if error is not None and threading.current_thread() is not threading.main_thread():
        raise error
    try:
        ocp.multihost.get_barrier_sync_fn()(key=key, timeout_ms=timeout_ms)
    except jax.errors.JaxRuntimeError:
        time.sleep(GONE)
        raise
