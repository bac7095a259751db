import contextlib
import io
from pathlib import Path
from typing import Any

import pytest

from seqkit.cli.line_stream import Answer, open_output, readable_lines, translated_lines
from seqkit.decode.options import BeamOptions
from seqkit.errors import InputError
from seqkit.tasks.translator import Translator


@pytest.fixture(scope="module")
def translator(tiny_run: Path) -> Translator:
    return Translator.load(tiny_run)


def answers(translator: Translator, path: Path, *, limit: int = 1024) -> tuple[list[Answer], list[str]]:
    warnings: list[str] = []
    options = BeamOptions(beam_size=1, max_length=5)
    settings: dict[str, Any] = {"batch_tokens": 100, "batch_size": None, "max_source_tokens": limit}
    groups = translated_lines(translator, str(path), options, warn=warnings.append, **settings)
    return [answer for group in groups for answer in group], warnings


def test_answers_are_numbered_in_order_over_many_fillings_of_the_queue(
    translator: Translator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seqkit.cli.line_stream.BUFFERED_LINES", 3)
    texts = [" abcd"[number % 5] * (number % 4) for number in range(50)]
    (tmp_path / "in").write_text("".join(text + "\n" for text in texts))
    found, warnings = answers(translator, tmp_path / "in")
    assert [answer.number for answer in found] == list(range(1, 51))
    assert [answer.text for answer in found] == texts
    assert [answer.translation is not None for answer in found] == [bool(text.strip()) for text in texts]
    assert warnings == []


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
@pytest.mark.parametrize(("length", "fits"), [(63, True), (64, True), (65, False), (200, False)])
def test_a_line_is_bounded_by_its_bytes_without_its_end(
    translator: Translator, tmp_path: Path, end: bytes, length: int, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one token and 64 bytes for it, a long line is skipped to its own end and not further."""
    monkeypatch.setattr(translator, "encode", lambda line: [4])
    (tmp_path / "in").write_bytes(b"x" * length + end + (b"b\n" if end else b""))
    found, warnings = answers(translator, tmp_path / "in", limit=1)
    assert [answer.text for answer in found] == ["x" * length if fits else ""] + (["b"] if end else [])
    assert warnings == ([] if fits else ["line 1: longer than 1 tokens; not translated"])


def test_a_line_of_too_many_tokens_is_told_with_their_number(translator: Translator, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("aaaa\naaaaa\n")
    found, warnings = answers(translator, tmp_path / "in", limit=5)  # the end symbol counts
    assert [answer.translation is None for answer in found] == [False, True]
    assert len(warnings) == 1
    assert warnings[0].startswith("line 2: 6 tokens, at most 5 are translated")


def test_the_limit_of_learned_positions_holds(
    translator: Translator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Translator, "max_positions", 5)
    (tmp_path / "in").write_text("aaaa\naaaaa\n")
    found, warnings = answers(translator, tmp_path / "in")
    assert [answer.translation is None for answer in found] == [False, True]
    assert len(warnings) == 1


def test_an_error_of_the_reader_is_raised_here(translator: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(io.BufferedReader):
        def readline(self, size: int | None = -1, /) -> bytes:
            raise OSError("the disk is gone")

    with open(__file__, "rb", buffering=0) as raw, Broken(raw) as stream:
        monkeypatch.setattr("seqkit.cli.line_stream._open_input", lambda path: stream)
        with pytest.raises(OSError, match="the disk is gone"):
            answers(translator, Path("-"))


def test_a_closed_stdin_is_told(translator: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(InputError, match="stdin: the input must be open, got a closed one"):
        answers(translator, Path("-"))


def test_a_missing_file_is_named(translator: Translator, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none: the input must be a readable file, got: No such file or directory"):
        answers(translator, tmp_path / "none")


def test_output_has_newline_bytes_and_utf_8(tmp_path: Path) -> None:
    with open_output(str(tmp_path / "out")) as output:
        output.write("é\n\ud800\n")
    assert (tmp_path / "out").read_bytes() == "é\n?\n".encode()
    with contextlib.suppress(RuntimeError), open_output(str(tmp_path / "half")) as output:
        output.write("x\n")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_readable_lines_keep_their_numbers(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"a\r\n\n\xff\n" + b"x" * 9 + b"\nb")
    warnings: list[str] = []
    parts = readable_lines(str(tmp_path / "in"), max_bytes=8, warn=warnings.append)
    found = [line for lines in parts for line in lines]
    assert found == [(1, "a"), (2, ""), (3, None), (4, None), (5, "b")]
    assert warnings == ["line 3: not UTF-8 at byte 1", "line 4: longer than 8 bytes"]
    with pytest.raises(InputError, match="--max-bytes: the count must be at least 1, got 0"):
        next(readable_lines("-", max_bytes=0, warn=warnings.append))
