"""A native run on a thread of its own, watched from this one: its progress, its checkpoints, its interruption."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from seqkit.errors import InputError

TELL_EVERY = 0.2  # seconds


def watch(
    run: Callable[[], object],
    stop: Callable[[], object],
    *,
    finished: Callable[[], bool],
    tell: Callable[[], None],
    save: Callable[[], None] | None,
    every: float,
) -> None:
    """Lets `run` go on until it is `finished`.

    Args:
        run: trains from where the state is to the end, or until it is stopped; without the lock of Python.
        stop: asks it to return, with the state as it is.
        tell: called a few times a second, and at the end.
        save: keeps the state, every so many seconds, at the end and when this thread is interrupted.

    Raises:
        InputError: what `run` raised. KeyboardInterrupt: passed on, after the state was kept.
    """
    while not finished():
        errors: list[Exception] = []
        thread = threading.Thread(target=_caught, args=(run, errors), daemon=True)
        thread.start()
        due = time.monotonic() + every
        try:
            while thread.is_alive() and (save is None or time.monotonic() < due):
                thread.join(TELL_EVERY)
                if thread.is_alive():
                    tell()
        except BaseException:
            _end(thread, stop)
            if save is not None:
                save()
            raise
        _end(thread, stop)
        if errors:
            raise errors[0]
        if save is not None:
            save()
    tell()


def _caught(run: Callable[[], object], errors: list[Exception]) -> None:
    try:
        run()
    except InputError as error:
        errors.append(error)


def _end(thread: threading.Thread, stop: Callable[[], object]) -> None:
    while thread.is_alive():  # asked again: a run that only begins would forget it
        stop()
        thread.join(0.01)
