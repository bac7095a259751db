import lzma
from pathlib import Path

import pytest

from seqkit.errors import InputError
from seqkit.text.columns import TaggedSentence, read_columns


def test_sentences_end_at_blank_lines_and_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\n\nA\tO\nb\tB-x\r\n\n\nc\tO\n \t\nd\tI-x")
    assert read_columns(tmp_path / "a") == [
        TaggedSentence(["A", "b"], [["O", "B-x"]]), TaggedSentence(["c"], [["O"]]), TaggedSentence(["d"], [["I-x"]]),
    ]  # fmt: skip


def test_several_columns_may_lack_labels(tmp_path: Path) -> None:
    with lzma.open(tmp_path / "a.xz", "wb") as file:
        file.write("é\tO\tN\nb\t\t_\n".encode())
    assert read_columns(tmp_path / "a.xz") == [TaggedSentence(["é", "b"], [["O", "_"], ["N", "_"]])]


def test_files_are_read_one_after_the_other_and_do_not_run_together(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a\tO")
    (tmp_path / "b").write_text("b\tO")
    assert len(read_columns([tmp_path / "a", tmp_path / "b"])) == 2


def test_an_empty_file_has_no_sentence(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    assert read_columns(tmp_path / "a") == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a\tO\nb\n", "a:2: line must have a word, a tab and a label, got no tab"),
        ("a\tO\tx\n\nb\tO\n", "a:3: line must have 3 columns as the first one has, got 2"),
    ],
)
def test_wrong_lines_are_told(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "a").write_text(text)
    with pytest.raises(InputError, match=sentence):
        read_columns(tmp_path / "a")
