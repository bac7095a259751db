"""`text.NgramModel`: ARPA files read, probabilities backed off by hand, arrays for a search."""

import gzip
import math
from pathlib import Path

import pytest

from seqkit import ops
from seqkit.errors import InputError
from seqkit.text import NgramModel

ARPA = """comment
\\data\\
ngram 1=5
ngram 2=3
ngram 3=1

\\1-grams:
-1.0\t<unk>
-99\t<s>\t-0.5
-0.7\t</s>
-0.4\ta\t-0.3
-0.6\tb\t-0.2

\\2-grams:
-0.2\t<s> a\t-0.1
-0.5\ta b
-0.9\tb </s>

\\3-grams:
-0.05\t<s> a b

\\end\\
"""


@pytest.fixture
def model(tmp_path: Path) -> NgramModel:
    (tmp_path / "lm.arpa").write_text(ARPA)
    return NgramModel.from_arpa(tmp_path / "lm.arpa")


def in_tens(scores: list[float]) -> list[float]:
    return [score / math.log(10) for score in scores]


def test_ngram_model_backs_off_as_katz_does(model: NgramModel) -> None:
    assert model.order == 3
    assert in_tens(model.score(["a", "b"])) == pytest.approx([-0.2, -0.05, -0.9])
    assert in_tens(model.score(["b", "a"])) == pytest.approx([-0.5 - 0.6, -0.2 - 0.4, -0.3 - 0.7])
    assert in_tens(model.score(["a", "a"], end=False)) == pytest.approx([-0.2, -0.1 - 0.3 - 0.4])
    assert in_tens(model.score(["a", "x", "b"], begin=False, end=False)) == pytest.approx([-0.4, -0.3 - 1.0, -0.6])
    assert in_tens(model.score([])) == pytest.approx([-0.5 - 0.7])


def test_ngram_model_hands_a_search_the_same_scores(model: NgramModel) -> None:
    automaton = ops.BackoffAutomaton(**model.automaton())
    for sentence in ([], ["a"], ["b", "a", "b"], ["x", "a", "b", "b"]):
        state, scores = automaton.start, []
        for word in sentence:
            score, state = automaton.follow(state, model.ids.get(word, model.unknown))
            scores.append(score)
        assert [*scores, automaton.end(state)] == pytest.approx(model.score(sentence))


def test_ngram_model_takes_the_labels_of_a_search(model: NgramModel) -> None:
    labels = [None, "b", "new", "a"]
    automaton = ops.BackoffAutomaton(**model.automaton(labels))
    assert automaton.n_symbols == 4
    for sentence in ([1], [3, 1], [2, 3, 1, 2], [3, 3, 1]):
        state, scores = automaton.start, []
        for label in sentence:
            score, state = automaton.follow(state, label)
            scores.append(score)
        assert [*scores, automaton.end(state)] == pytest.approx(model.score([str(labels[n]) for n in sentence]))
    with pytest.raises(InputError, match="labels must differ from each other, got 'a' twice"):
        model.automaton(["a", "b", "a"])


def test_ngram_model_reads_packed_files_and_adds_unknown(tmp_path: Path) -> None:
    path = tmp_path / "lm.arpa.gz"
    with gzip.open(path, "wt") as file:
        file.write("\\data\\\nngram 1=1\n\\1-grams:\n-0.5 a\n\\end\\\n")
    model = NgramModel.from_arpa(path)
    assert model.words == ("a", "<unk>")
    assert in_tens(model.score(["a", "b"])) == pytest.approx([-0.5, -100.0])


@pytest.mark.parametrize(
    ("was", "becomes", "rule"),
    [
        ("\\data\\", "data", r"got no line `\\data\\`"),
        ("ngram 2=3", "ngram 2=4", "there must be 4 2-grams as its head says, got 3"),
        ("ngram 2=3", "ngram 3=3", r"lm.arpa:4: the line must be `ngram 2=COUNT`"),
        ("\\1-grams:", "1-grams:", "the line must be `ngram ORDER=COUNT` or"),
        ("-0.5\ta b", "-0.5\ta", r"lm.arpa:16: a line must be a logarithm, 2 words and perhaps a back-off"),
        ("-0.5\ta b", "x\ta b", "a line must be a logarithm"),
        ("-0.5\ta b", "-0.5\t<s> a", "an n-gram must stand once, got '<s> a' twice"),
        ("-0.5\ta b", "-0.5\ta c", "an n-gram of order 2 must be 2 unigrams, got 'a c'"),
        ("-0.5\ta b", "0.5\ta b", "must have a log-probability"),
        ("\\3-grams:", "\\4-grams:", "the line must be `.3-grams:`, got"),
        ("\\end\\\n", "", r"the file must end with `.end.`, got its end in the 3-grams"),
    ],
)
def test_ngram_model_names_the_line_that_is_wrong(tmp_path: Path, was: str, becomes: str, rule: str) -> None:
    assert was in ARPA
    (tmp_path / "lm.arpa").write_text(ARPA.replace(was, becomes, 1))
    with pytest.raises(InputError, match=rule):
        NgramModel.from_arpa(tmp_path / "lm.arpa")


def test_ngram_model_of_a_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "lm.arpa").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "lm.arpa.gz").write_bytes(b"no")
    for name in ("lm.arpa", "lm.arpa.gz", "none.arpa"):
        with pytest.raises(InputError, match="the file must be readable UTF-8 text"):
            NgramModel.from_arpa(tmp_path / name)
    with pytest.raises(InputError, match="orders must hold unigrams, got none"):
        NgramModel([])


def test_ngram_model_reads_a_large_file(shared_data: Path) -> None:
    path = shared_data / "speech" / "ctc-fixtures" / "lm.arpa.xz"
    if not path.exists():
        pytest.skip("the CTC fixtures are not here")
    model = NgramModel.from_arpa(path)
    assert (model.order, len(model.words)) == (3, 200003)
    assert in_tens(model.score(["a"], begin=False, end=False)) == pytest.approx([-2.619969])
