from pathlib import Path

import pytest

from seqkit.errors import InputError
from seqkit.text.vocab import Vocab

HARD = [
    "a\tb",
    "\n",
    "\r",
    "\\",
    "\\t",
    "\\u0041",
    "",
    " ",
    "\0",
    "\x85",
    "\u2028",
    "\ud800",
    "￭,",
    "é",
    "e\u0301",
    "😀",
]


def test_vocab_build_ranks_by_count_then_code_point() -> None:
    vocab = Vocab.build([["b", "d", "c"], ["c", "b"], ["c", "a"]])
    assert vocab.tokens == ("<pad>", "<unk>", "<s>", "</s>", "c", "b", "a", "d")
    assert vocab.counts == (0, 0, 0, 0, 3, 2, 1, 1)
    assert (vocab.pad_id, vocab.unk_id, vocab.bos_id, vocab.eos_id) == (0, 1, 2, 3)
    assert len(vocab) == 8


def test_vocab_build_cuts_by_count_and_by_size() -> None:
    lists = [["b", "a", "c"], ["c", "b"], ["c", "d"]]
    assert Vocab.build(lists, min_count=2).tokens[4:] == ("c", "b")
    assert Vocab.build(lists, max_size=5).tokens[4:] == ("c",)
    assert len(Vocab.build(lists, max_size=4)) == 4
    with pytest.raises(InputError, match="max_size must be at least 4, got 3"):
        Vocab.build(lists, max_size=3)


def test_vocab_encode_gives_no_special_to_a_text() -> None:
    vocab = Vocab.build([["</s>", "a", "<pad>"]])
    assert vocab.tokens[4:] == ("a",)
    assert vocab.encode(["a", "</s>", "<s>", "zzz"]) == [4, 1, 1, 1]
    assert vocab.id("</s>") == 3
    assert "a" in vocab
    assert "zzz" not in vocab
    assert vocab.decode([4, 3]) == ["a", "</s>"]


@pytest.mark.parametrize("index", [-1, 5])
def test_vocab_token_names_a_wrong_id(index: int) -> None:
    with pytest.raises(InputError, match=f"id must be from 0 to 4, got {index}"):
        Vocab(["a"]).token(index)


def test_vocab_rejects_repeats_specials_and_wrong_counts() -> None:
    with pytest.raises(InputError, match="got 'a' twice"):
        Vocab(["a", "a"])
    with pytest.raises(InputError, match="got '<s>' twice"):
        Vocab(["<s>"])
    with pytest.raises(InputError, match="counts must be one a token"):
        Vocab(["a"], [1, 2])


def test_vocab_save_and_load_round_trip_any_token(tmp_path: Path) -> None:
    vocab = Vocab(HARD, range(len(HARD)))
    vocab.save(tmp_path / "v.tsv")
    assert Vocab.load(tmp_path / "v.tsv") == vocab
    assert len((tmp_path / "v.tsv").read_text("utf-8").splitlines()) == len(vocab)  # for every reader's idea of a line


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<pad>\t0\n<unk>\t0\n", "first four lines must be"),
        (b"", "first four lines must be"),
        (b"<pad>\t0\n<unk>\t0\n<s>\t0\n</s>\t0\na\t1\nb", "cut short"),
        (b"<pad>\t0\n<unk>\t0\n<s>\t0\n</s>\t0\nab\n", "v.tsv:5: line must be a token, a tab and a count"),
        (b"<pad>\t0\n<unk>\t0\n<s>\t0\n</s>\t0\na\t-1\n", "v.tsv:5: line must be"),
        (b"<pad>\t0\n<unk>\t0\n<s>\t0\n</s>\t0\n\\q\t1\n", "v.tsv:5: escape must be"),
        (b"<pad>\t0\n\xff\t0\n", "must be UTF-8, got byte 8"),
    ],
)
def test_vocab_load_tells_what_is_wrong(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "v.tsv").write_bytes(content)
    with pytest.raises(InputError, match=message):
        Vocab.load(tmp_path / "v.tsv")


def test_vocab_load_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="file that can be read"):
        Vocab.load(tmp_path / "none.tsv")
