"""The signals that end a run early: it stops between two batches, all of its processes between the same ones."""

import signal
import threading

import jax
from jax.experimental import multihost_utils


class Stopped(Exception):
    """A signal came during an evaluation, which then has no result."""


class Interrupt:
    """Turns the first SIGINT or SIGTERM into a wish to stop after the batch; a second one acts as ever.

    Of several processes all stop after the same batch, when SIGTERM came to one: JAX has a handler for that.
    """

    def __init__(self):
        self.signal: int | None = None
        """The one that came."""
        self._asked = 0

    def __enter__(self):
        self._before = {}
        main = threading.current_thread() is threading.main_thread()  # Python allows it nowhere else.
        if main and jax.process_count() == 1:
            self._before = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def came(self) -> bool:
        """Whether to stop now. To be asked after each batch, of training and evaluation alike, by all processes.

        The processes agree on one of these calls by its number, so it counts the calls and not the steps.
        """
        self._asked += 1
        if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(self._asked):
            self.signal = signal.SIGTERM
        return self.signal is not None

    def check(self) -> None:
        """`came`, for an evaluation: raises `Stopped`."""
        if self.came():
            raise Stopped

    def _note(self, number, _):
        self.signal = number
        self._restore()

    def __exit__(self, *_):
        self._restore()

    def _restore(self):
        for number, handler in self._before.items():
            signal.signal(number, handler)
