"""Kneser-Ney against the formulas written out word by word, and what every model of words must satisfy."""

import math
import random
from collections import Counter, defaultdict

import numpy as np
import pytest

from seqkit.errors import InputError
from seqkit.text import NgramModel
from seqkit.text import kneser_ney as module
from seqkit.text.kneser_ney import FALLBACK, describe, kneser_ney

TOY = [["a", "b", "a", "c"], ["b", "a"], ["a", "b", "a", "b", "c"], [], ["c", "c", "a", "b"], ["a"]]


def written_out(sentences: list[list[str]], order: int, prune: list[int]) -> dict[tuple[str, ...], float]:
    """p of every n-gram that is kept, by Chen and Goodman's formula, one n-gram at a time."""
    framed = [["<s>", *sentence, "</s>"] for sentence in sentences]
    words = {"<unk>", "</s>"} | {word for sentence in sentences for word in sentence}
    raw = [
        Counter(tuple(s[i : i + n]) for s in framed for i in range(len(s) - n + 1)) for n in range(1, order + 1)
    ]  # fmt: skip
    adjusted: list[dict[tuple[str, ...], int]] = []
    for n in range(1, order + 1):
        if n == order:
            adjusted.append(dict(raw[n - 1]))
            continue
        before = defaultdict(set)
        for gram in raw[n]:
            before[gram[1:]].add(gram[0])
        adjusted.append({g: c if g[0] == "<s>" else len(before[g]) for g, c in raw[n - 1].items()})
    adjusted[0][("<s>",)] = 0

    def discounts(counts: dict[tuple[str, ...], int]) -> list[float]:
        t = Counter(counts.values())
        y = t[1] / (t[1] + 2 * t[2]) if t[1] else 0.0
        found = [k - (k + 1) * y * t[k + 1] / t[k] if t[k] else -1.0 for k in (1, 2, 3)]
        return [0.0, *(found if all(0 < d <= k for k, d in enumerate(found, 1)) else FALLBACK)]

    table: dict[tuple[str, ...], float] = {}

    def p(gram: tuple[str, ...]) -> float:
        if not gram:
            return 1 / len(words)
        n = len(gram)
        counts, d = adjusted[n - 1], discounts(adjusted[n - 1])
        same = {g: c for g, c in counts.items() if g[:-1] == gram[:-1]}
        total = sum(same.values())
        if total == 0:
            return p(gram[1:])
        kept = {g for g in same if n == 1 or raw[n - 1][g] > prune[n - 1]}
        gamma = sum(d[min(c, 3)] if g in kept else c for g, c in same.items()) / total
        mine = counts[gram] if gram in kept else 0
        return (mine - d[min(mine, 3)]) / total + gamma * p(gram[1:])

    for n in range(1, order + 1):
        for gram in adjusted[n - 1]:
            if gram != ("<s>",) and (n == 1 or raw[n - 1][gram] > prune[n - 1]):
                table[gram] = p(gram)
    return table


def lines(sentences: list[list[str]]) -> list[str]:
    return [" ".join(sentence) for sentence in sentences]


def drawn(seed: int, n: int = 60) -> list[list[str]]:
    draw = random.Random(seed)
    return [draw.choices("abcde", [8, 4, 2, 1, 1], k=draw.randrange(9)) for _ in range(n)]


def by_words(model: NgramModel) -> dict[tuple[str, ...], float]:
    """p of every n-gram of a model."""
    found = {}
    for table in model.tables():
        for ids, logp in zip(table.ids.tolist(), table.log_probs.tolist(), strict=True):
            found[tuple(model.words[number] for number in ids)] = math.exp(logp)
    return found


@pytest.mark.parametrize("dense", [0, 1000])
@pytest.mark.parametrize(("order", "prune"), [(1, [0]), (2, [0]), (3, [0]), (5, [0]), (4, [0, 0, 1, 2]), (3, [0, 1])])
@pytest.mark.parametrize("seed", [None, 1])
def test_probabilities_are_those_of_the_formula(
    monkeypatch: pytest.MonkeyPatch, order: int, prune: list[int], seed: int | None, dense: int
) -> None:
    monkeypatch.setattr(module, "DENSE", dense)  # counted by a sort, or in a table
    sentences = TOY if seed is None else drawn(seed)
    found = by_words(kneser_ney(lines(sentences), order=order, prune=prune).model)
    expected = written_out(sentences, order, prune + prune[-1:] * order)
    assert found[("<unk>",)] > 0
    assert {gram for gram in found if gram not in (("<s>",), ("<unk>",))} == {*expected}
    for gram, probability in expected.items():
        assert found[gram] == pytest.approx(probability, rel=1e-6), gram


@pytest.mark.parametrize(("order", "prune"), [(1, [0]), (3, [0]), (4, [0]), (4, [0, 1]), (4, [0, 0, 2])])
@pytest.mark.parametrize("min_count", [1, 3])
def test_each_context_shares_out_exactly_one(order: int, prune: list[int], min_count: int) -> None:
    model = kneser_ney(lines(TOY + drawn(2)), order=order, prune=prune, min_count=min_count).model
    number = model.ids
    for history in ([], ["<s>"], ["a"], ["a", "b"], ["<s>", "a", "b"], ["c", "a", "b", "a"], ["<unk>", "b"]):
        logp = model.distribution([number.get(word, model.unknown) for word in history])
        assert np.exp(np.delete(logp, number["<s>"])).sum() == pytest.approx(1.0, abs=1e-6)


# lmplz of KenLM (the sources of the package kenlm 0.3.0) with -o 3 --prune 0 0 1 --discount_fallback.
LMPLZ_TEXT = ["a b a b c", "b a b a", "", "a b c c", "c a b"]
LMPLZ = """
-1.0377885 <unk> | 0 <s> -0.20164539 | -0.5228787 </s> | -0.6642079 a -0.04921803 | -0.75696194 b -0.19188553 |
-0.6642079 c -0.19188553 | -0.5617968 <s> </s> | -0.4259687 a </s> | -0.5228787 b </s> | -0.4740302 c </s> |
-0.6012336 <s> a -0.30103 | -0.549531 b a -0.17609124 | -0.6083089 c a | -0.7083775 <s> b |
-0.80617994 a b -0.22184873 | -0.6538334 <s> c | -0.6083089 b c | -0.6083089 c c | -0.4326375 a b a |
-0.23797825 <s> a b | -0.3590219 b a b | -0.45859903 a b c
"""


def test_models_are_those_of_lmplz() -> None:
    wanted = {}
    for entry in LMPLZ.split("|"):
        logp, *gram = entry.split()
        backoff = float(gram.pop()) if gram[-1].startswith("-") else 0.0
        wanted[tuple(gram)] = (float(logp), backoff)
    found = kneser_ney(LMPLZ_TEXT, order=3, prune=[0, 0, 1])
    assert found.fallback == [1, 3]
    assert found.discounts[1] == pytest.approx((0.571429, 1.42857, 3.0), abs=1e-5)
    entries = {}
    for table in found.model.tables():
        for ids, *values in zip(table.ids, table.log_probs, table.backoffs, strict=True):
            entries[tuple(found.model.words[number] for number in ids)] = np.array(values) / math.log(10)
    assert {*entries} == {*wanted}
    for gram, values in wanted.items():
        assert entries[gram] == pytest.approx(values, abs=1e-6), gram


def test_rare_words_become_unknown() -> None:
    found = kneser_ney(["a b a", "a c"], order=2, min_count=2)
    assert found.model.words == ("<unk>", "<s>", "</s>", "a")
    assert (found.symbols, found.sentences, found.unknown) == (5, 2, 2)
    assert found.model.score(["c"])[0] == found.model.score(["never", "seen"])[0]
    assert kneser_ney(["b b a a c"], order=2, vocab_size=2).model.words == ("<unk>", "<s>", "</s>", "a", "b")


def test_symbols_in_a_text_are_no_symbols() -> None:
    assert kneser_ney(["<s> a </s> <unk>"], order=2).model.words == ("<unk>", "<s>", "</s>", "a")


def test_characters_are_words_too() -> None:
    model = kneser_ney(["a b"] * 3, order=3, unit="char").model
    assert (model.unit, model.words) == ("char", ("<unk>", "<s>", "</s>", "a", "b", "▁"))


def test_orders_that_no_line_reaches_are_left_out() -> None:
    assert kneser_ney(["a", "b a"], order=9).model.order == 4


def test_discounts_are_in_closed_form() -> None:
    found = module._discounts(np.array([1, 1, 1, 2, 2, 3, 4, 9, 0], np.int32))
    assert found == pytest.approx((3 / 7, 19 / 14, 9 / 7))
    for counts in ([1, 1, 2], [2, 3, 4], [1, 1, 2, 2, 3, 4, 4, 4, 4]):  # the last one would give 3 and more below 0
        assert module._discounts(np.array(counts, np.int32)) is None


def test_discounts_are_told() -> None:
    found = kneser_ney(lines(TOY), order=2)
    assert (found.fallback, found.discounts) == ([1, 2], [FALLBACK, FALLBACK])
    first, _ = describe(found).split("\n")
    assert first == "1-grams: 6  discounts 0.500 1.000 1.500  (given, as the counts have none)"


def test_bad_input_is_told() -> None:
    for text in ([], [""], ["", " "]):
        with pytest.raises(InputError, match="text must have symbols, got none"):
            kneser_ney(text)
    for options, sentence in [
        ({"order": 0}, "order must be from 1 to 16, got 0"),
        ({"order": 17}, "order must be from 1 to 16, got 17"),
        ({"min_count": 0}, "min_count must be at least 1, got 0"),
        ({"vocab_size": 0}, "vocab_size must be at least 1, got 0"),
        ({"order": 2, "prune": [0, 0, 1]}, "prune must be at most 2 numbers"),
        ({"prune": [1]}, "prune must be at most 5 numbers from 0 on that do not fall, got 1"),
        ({"prune": [0, 2, 1]}, "got 0 2 1"),
        ({"unit": "byte"}, "unit must be one of word, char"),
    ]:
        with pytest.raises(InputError, match=sentence):
            kneser_ney(["a b"], **options)  # type: ignore[arg-type]
