"""Lines in, translations out, in order, whatever is in the lines.

A reader thread fills a bounded queue; whatever has arrived is translated together. That a translation does not depend
on its batch is what lets a slow writer get its answers at once and a fast one its throughput, with the same bytes.
"""

from __future__ import annotations

import contextlib
import math
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple, TextIO

from seqkit.atomic import atomic_file
from seqkit.decode.options import BeamOptions
from seqkit.errors import InputError
from seqkit.tasks.translator import Translation, Translator
from seqkit.text.corpus import open_bytes

BUFFERED_LINES = 2000
BYTES_PER_TOKEN = 64  # a line longer than this many bytes a token is not worth tokenizing to learn that it is too long


class Answer(NamedTuple):
    """One input line, counted from 1, and its translation; None where it has none."""

    number: int
    text: str
    translation: Translation | None


def translated_lines(
    translator: Translator,
    path: str,
    options: BeamOptions,
    *,
    batch_tokens: int,
    batch_size: int | None,
    max_source_tokens: int,
    warn: Callable[[str], None],
) -> Iterator[list[Answer]]:
    """The answers to the lines of a file or of stdin (`-`), as many at a time as have arrived."""
    if max_source_tokens < 1:
        raise InputError(f"--max-source-tokens: the count must be at least 1, got {max_source_tokens}")
    max_source_tokens = min(max_source_tokens, translator.max_positions)
    for lines in _arrived(path, max_bytes=max_source_tokens * BYTES_PER_TOKEN):
        texts: dict[int, str] = {}
        answers = {number: Answer(number, "", None) for number, _ in lines}
        for number, raw in lines:
            text = _readable(translator, number, raw, max_source_tokens, warn)
            if text is not None:
                texts[number] = text
        found = translator.translate(list(texts.values()), options, batch_tokens=batch_tokens, batch_size=batch_size)
        for number, translation in zip(texts, found, strict=True):
            best = translation.hypotheses[0] if translation.hypotheses else None
            if best is not None and not math.isfinite(best.score):
                warn(f"line {number}: the model gives it no finite score")
            answers[number] = Answer(number, texts[number], translation if best is not None else None)
        yield list(answers.values())


def readable_lines(path: str, *, max_bytes: int, warn: Callable[[str], None]) -> Iterator[list[tuple[int, str | None]]]:
    """The lines of a file or of stdin (`-`) with their numbers, as many at a time as have arrived.

    A line that is longer than `max_bytes` or not UTF-8 is None, and a warning.
    """
    if max_bytes < 1:
        raise InputError(f"--max-bytes: the count must be at least 1, got {max_bytes}")
    for lines in _arrived(path, max_bytes=max_bytes):
        found: list[tuple[int, str | None]] = []
        for number, raw in lines:
            text = None
            if raw is None:
                warn(f"line {number}: longer than {max_bytes:,} bytes")
            else:
                try:
                    text = raw.decode("utf-8")
                except UnicodeDecodeError as error:
                    warn(f"line {number}: not UTF-8 at byte {error.start + 1}")
            found.append((number, text))
        yield found


def _readable(
    translator: Translator, number: int, raw: bytes | None, limit: int, warn: Callable[[str], None]
) -> str | None:
    """The text of a line; None, and a warning, where it cannot be translated."""
    if raw is None:
        warn(f"line {number}: longer than {limit} tokens; not translated")
        return None
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        warn(f"line {number}: not UTF-8 at byte {error.start + 1}; not translated")
        return None
    length = len(translator.encode(text))
    if length > limit:
        warn(
            f"line {number}: {length} tokens, at most {limit} are translated (--max-source-tokens, or the model's own)"
        )
        return None
    return text


def _arrived(path: str, *, max_bytes: int) -> Iterator[list[tuple[int, bytes | None]]]:
    """Numbered lines, all that wait at a time; a line over `max_bytes` comes as None."""
    waiting: queue.Queue[tuple[int, bytes | None] | BaseException | None] = queue.Queue(BUFFERED_LINES)

    def read() -> None:
        # The thread's own file object: at exit Python locks sys.stdin, which a blocked reader of it would hold.
        try:
            with _open_input(path) as stream:
                for number, line in enumerate(_split(stream, max_bytes), start=1):
                    waiting.put((number, line))
            waiting.put(None)
        except BaseException as error:
            waiting.put(error)

    threading.Thread(target=read, daemon=True, name="seqkit-reader").start()
    end: BaseException | None = None
    more = True
    while more:
        items = [waiting.get()]
        with contextlib.suppress(queue.Empty):
            while len(items) < BUFFERED_LINES:
                items.append(waiting.get_nowait())
        lines = []
        for item in items:
            if isinstance(item, tuple):
                lines.append(item)
            else:
                more, end = False, item
        if lines:
            yield lines
    if end is not None:
        raise end


def _split(stream: IO[bytes], max_bytes: int) -> Iterator[bytes | None]:
    """Lines without their newline and one carriage return before it; None in place of a line over `max_bytes`."""
    while line := stream.readline(max_bytes + 2):
        cut = len(line) == max_bytes + 2 and not line.endswith(b"\n")
        too_long = cut or len(line.removesuffix(b"\n").removesuffix(b"\r")) > max_bytes
        while too_long and line and not line.endswith(b"\n"):
            line = stream.readline(1 << 20)
        yield None if too_long else line.removesuffix(b"\n").removesuffix(b"\r")


def _open_input(path: str) -> contextlib.AbstractContextManager[IO[bytes]]:
    if path == "-":
        if sys.stdin is None:  # `<&-` in a shell
            raise InputError("stdin: the input must be open, got a closed one")
        return open(sys.stdin.fileno(), "rb", closefd=False)
    try:
        return open_bytes(path)
    except OSError as error:
        raise InputError(f"{path}: the input must be a readable file, got: {error.strerror}") from None


@contextlib.contextmanager
def open_output(path: str) -> Iterator[TextIO]:
    """Text output with newline bytes: stdout for `-`, else a file that is there when it is whole."""
    if path == "-":
        sys.stdout.reconfigure(encoding="utf-8", errors="replace", newline="\n")  # type: ignore[union-attr]
        yield sys.stdout
        return
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
        yield file
