"""The signals that end a run early: it stops between two batches, and all its processes after the same batch."""

import signal
import threading
from typing import Any

import jax
from jax.experimental import multihost_utils

from bert_jax.cluster.signals import ENDING, Repeats, Stopped


class Interrupt:
    """Turns the first SIGINT or SIGTERM into a request to stop after the batch; a second one has its usual effect.

    A signal that comes after the last batch has its usual effect too, when the block ends. If SIGTERM comes to one of
    several processes, all stop after the same batch: JAX has a handler for that.
    """

    def __init__(self):
        self.signal: int | None = None
        """The signal that came, if any."""
        self._calls, self._reported, self._repeats = 0, False, Repeats()

    def __enter__(self):
        self._before: dict[int, Any] = {}
        main = threading.current_thread() is threading.main_thread()  # Python allows it nowhere else.
        if main and jax.process_count() == 1:
            self._before = {s: signal.signal(s, self._note) for s in ENDING}
        return self

    def should_stop(self) -> bool:
        """Whether to stop now. All processes call it after each batch, in training and in evaluation.

        The processes agree on one of these calls by its number, so it counts calls and not steps.
        """
        self._calls += 1
        if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(self._calls):
            self.signal = signal.SIGTERM
        self._reported = self.signal is not None
        return self._reported

    def check(self) -> None:
        """`should_stop` for an evaluation: raises `Stopped`."""
        if self.should_stop() and self.signal is not None:
            raise Stopped(self.signal)

    def _note(self, number, _):
        if self._repeats.is_repeat():
            return
        if self.signal is not None:
            self._restore()
            self._pass_on(self.signal)
        self.signal = number

    def __exit__(self, _, error, __):
        self._restore()
        if self._before and self.signal is not None and not self._reported and error is None:
            self._pass_on(self.signal)

    def _restore(self):
        for number, handler in self._before.items():
            signal.signal(number, handler or signal.SIG_DFL)

    def _pass_on(self, number: int) -> None:
        """Gives the signal to the handler from before the block. Sent again, it would count as a second signal."""
        handler = self._before[number]
        if callable(handler):
            handler(number, None)
        else:
            signal.raise_signal(number)
