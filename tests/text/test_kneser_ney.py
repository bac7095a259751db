"""Kneser-Ney against the formulas written out word by word, and what every model of words must satisfy."""

import math
import random
from collections import Counter, defaultdict

import numpy as np
import pytest

from seqkit.errors import InputError
from seqkit.text.backoff_table import BackoffTable
from seqkit.text.kneser_ney import FALLBACK, characters, estimate, text_of

TOY = [["a", "b", "a", "c"], ["b", "a"], ["a", "b", "a", "b", "c"], [], ["c", "c", "a", "b"], ["a"]]


def written_out(sentences: list[list[str]], order: int) -> dict[tuple[str, ...], float]:
    """p of every n-gram that was seen, by Chen and Goodman's formula, one n-gram at a time."""
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
        found = [0.0]
        for k in (1, 2, 3):
            d = k - (k + 1) * y * t[k + 1] / t[k] if t[k] else -1.0
            found.append(d if 0 <= d <= k and t[1] and t[2] else FALLBACK[k - 1])
        return found

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
        gamma = sum(d[min(c, 3)] for c in same.values()) / total
        mine = counts.get(gram, 0)
        return (mine - d[min(mine, 3)]) / total + gamma * p(gram[1:])

    for n in range(1, order + 1):
        for gram in adjusted[n - 1]:
            if gram != ("<s>",):
                table[gram] = p(gram)
    return table


def by_words(model: BackoffTable) -> list[dict[tuple[str, ...], tuple[float, float]]]:
    grams: list[tuple[str, ...]] = [()]
    found = []
    for order in model.orders:
        prefixes, lasts = np.divmod(order.keys, len(model.words))
        grams = [(*grams[a], model.words[b]) for a, b in zip(prefixes.tolist(), lasts.tolist(), strict=True)]
        found.append(dict(zip(grams, zip(order.logp.tolist(), order.backoff.tolist(), strict=True), strict=True)))
    return found


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", [None, 1])
def test_probabilities_are_those_of_the_formula(order: int, seed: int | None) -> None:
    sentences = TOY
    if seed is not None:
        draw = random.Random(seed)
        sentences = [draw.choices("abcde", [8, 4, 2, 1, 1], k=draw.randrange(9)) for _ in range(60)]
    model = estimate(sentences, order=order)
    found = {gram: math.exp(logp) for grams in by_words(model) for gram, (logp, _) in grams.items()}
    expected = written_out(sentences, order)
    assert found[("<unk>",)] > 0
    assert {gram for gram in found if gram not in (("<s>",), ("<unk>",))} == {*expected}
    for gram, probability in expected.items():
        assert found[gram] == pytest.approx(probability, rel=1e-9), gram


@pytest.mark.parametrize("order", [1, 3, 4])
def test_each_context_shares_out_exactly_one(order: int) -> None:
    model = estimate(TOY, order=order)
    number = model.ids
    for history in ([], ["<s>"], ["a"], ["a", "b"], ["<s>", "a", "b"], ["c", "a", "b", "a"], ["<unk>", "b"]):
        logp = model.distribution([number[word] for word in history])
        assert np.exp(logp).sum() == pytest.approx(1.0, abs=1e-12)


def test_rare_words_become_unknown() -> None:
    model = estimate([["a", "b", "a"], ["a", "c"]], order=2, min_count=2)
    assert model.words == ("<unk>", "<s>", "</s>", "a")
    assert model.score([["c"]])[0][0] == model.score([["never", "seen"]])[0][0]


def test_symbols_in_a_text_are_no_symbols() -> None:
    model = estimate([["<s>", "a", "</s>", "<unk>"]], order=2)
    assert model.words == ("<unk>", "<s>", "</s>", "a")


@pytest.mark.parametrize("text", ["a b", "", "▁ \u00a0\u2028\t x", "日本 語"])
def test_characters_and_back(text: str) -> None:
    symbols = characters(text)
    assert len(symbols) == len(text)
    assert all(symbol.split() == [symbol] for symbol in symbols)
    assert text_of(symbols) == text


def test_nothing_to_learn_from_is_told() -> None:
    for sentences in ([], [[]], [["a"]]):
        with pytest.raises(InputError, match="the text must have words that occur 2 times or more, got none"):
            estimate(sentences, order=2, min_count=2)
    with pytest.raises(InputError, match="order and min_count must be at least 1, got 0 and 1"):
        estimate(TOY, order=0)
