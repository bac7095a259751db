"""`decode.CTCDecoder`: all alignments enumerated, with and without models, and what other decoders document.

The handwriting fixtures and their answers are those of github.com/githubharald/CTCDecoder (tests/test_real_example.py
and the README), the frames of speech those of pyctcdecode 0.5.0.
"""

import itertools
import json
import lzma
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from seqkit import ops
from seqkit.decode import CTCDecoder
from seqkit.errors import InputError
from seqkit.text import NgramModel

LABELS = ["", "a", "b", " "]
LN10 = math.log(10)


def frames(B: int, T: int, C: int = 4, *, scale: float = 1.5) -> Tensor:
    return (torch.randn(B, T, C, generator=torch.Generator().manual_seed(T)) * scale).double().log_softmax(dim=-1)


def enumerated(log_probs: Tensor) -> dict[str, float]:
    """The probability of each label sequence as a string, from all C^T alignments; the blank is 0."""
    probs, total = log_probs.exp().tolist(), defaultdict(float)
    for path in itertools.product(range(log_probs.shape[1]), repeat=log_probs.shape[0]):
        sequence = "".join(LABELS[label] for label, _ in itertools.groupby(path))
        total[sequence] += math.prod(probs[t][label] for t, label in enumerate(path))
    return dict(total)


def ranked(log_probs: Tensor, score: Any = lambda sequence: 0.0) -> list[tuple[str, float, float]]:
    """Each text with its score and its log-probability, best first; sequences that differ in spaces alone are added."""
    scores, probs = defaultdict(float), defaultdict(float)
    for sequence, p in enumerated(log_probs).items():
        if (gain := score(sequence)) > -math.inf:
            scores[" ".join(sequence.split())] += p * math.exp(gain)
            probs[" ".join(sequence.split())] += p
    return sorted(((text, math.log(scores[text]), math.log(probs[text])) for text in scores), key=lambda x: -x[1])


def check(decoder: CTCDecoder, log_probs: Tensor, wanted: Sequence[tuple[str, float, float]]) -> None:
    (found,) = decoder.beam_search(log_probs, beam_size=2000, n_best=2000)
    # Equal scores have no order.
    assert sorted(hypothesis.text for hypothesis in found) == sorted(text for text, *_ in wanted)
    truth = {text: (score, logp) for text, score, logp in wanted}
    for hypothesis in found:
        assert (hypothesis.score, hypothesis.logp) == pytest.approx(truth[hypothesis.text], rel=1e-6, abs=1e-6)
    assert [hypothesis.score for hypothesis in found] == sorted((x.score for x in found), reverse=True)


def bigrams(unigrams: dict[str, float], pairs: dict[tuple[str, str], float]) -> NgramModel:
    special = {"<unk>": -3.0, "<s>": -99.0, "</s>": -1.0}
    ones = {(symbol,): (logp, -0.3) for symbol, logp in (special | unigrams).items()}
    return NgramModel([ones, {pair: (logp, 0.0) for pair, logp in pairs.items()}])


def word_lm() -> NgramModel:
    return bigrams({"a": -0.7, "ab": -1.5}, {("<s>", "ab"): -0.2, ("ab", "a"): -0.1, ("a", "</s>"): -0.4})


def char_lm() -> NgramModel:
    return bigrams({"a": -0.7, "▁": -1.2}, {("<s>", "a"): -0.2, ("a", "▁"): -0.1, ("▁", "a"): -0.4})


@pytest.mark.parametrize("T", [0, 1, 2, 5])
def test_beam_search_finds_every_text_with_its_probability(T: int) -> None:
    log_probs = frames(1, T)
    check(CTCDecoder(LABELS), log_probs, ranked(log_probs[0]))


def test_beam_search_ranks_with_a_model_of_words() -> None:
    log_probs, lm = frames(1, 5), word_lm()

    def score(sequence: str) -> float:
        words = sequence.split()
        lacking = sum(word not in ("a", "ab") for word in words)
        return 0.7 * sum(lm.score(words)) + 0.4 * len(words) - 2.0 * lacking

    decoder = CTCDecoder(LABELS, lm=lm, alpha=0.7, beta=0.4, unknown_score=-2.0)
    check(decoder, log_probs, ranked(log_probs[0], score))


def test_beam_search_finds_words_of_the_lexicon_alone() -> None:
    log_probs, lexicon = frames(1, 5), ["a", "bb", "ba"]

    def score(sequence: str) -> float:
        return 0.0 if all(word in lexicon for word in sequence.split()) else -math.inf

    decoder = CTCDecoder(LABELS, lexicon=[*lexicon, "é", "a b", "", "a"])
    assert decoder.unspelled == ("é", "a b", "")
    check(decoder, log_probs, ranked(log_probs[0], score))


def test_beam_search_ranks_words_of_the_lexicon_with_a_model() -> None:
    log_probs, lexicon, lm = (
        frames(1, 5),
        ["a", "ba"],
        word_lm(),
    )  # the model has no `ba`: an unknown word without price

    def score(sequence: str) -> float:
        words = sequence.split()
        return 0.7 * sum(lm.score(words)) + 0.4 * len(words) if all(word in lexicon for word in words) else -math.inf

    check(CTCDecoder(LABELS, lm=lm, alpha=0.7, beta=0.4, lexicon=lexicon), log_probs, ranked(log_probs[0], score))


@pytest.mark.parametrize("lexicon", [None, ["a", "ab"]])
def test_beam_search_ranks_with_a_model_of_characters(lexicon: list[str] | None) -> None:
    log_probs, lm = frames(1, 5), char_lm()

    def score(sequence: str) -> float:
        allowed = lexicon is None or all(word in lexicon for word in sequence.split())
        return 0.7 * sum(lm.score(sequence.replace(" ", "▁"))) if allowed else -math.inf

    decoder = CTCDecoder(LABELS, lm=lm, lm_kind="char", alpha=0.7, lexicon=lexicon)
    check(decoder, log_probs, ranked(log_probs[0], score))


@pytest.mark.parametrize("hot_words", [{"ab": 3.0, "b a": 1.0}, ["ab"]])
def test_beam_search_prefers_hot_words(hot_words: dict[str, float] | list[str]) -> None:
    log_probs = frames(1, 5)
    scores = hot_words if isinstance(hot_words, dict) else {"ab": 2.0}

    def score(sequence: str) -> float:
        return sum(len(re.findall(rf"\b{phrase}\b", sequence)) * gain for phrase, gain in scores.items())

    check(CTCDecoder(LABELS, hot_words=hot_words, hot_word_score=2.0), log_probs, ranked(log_probs[0], score))


def test_symbols_of_the_model_are_no_words() -> None:
    labels = ["", "<", "s", ">", " "]
    log_probs = torch.eye(5)[None, [1, 2, 3]].mul(20.0).log_softmax(dim=-1)
    lm = bigrams({"s": -1.0}, {("<s>", "s"): -0.1})
    (best,) = CTCDecoder(labels, lm=lm).beam_search(log_probs)[0]
    assert best.text == "<s>"
    assert best.score - best.logp == pytest.approx(0.5 * sum(lm.score(["?"])) + 1.5 - 10.0, abs=1e-4)


def test_labels_without_a_space_spell_one_word() -> None:
    log_probs = frames(1, 4, 3)
    decoder = CTCDecoder(LABELS[:3])
    assert decoder.space is None
    (found,) = decoder.beam_search(log_probs, beam_size=100, n_best=100)
    truth = enumerated(log_probs[0])
    assert {x.text: x.logp for x in found} == pytest.approx({text: math.log(p) for text, p in truth.items()})
    assert not any(hypothesis.words for hypothesis in found)


def test_spans_are_of_the_best_alignment() -> None:
    log_probs = torch.full((1, 8, 4), 0.02)
    for t, label in enumerate([0, 1, 1, 0, 2, 3, 1, 0]):
        log_probs[0, t, label] = 0.94
    decoder = CTCDecoder(LABELS)
    (path,) = decoder.best_path(log_probs.log(), frame_seconds=0.5)
    ((searched,),) = decoder.beam_search(log_probs.log(), frame_seconds=0.5)
    for best in (path, searched):
        assert best.text == "ab a"
        assert [(token.text, token.begin, token.end) for token in best.tokens] == [
            ("a", 0.5, 1.5), ("b", 2.0, 2.5), (" ", 2.5, 3.0), ("a", 3.0, 3.5),
        ]  # fmt: skip
        assert [(word.text, word.begin, word.end) for word in best.words] == [("ab", 0.5, 2.5), ("a", 3.0, 3.5)]
        assert [token.confidence for token in best.tokens] == pytest.approx([0.94] * 4)


def test_best_path_merges_repeats_and_drops_blanks() -> None:
    log_probs = frames(2, 12).float()
    lengths = torch.tensor([12, 5])
    for b, found in enumerate(CTCDecoder(LABELS).best_path(log_probs, lengths)):
        best, path = log_probs[b, : lengths[b]].max(dim=-1)
        text = "".join(LABELS[label] for label, _ in itertools.groupby(path.tolist()))
        assert found.text == " ".join(text.split())
        assert found.logp == pytest.approx(float(best.sum()))


def test_a_sentence_does_not_see_batch_or_padding() -> None:
    log_probs, lengths = frames(3, 9), torch.tensor([9, 0, 4])
    for b, n in enumerate(lengths.tolist()):
        log_probs[b, n:] = math.nan
    decoder = CTCDecoder(LABELS, lm=word_lm())
    together = decoder.beam_search(log_probs, lengths, beam_size=20, n_best=20)
    assert [x.text for x in together[1]] == [""]
    for b, n in enumerate(lengths.tolist()):
        assert decoder.beam_search(log_probs[b : b + 1, :n], beam_size=20, n_best=20) == [together[b]]
        assert decoder.best_path(log_probs[b : b + 1, :n]) == [decoder.best_path(log_probs, lengths)[b]]
    assert decoder.beam_search(log_probs[:0]) == []


def test_decoder_refuses_what_does_not_fit() -> None:
    lm = word_lm()
    refused: list[tuple[str, Sequence[str], dict[str, Any]]] = [
        ("blank must be from 0 to 3, got 4", LABELS, {"blank": 4}),
        ("lm_kind must be one of word, char, got 'letter'", LABELS, {"lm": lm, "lm_kind": "letter"}),
        ("labels must have a space where words are known", LABELS[:3], {"lm": lm}),
        ("the words must have one that the labels spell, got none of 1", LABELS, {"lexicon": ["xy"]}),
        ("lexicon must be words, got a string", LABELS, {"lexicon": "ab"}),
        ("hot_words must be words, got a string", LABELS, {"hot_words": "ab"}),
        ("hot_words must be of the labels, got 'ax'", LABELS, {"hot_words": ["ab", "ax"]}),
        ("hot_words must not come with a lexicon and a model of characters", LABELS,
         {"hot_words": ["a"], "lexicon": ["a"], "lm": lm, "lm_kind": "char"}),
        ("alpha must be finite and at least 0", LABELS, {"lm": lm, "alpha": -1.0}),
    ]  # fmt: skip
    for rule, labels, options in refused:
        with pytest.raises(InputError, match=rule):
            CTCDecoder(labels, **options)
    decoder = CTCDecoder(LABELS)
    with pytest.raises(InputError, match="labels must be one for each of 3 classes, got 4"):
        decoder.best_path(frames(1, 2, 3))
    with pytest.raises(InputError, match="n_best must be from 1 to the beam's 5, got 6"):
        decoder.beam_search(frames(1, 2), beam_size=5, n_best=6)
    with pytest.raises(RuntimeError, match="lengths must be from 0 to 2, got 3"):
        decoder.best_path(frames(1, 2), torch.tensor([3]))


# ---- the handwriting of CTCDecoder ----

LETTERS = " !\"#&'()*+,-./0123456789:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
HANDWRITING: dict[str, Any] = {"labels": [*LETTERS, ""], "blank": len(LETTERS)}


class Handwriting:
    """A line and a word of IAM: the outputs of a network before the softmax, and the text of the language model."""

    def __init__(self, folder: Path) -> None:
        rows = [row.split(";")[:-1] for row in (folder / "rnnOutput.csv").read_text().split()]
        self.log_probs = torch.tensor([[float(x) for x in row] for row in rows]).double().log_softmax(dim=-1)[None]
        self.corpus = (folder / "corpus.txt").read_text()


@pytest.fixture(scope="module")
def fixtures(shared_data: Path) -> Path:
    folder = shared_data / "speech" / "ctc-fixtures"
    if not folder.is_dir():
        pytest.skip("the CTC fixtures are not here")
    return folder


@pytest.fixture(scope="module")
def line(fixtures: Path) -> Handwriting:
    return Handwriting(fixtures / "line")


@pytest.fixture(scope="module")
def word(fixtures: Path) -> Handwriting:
    return Handwriting(fixtures / "word")


class Bigrams:
    """CTCDecoder's model of characters: the pairs of the corpus, not smoothed; a text stands behind a space."""

    words = (" ",)
    unit = "char"

    def __init__(self, corpus: str) -> None:
        self.pairs = list(itertools.pairwise(corpus))

    def automaton(self, labels: Sequence[str | None] | None = None) -> dict[str, Any]:
        assert labels is not None
        C, numbers = len(labels), {label: n for n, label in enumerate(labels)}
        counts = torch.zeros(C, C)
        for a, b in self.pairs:
            if a in numbers and b in numbers:
                counts[numbers[a], numbers[b]] += 1
        first, second = counts.nonzero(as_tuple=True)
        logp = counts.log() - counts.sum(dim=1, keepdim=True).log()
        # State 0 is where a pair that never was ends up; behind it stands a state a character.
        return {
            "first": torch.cat([torch.tensor([0, C]), C + (counts > 0).sum(dim=1).cumsum(0)]).int(),
            "symbols": torch.cat([torch.arange(C), second]).int(),
            "scores": torch.cat([torch.full((C,), -math.inf), logp[first, second]]),
            "next": 1 + torch.cat([torch.arange(C), second]).int(),
            "backoff": torch.zeros(C + 1),
            "suffix": torch.zeros(C + 1, dtype=torch.int32),
            "final": torch.zeros(C + 1),
            "start": 1 + numbers[" "],
        }


def test_handwriting_reads_as_documented(line: Handwriting, word: Handwriting) -> None:
    decoder = CTCDecoder(**HANDWRITING)
    assert decoder.best_path(line.log_probs)[0].text == "the fak friend of the fomly hae tC"
    assert decoder.beam_search(line.log_probs, beam_size=25)[0][0].text == "the fak friend of the fomcly hae tC"
    assert decoder.best_path(word.log_probs)[0].text == "aircrapt"


def test_handwriting_with_a_model_of_characters_reads_as_documented(line: Handwriting) -> None:
    def best(alpha: float) -> str:
        """CTCDecoder divides what the model gives by the length, once the search has ended."""
        decoder = CTCDecoder(**HANDWRITING, lm=Bigrams(line.corpus), alpha=alpha)
        (found,) = decoder.beam_search(line.log_probs, beam_size=25, n_best=25)
        return max(found, key=lambda x: x.logp + (x.score - x.logp) / len(x.text)).text

    assert best(0.01) == "the fake friend of the family, lie th"
    whole = CTCDecoder(**HANDWRITING, lm=Bigrams(line.corpus), alpha=1.0)  # as its README had it first
    assert whole.beam_search(line.log_probs, beam_size=25)[0][0].text == "the fake friend of the family, fake th"


def test_handwriting_of_known_words_reads_as_documented(line: Handwriting, word: Handwriting) -> None:
    """CTCDecoder finds these by other searches: token passing (Viterbi over words), and a search of near words."""
    decoder = CTCDecoder(**HANDWRITING, lexicon=line.corpus.replace(",", "").split())
    (found,) = decoder.beam_search(line.log_probs, n_best=2)
    assert [x.text.removeprefix("the fake friend of the family ") for x in found] == ["fake the", "like the"]
    decoder = CTCDecoder(**HANDWRITING, lexicon=word.corpus.split())
    assert decoder.beam_search(word.log_probs)[0][0].text == "aircraft"


# ---- the speech of pyctcdecode ----

SPEECH: dict[str, Any] = {"labels": [" ", *(chr(97 + n) for n in range(26)), "'", ""], "blank": 28}
BUGS_LABELS = [" ", "b", "g", "n", "s", "u", "y", ""]
AS_PYCTCDECODE: dict[str, Any] = {"token_min_logp": -5.0, "beam_prune_logp": -10.0}
UNKNOWN = 0.5 * LN10 * -10.0  # what pyctcdecode gives a whole word that the model lacks, at its alpha and offset


def test_bugs_bunny_scores_as_documented(fixtures: Path) -> None:
    """The frames and the scores of pyctcdecode's own tests (`test_decode_beams_batch`, `test_hotwords`)."""

    def said(word: str) -> Tensor:
        return torch.nn.functional.one_hot(torch.tensor([BUGS_LABELS.index(c.strip("_")) for c in word]), 8).double()

    mixed = said("bugs__") * 0.49 + said("bun_ny") * 0.51
    probs = torch.cat([mixed, said(" "), said("bun_ny")])
    log_probs = probs.clamp(1e-15, 1).log().log_softmax(dim=-1)[None]
    given: dict[str, Any] = {"labels": BUGS_LABELS, "blank": 7}
    lm = NgramModel.from_arpa(fixtures / "bugs_bunny_kenlm.arpa")
    best = CTCDecoder(**given, lm=lm, unknown_score=UNKNOWN).beam_search(log_probs, **AS_PYCTCDECODE)[0][0]
    assert best.text == "bugs bunny"
    assert (best.logp, best.score) == pytest.approx((-2.853399551509947, 0.14660044849005294), abs=1e-5)
    assert [(word.text, word.begin) for word in best.words] == [("bugs", 0), ("bunny", 7)]
    for options, text in (
        ({}, "bunny bunny"),
        ({"lm": lm, "alpha": 0.0}, "bunny bunny"),
        ({"lm": lm, "alpha": 1.0}, "bugs bunny"),
        ({"lm": lm, "hot_words": ["bunny"], "hot_word_score": 20.0}, "bunny bunny"),
        ({"lm": lm, "hot_words": ["bugs bunny"], "hot_word_score": 20.0}, "bugs bunny"),
        ({"hot_words": ["bugs"]}, "bugs bunny"),
    ):
        decoder = CTCDecoder(**given, **options)
        assert decoder.beam_search(log_probs, **AS_PYCTCDECODE)[0][0].text == text, options


@pytest.fixture(scope="module")
def speech(fixtures: Path) -> Tensor:
    logits = json.loads(lzma.decompress((fixtures / "libri_logits.json.xz").read_bytes()))
    return torch.tensor(logits).double()


@pytest.mark.filterwarnings("ignore")  # pyctcdecode's own, and KenLM's
@pytest.mark.parametrize("model", [None, "bugs_bunny_kenlm.arpa"])
@pytest.mark.parametrize(
    ("beam_size", "pruning"),
    [(100, AS_PYCTCDECODE), (4000, {"token_min_logp": -7.0, "beam_prune_logp": -60.0})],
)
def test_speech_has_pyctcdecodes_n_best(
    speech: Tensor, fixtures: Path, model: str | None, beam_size: int, pruning: dict[str, float]
) -> None:
    """Its second beam is so wide that what each search prunes does not count."""
    pyctcdecode = pytest.importorskip("pyctcdecode")
    if model:
        pytest.importorskip("kenlm")
    path = str(fixtures / model) if model else None
    peer = pyctcdecode.build_ctcdecoder(SPEECH["labels"], path, ["bugs", "bunny"] if model else None)
    theirs = peer.decode_beams(speech.numpy(), beam_width=beam_size, **pruning)
    lm = NgramModel.from_arpa(fixtures / model) if model else None
    decoder = CTCDecoder(**SPEECH, lm=lm, unknown_score=UNKNOWN)
    (found,) = decoder.beam_search(
        speech.log_softmax(dim=-1)[None], beam_size=beam_size, n_best=min(beam_size, 110), **pruning
    )
    ours = {x.text: (x.logp, x.score) for x in found}
    assert found[0].text == theirs[0][0]
    compared = min(len(theirs), 100)
    assert len(found) >= compared
    for text, _, _, logp, score in theirs[:compared]:
        assert ours[text] == pytest.approx((logp, score), abs=1e-3)


def test_the_loss_of_handwriting_is_as_documented(line: Handwriting) -> None:
    text = "the fake friend of the family, like the"
    target = torch.tensor([CTCDecoder(**HANDWRITING).spell(text)])
    loss = ops.ctc_loss(
        line.log_probs.transpose(0, 1), target, (100,), (len(text),), blank=HANDWRITING["blank"], reduction="sum"
    )
    assert float(loss) == pytest.approx(28.090721774903226)
