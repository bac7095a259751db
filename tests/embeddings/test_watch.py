"""The watching of a run: a plain Python loop stands for the native one."""

import threading
import time

import pytest

from seqkit.embeddings.watch import watch
from seqkit.errors import InputError


class Counting:
    """Counts to 30, a hundredth of a second each."""

    def __init__(self) -> None:
        self.count, self.stopped, self.saved, self.told = 0, False, [], []

    def run(self) -> None:
        self.stopped = False
        while self.count < 30 and not self.stopped:
            time.sleep(0.01)
            self.count += 1

    def stop(self) -> None:
        self.stopped = True

    def watch(self, *, tell=None, every=600.0) -> None:
        watch(
            self.run,
            self.stop,
            finished=lambda: self.count >= 30,
            tell=tell or (lambda: self.told.append(self.count)),
            save=lambda: self.saved.append(self.count),
            every=every,
        )


def test_a_run_is_told_of_and_kept_at_its_end() -> None:
    before, counting = threading.active_count(), Counting()
    counting.watch()
    assert counting.saved == [30]
    assert counting.told[-1] == 30
    assert threading.active_count() == before


def test_a_run_is_kept_now_and_then_and_goes_on() -> None:
    counting = Counting()
    counting.watch(every=0.05)
    assert len(counting.saved) > 1
    assert counting.saved == sorted(counting.saved)
    assert counting.saved[-1] == 30


def test_an_interrupted_run_is_stopped_and_kept() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    before, counting = threading.active_count(), Counting()
    with pytest.raises(KeyboardInterrupt):
        counting.watch(tell=interrupt)
    assert counting.saved == [counting.count]
    assert 0 < counting.count < 30
    assert threading.active_count() == before


def test_what_a_run_raises_is_raised_here() -> None:
    def fail() -> None:
        raise InputError("run: text must be there, got none")

    with pytest.raises(InputError, match="text must be there"):
        watch(fail, lambda: None, finished=lambda: False, tell=lambda: None, save=None, every=1.0)
