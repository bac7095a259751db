"""`text.NgramModel`: ARPA files read, probabilities backed off by hand, arrays for a search."""

import gzip
import itertools
import math
import random
from pathlib import Path

import numpy as np
import pytest

from seqkit import ops
from seqkit.errors import InputError
from seqkit.text import NgramModel
from seqkit.text import ngram as module
from seqkit.text.kneser_ney import kneser_ney

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


draw = random.Random(3)
TEXT = [" ".join(draw.choices("abcdef", [9, 5, 3, 2, 1, 1], k=draw.randrange(12))) for _ in range(80)]
UNSEEN = [" ".join(draw.choices("abcdefxy", k=draw.randrange(12))) for _ in range(40)]


def walked(model: NgramModel, sentence: list[str]) -> list[float]:
    """The scores of a sentence, found arc by arc."""
    state, scores = model.start, []
    for word in [*sentence, "</s>"]:
        score, state = model.follow(state, model.ids.get(word, model.unknown))
        scores.append(score)
    return scores


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


# ---- models of a text ----


@pytest.mark.parametrize(("order", "prune"), [(1, [0]), (2, [0]), (4, [0]), (4, [0, 0, 1])])
def test_ngram_model_scores_as_its_automaton_does(order: int, prune: list[int]) -> None:
    model = kneser_ney(TEXT, order=order, prune=prune).model
    assert any(unknown not in model.ids for line in UNSEEN for unknown in line.split())
    automaton = ops.BackoffAutomaton(**model.automaton())
    for line in TEXT + UNSEEN:
        scores = model.score(line.split())
        assert walked(model, line.split()) == pytest.approx(scores, abs=1e-5)
        state, found = automaton.start, []
        for word in line.split():
            score, state = automaton.follow(state, model.ids.get(word, model.unknown))
            found.append(score)
        assert [*found, automaton.end(state)] == pytest.approx(scores, abs=1e-5)


def test_ngram_model_without_some_shorter_ngrams() -> None:
    """Files of pruned models may lack the beginning of an n-gram, its end, or both."""
    grams = {("a", "b", "a"): (-0.1, 0.0), ("b", "b", "a"): (-0.2, 0.0), ("b", "a", "a"): (-0.4, 0.0)}
    model = NgramModel(
        [
            {("<s>",): (-9.0, -0.5), ("</s>",): (-2.0, 0.0), ("a",): (-1.0, -0.25), ("b",): (-1.5, -0.125)},
            {("b", "b"): (-0.75, -1.0)},
            grams,
        ]
    )
    assert model.n_ngrams == [5, 3, 3]  # the beginnings `a b` and `b a` are put in
    scores = {(*gram[:-2], gram[-2], gram[-1]): logp for gram, (logp, _) in grams.items()}
    for gram in itertools.product("ab", repeat=3):
        *_, found = model.score(gram, begin=False, end=False)
        backed_off = {"a": -1.0, "b": -1.5}[gram[2]] + {"a": -0.25, "b": -0.125}[gram[1]]
        if gram[1:] == ("b", "b"):
            backed_off = -0.75
        if gram[:2] == ("b", "b"):
            backed_off -= 1.0
        assert found == pytest.approx(scores.get(gram, backed_off)), gram
    for sentence in itertools.product("ab", repeat=5):
        assert walked(model, list(sentence)) == pytest.approx(model.score(sentence)), sentence
    assert model.distribution([model.ids["b"], model.ids["b"]])[model.ids["b"]] == pytest.approx(-1.75)


@pytest.mark.parametrize("unit", ["word", "char"])
@pytest.mark.parametrize("name", ["m.arpa", "m.arpa.gz"])
def test_ngram_model_is_read_as_it_was_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, unit: str
) -> None:
    model = kneser_ney(TEXT, order=4, unit=unit).model
    model.save(tmp_path / name)
    back = NgramModel.from_arpa(tmp_path / name)
    assert (back.words, back.unit, back.n_ngrams) == (model.words, unit, model.n_ngrams)
    for mine, its in zip(model.levels, back.levels, strict=True):
        assert np.array_equal(mine.keys, its.keys)
        np.testing.assert_allclose(its.log_probs, mine.log_probs, atol=2e-6)
        np.testing.assert_allclose(its.backoffs, mine.backoffs, atol=2e-6)
    content = (tmp_path / name).read_bytes()
    monkeypatch.setattr(module, "BLOCK", 7)
    model.save(tmp_path / name)
    assert (tmp_path / name).read_bytes() == content  # whatever the blocks are; packed files hold no time
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("block", [3, 1 << 17])
def test_ngram_model_evaluates_a_text(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(module, "BLOCK", block)
    model = kneser_ney(TEXT, order=4).model
    found = model.evaluate(UNSEEN)
    scores = [model.score(line.split()) for line in UNSEEN]
    words = [word for line in UNSEEN for word in line.split()]
    unknown = [
        score for line, row in zip(UNSEEN, scores, strict=True)
        for word, score in zip(line.split(), row[:-1], strict=True) if word not in model.ids
    ]  # fmt: skip
    total = sum(map(sum, scores))
    assert (found.sentences, found.symbols, found.unknown) == (40, len(words), len(unknown))
    assert found.characters == sum(len(line) + 1 for line in UNSEEN)
    assert found.log_prob == pytest.approx(total)
    assert found.perplexity == pytest.approx(math.exp(-total / (len(words) + 40)))
    known = len(words) - len(unknown) + 40
    assert found.perplexity_of_known == pytest.approx(math.exp((sum(unknown) - total) / known))
    assert found.bits_per_character == pytest.approx(-total / math.log(2) / found.characters)
    of_characters = kneser_ney(TEXT, order=4, unit="char").model.evaluate(UNSEEN)
    assert of_characters.characters == found.characters
    with pytest.raises(InputError, match="text must have a line, got none"):
        model.evaluate([])
    with pytest.raises(InputError, match="model must have <s> among its words"):
        NgramModel([{("a",): (-1.0, 0.0)}]).evaluate(["a"])


def test_ngram_model_distribution_is_that_of_the_scores() -> None:
    model = kneser_ney(TEXT, order=3).model
    for line in TEXT[:10]:
        numbers = [model.ids[word] for word in ("<s>", *line.split(), "</s>")]
        for place, score in enumerate(model.score(line.split()), start=1):
            assert model.distribution(numbers[:place])[numbers[place]] == pytest.approx(score)


def test_ngram_model_samples_follow_the_distribution() -> None:
    model = kneser_ney(TEXT, order=3).model
    drawn = list(model.sample(2000, seed=1))
    assert drawn == list(model.sample(2000, seed=1))
    assert drawn[:5] != list(model.sample(5, seed=2))
    first = np.exp(model.distribution([model.ids["<s>"]]))
    share = sum(sentence[:1] == ["a"] for sentence in drawn) / 2000
    assert share == pytest.approx(first[model.ids["a"]], abs=0.03)
    assert all(not {"<unk>", "<s>", "</s>"} & {*sentence} for sentence in drawn)
    assert max(map(len, model.sample(50, max_symbols=2))) == 2
    best, again = model.sample(2, temperature=0.0)
    assert best == again
    assert len({*map(tuple, model.sample(300, temperature=0.1))}) < len({*map(tuple, model.sample(300))})
    for options in ({"n": -1}, {"temperature": math.nan}, {"max_symbols": 0}):
        with pytest.raises(InputError, match="must be at least"):
            model.sample(**{"n": 1, **options})
