"""From frames to text: tokenizers of words, characters and subwords, language models of words and characters."""

import math
from pathlib import Path

import pytest
import torch

from seqkit.errors import InputError
from seqkit.tasks.ctc_decoder import CTCDecoder, CTCSearchOptions, Decoded
from seqkit.text.ngram import NgramModel
from seqkit.text.tokenizer import CharTokenizer, SentencePieceTokenizer, Tokenizer, WordTokenizer

WORDS = WordTokenizer.train(["one two three"])
LETTERS = CharTokenizer.train(["no now nine"])


def frames(tokenizer: Tokenizer, rows: list[dict[str, float]]) -> torch.Tensor:
    """Log-probabilities; what is not named has next to none, and `` is the blank."""
    probs = torch.full((len(rows), tokenizer.vocab_size), 1e-6, dtype=torch.float64)
    for row, given in zip(probs, rows, strict=True):
        for token, p in given.items():
            row[tokenizer.encode(token)[0] if token else 0] = p
    return (probs / probs.sum(1, keepdim=True)).log().float()


def bigrams(path: Path, likely: tuple[str, ...], *, unit: str = "word") -> str:
    """A model in which `likely` is a whole sentence."""
    words = {word: (math.log(0.1), -1.0) for word in ("<unk>", "<s>", "</s>", *likely, "other")}
    pairs = {pair: (math.log(0.9), 0.0) for pair in zip(("<s>", *likely), (*likely, "</s>"), strict=True)}
    model = NgramModel([{(word,): value for word, value in words.items()}, pairs])
    model.unit = unit
    model.save(path)
    return str(path)


@pytest.mark.parametrize("beam", [0, 8])
def test_labels_and_their_frames_are_found(beam: int) -> None:
    decoder = CTCDecoder(WORDS, CTCSearchOptions(beam_size=beam))
    given = frames(WORDS, [{"": 1}, {"one": 1}, {"one": 1}, {"": 1}, {"one": 1}, {"two": 1}])
    found = decoder.decode(given)
    assert WORDS.decode(found.labels) == "one one two"
    assert found.times == [1, 4, 5]
    assert found.score == pytest.approx(0.0, abs=1e-3)
    assert decoder.words(found) == [("one", 1), ("one", 4), ("two", 5)]
    assert decoder.decode(given[:0]).labels == []


def test_begin_and_end_symbols_are_never_labels() -> None:
    given = frames(WORDS, [{"one": 0.4}])
    given[0, [WORDS.bos_id, WORDS.eos_id]] = 0.0
    for beam in (0, 4):
        assert CTCDecoder(WORDS, CTCSearchOptions(beam_size=beam)).decode(given).labels == WORDS.encode("one")


def test_a_model_of_words_decides_between_words(tmp_path: Path) -> None:
    given = frames(WORDS, [{"one": 0.55, "two": 0.45}, {"": 1}])
    plain = CTCDecoder(WORDS, CTCSearchOptions(beam_size=8)).decode(given)
    assert WORDS.decode(plain.labels) == "one"
    lm = bigrams(tmp_path / "lm.arpa", ("two",))
    helped = CTCDecoder(WORDS, CTCSearchOptions(beam_size=8, lm=lm, lm_weight=1.0)).decode(given)
    assert WORDS.decode(helped.labels) == "two"


@pytest.mark.parametrize("unit", ["word", "char"])
def test_models_of_words_and_of_characters_decide_between_letters(tmp_path: Path, unit: str) -> None:
    given = frames(LETTERS, [{"n": 1}, {"o": 1}, {"w": 0.4, "": 0.6}])
    assert LETTERS.decode(CTCDecoder(LETTERS, CTCSearchOptions(beam_size=8)).decode(given).labels) == "no"
    lm = bigrams(tmp_path / "lm.arpa", ("now",) if unit == "word" else ("n", "o", "w"), unit=unit)
    options = CTCSearchOptions(beam_size=8, lm=lm, lm_weight=1.0)
    assert LETTERS.decode(CTCDecoder(LETTERS, options).decode(given).labels) == "now"


@pytest.mark.parametrize("tokenizer", [WORDS, LETTERS])
def test_hot_words_are_likelier(tokenizer: Tokenizer) -> None:
    if tokenizer is WORDS:
        given, hot = frames(WORDS, [{"one": 0.6, "two": 0.4}]), "two"
    else:
        given, hot = frames(LETTERS, [{"n": 1}, {"o": 1}, {"w": 0.4, "": 0.6}]), "now"
    options = CTCSearchOptions(beam_size=8)
    assert tokenizer.decode(CTCDecoder(tokenizer, options).decode(given).labels) != hot
    assert tokenizer.decode(CTCDecoder(tokenizer, options, [hot]).decode(given).labels) == hot


def test_words_begin_behind_spaces_and_at_subwords() -> None:
    decoded = Decoded(LETTERS.encode("no  now"), [0, 3, 4, 5, 7, 8, 9], 0.0)
    assert CTCDecoder(LETTERS, CTCSearchOptions()).words(decoded) == [("no", 0), ("now", 7)]
    marks = WordTokenizer.train(["well, yes"])
    decoded = Decoded(marks.encode("well, yes"), [1, 2, 3], 0.0)
    assert CTCDecoder(marks, CTCSearchOptions()).words(decoded) == [("well,", 1), ("yes", 3)]
    pieces = SentencePieceTokenizer.train(["one two three four five six"] * 5, vocab_size=24, model_type="bpe")
    labels = pieces.encode("two six")
    found = CTCDecoder(pieces, CTCSearchOptions()).words(Decoded(labels, list(range(len(labels))), 0.0))
    assert [word for word, _ in found] == ["two", "six"]
    assert found[0][1] == 0


@pytest.mark.parametrize(
    ("options", "hot", "tokenizer", "sentence"),
    [
        ({"lm": "LM"}, [], WORDS, "`beam_size` must be at least 1 to ask a language model, got 0"),
        ({}, ["one"], WORDS, "`beam_size` must be at least 1 to look for hot words, got 0"),
        ({"beam_size": 1}, ["four"], WORDS, "a phrase must be made of labels that the model knows, got 'four'"),
        ({"beam_size": 1}, [""], WORDS, "a phrase must be made of labels that the model knows, got ''"),
        ({"beam_size": -1}, [], WORDS, "`beam_size` must be at least 0, got -1"),
        ({"lm_weight": -1.0}, [], WORDS, "`lm_weight` must be finite, and a weight at least 0, got -1.0"),
        ({"beam_size": 1, "lm": "CHARS"}, [], WORDS, "must be a model of words, got one of unit char"),
        ({"beam_size": 1, "lm": "LM"}, [], CharTokenizer.train(["ab"]), "a model of characters where no label is a sp"),
        ({"beam_size": 1, "lm": "none"}, [], WORDS, "none"),
    ],
)
def test_what_is_wrong_is_told(
    tmp_path: Path, options: dict[str, object], hot: list[str], tokenizer: Tokenizer, sentence: str
) -> None:
    lm = {"LM": bigrams(tmp_path / "lm.arpa", ("two",)), "CHARS": bigrams(tmp_path / "c.arpa", ("t",), unit="char")}
    given = {name: lm.get(str(value), value) for name, value in options.items()}
    with pytest.raises(InputError, match=sentence):
        CTCDecoder(tokenizer, CTCSearchOptions(**given), hot)  # type: ignore[arg-type]
