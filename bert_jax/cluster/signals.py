"""How SIGINT and SIGTERM end a command, whatever it is doing."""

import contextlib
import math
import os
import signal
import socket
import sys
import threading
import time

ENDING = (signal.SIGINT, signal.SIGTERM)
# Within these seconds a signal that comes again counts as the same one: a terminal sends it, and a parent passes it on.
SAME = 1.0
# Seconds between two tries to end, and until the process ends without cleaning up.
AGAIN, MOST = 1.0, 10.0


class Stopped(Exception):
    """A signal stopped a run, which has saved, or an evaluation, which has no result."""

    def __init__(self, number: int):
        self.number = number


class Interrupted(KeyboardInterrupt):
    """What a signal raises. A class of its own: if KeyboardInterrupt leaves an `exec`, Python ends itself by SIGINT."""


class Repeats:
    """Tells a second signal from one that arrives twice."""

    def __init__(self):
        self._last: float | None = None

    def is_repeat(self) -> bool:
        """Whether the signal that has just come is the one before, once more. Call it at each signal."""
        now = time.monotonic()
        if self._last is not None and now - self._last < SAME:
            return True
        self._last = now
        return False


class Ending(contextlib.AbstractContextManager):
    """The first signal ends the block with `Interrupted`, after its cleaning up; a second one ends the process.

    What a signal handler raises is lost if Python was in a callback of its garbage collector or in a destructor, so it
    is raised again until it takes effect. And no handler is called while the main thread is in C++, as when it compiles
    for minutes: then, or if cleaning up takes too long, another thread ends the process. A block within this one may
    set handlers of its own; then only the second signal is handled here.
    """

    def __init__(self):
        self.number: int | None = None
        """The signal that ended the block."""

    def __enter__(self):
        self._before = {}
        if threading.current_thread() is threading.main_thread():  # Python allows it nowhere else.
            reader, self._writer = socket.socketpair()
            self._writer.setblocking(False)
            self._before_fd = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
            self._hooks = sys.unraisablehook, sys.excepthook
            sys.unraisablehook, sys.excepthook = self._lost, self._printed
            handlers = {**dict.fromkeys(ENDING, self._end), signal.SIGALRM: self._raise}
            self._before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
            threading.Thread(target=self._watch, args=(reader,), daemon=True).start()
        return self

    def __exit__(self, _, error, __):
        if self._before:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in self._before.items():
                signal.signal(number, handler or signal.SIG_DFL)
            # Hooks that were set after these stay in place.
            if sys.unraisablehook == self._lost:
                sys.unraisablehook = self._hooks[0]
            if sys.excepthook == self._printed:
                sys.excepthook = self._hooks[1]
            signal.set_wakeup_fd(self._before_fd)
            self._writer.close()
        if self.number is not None and isinstance(error, BaseException) and not isinstance(error, KeyboardInterrupt):
            raise Interrupted from error  # Something on the way has turned it into another error.

    def _end(self, number: int, _) -> None:
        if self.number is None:
            self.number = number
            signal.setitimer(signal.ITIMER_REAL, AGAIN, AGAIN)
            self._raise()

    def _raise(self, *_) -> None:
        error = sys.exc_info()[1]
        while error is not None and not isinstance(error, KeyboardInterrupt):
            error = error.__context__
        if error is None:  # Otherwise it has taken effect, and the block is cleaning up.
            raise Interrupted

    def _lost(self, unraisable) -> None:
        """Python calls this hook with an exception that can't propagate, which it would print."""
        if not isinstance(unraisable.exc_value, Interrupted):
            self._hooks[0](unraisable)

    def _printed(self, kind, error, trace) -> None:
        """The same for an exception that C code prints, as when it imports a module."""
        if not isinstance(error, Interrupted):
            self._hooks[1](kind, error, trace)

    def _watch(self, reader: socket.socket) -> None:
        """Reads the signals' numbers, which Python writes as signals come, whatever the main thread is doing."""
        first, deadline, repeats = 0, math.inf, Repeats()
        with reader:
            while (left := deadline - time.monotonic()) > 0:
                reader.settimeout(min(left, threading.TIMEOUT_MAX))
                try:
                    numbers = reader.recv(1)
                except TimeoutError:
                    continue
                if not numbers:
                    return
                if numbers[0] not in ENDING or repeats.is_repeat():
                    continue
                if first:
                    break
                first = numbers[0]
                if signal.getsignal(first) == self._end:
                    deadline = time.monotonic() + MOST
        os.write(2, b"\nbert-jax: ended without cleaning up\n")
        os._exit(128 + first)
