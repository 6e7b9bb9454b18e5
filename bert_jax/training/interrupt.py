"""The signals that end a run early: it stops between two batches, all of its processes between the same ones."""

import signal
import threading
from typing import Any

import jax
from jax.experimental import multihost_utils

from bert_jax.cluster.signals import ENDING, Repeats, Stopped


class Interrupt:
    """Turns the first SIGINT or SIGTERM into a wish to stop after the batch; a second one acts as ever.

    So does one that came after the last batch, once the block has ended. Of several processes all stop after the same
    batch, when SIGTERM came to one: JAX has a handler for that.
    """

    def __init__(self):
        self.signal: int | None = None
        """The one that came."""
        self._asked, self._told, self._repeats = 0, False, Repeats()

    def __enter__(self):
        self._before: dict[int, Any] = {}
        main = threading.current_thread() is threading.main_thread()  # Python allows it nowhere else.
        if main and jax.process_count() == 1:
            self._before = {s: signal.signal(s, self._note) for s in ENDING}
        return self

    def came(self) -> bool:
        """Whether to stop now. To be asked after each batch, of training and evaluation alike, by all processes.

        The processes agree on one of these calls by its number, so it counts the calls and not the steps.
        """
        self._asked += 1
        if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(self._asked):
            self.signal = signal.SIGTERM
        self._told = self.signal is not None
        return self._told

    def check(self) -> None:
        """`came`, for an evaluation: raises `Stopped`."""
        if self.came() and self.signal is not None:
            raise Stopped(self.signal)

    def _note(self, number, _):
        if self._repeats.is_one():
            return
        if self.signal is not None:
            self._restore()
            self._pass_on(self.signal)
        self.signal = number

    def __exit__(self, _, error, __):
        self._restore()
        if self._before and self.signal is not None and not self._told and error is None:
            self._pass_on(self.signal)

    def _restore(self):
        for number, handler in self._before.items():
            signal.signal(number, handler or signal.SIG_DFL)

    def _pass_on(self, number: int) -> None:
        """To whom the signal would have gone. Not sent anew, which would make it a second one."""
        handler = self._before[number]
        if callable(handler):
            handler(number, None)
        else:
            signal.raise_signal(number)
