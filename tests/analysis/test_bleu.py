import math
import random

import pytest
import sacrebleu

from seqkit.analysis.bleu import Score, bleu, chrf, paired_bootstrap, ter
from seqkit.errors import InputError

HYPOTHESES = ["The cat sat on the mat .", "a dog barks", "", "It is raining, today!"]
REFERENCES = [
    ["The cat sat on a mat.", "The dog barks", "Nothing", "It rains today!"],
    ["A cat sat on the mat.", "a dog barks loudly", "", "Today it is raining, today!"],
]


def noisy(lines: list[str], *, share: float, seed: int) -> list[str]:
    generator = random.Random(seed)
    return [" ".join("x" if generator.random() < share else word for word in line.split()) for line in lines]


def corpus(n: int) -> list[str]:
    generator = random.Random(3)
    words = [chr(97 + i) * 3 for i in range(20)]
    return [" ".join(generator.choices(words, k=12)) for _ in range(n)]


def test_bleu_is_the_closed_form_on_one_sentence() -> None:
    # 5 of 6 unigrams, 3 of 5 bigrams, 2 of 4 trigrams, 1 of 3 4-grams match; same length: no brevity penalty
    score = bleu(["a b c d x f"], [["a b c d e f"]])
    assert score.value == pytest.approx(100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25)
    shorter = bleu(["a b c d e"], [["a b c d e f"]])
    assert shorter.value == pytest.approx(100 * math.exp(1 - 6 / 5))


def test_scores_are_sacrebleus_with_their_signatures() -> None:
    for ours, theirs in (
        (bleu(HYPOTHESES, REFERENCES), sacrebleu.BLEU()),
        (bleu(HYPOTHESES, REFERENCES, tokenize="char"), sacrebleu.BLEU(tokenize="char")),
        (bleu(HYPOTHESES, REFERENCES, lowercase=True), sacrebleu.BLEU(lowercase=True)),
        (chrf(HYPOTHESES, REFERENCES), sacrebleu.CHRF()),
        (chrf(HYPOTHESES, REFERENCES, word_order=2), sacrebleu.CHRF(word_order=2)),
        (ter(HYPOTHESES, REFERENCES), sacrebleu.TER()),
    ):
        result = theirs.corpus_score(HYPOTHESES, REFERENCES)
        assert ours == Score(result.name, result.score, theirs.get_signature().format())
    assert ter(["a b x d"], [["a b c d"]]).value == pytest.approx(25.0)
    assert chrf(["same"], [["same"]]).value == pytest.approx(100.0)


def test_score_shows_value_and_signature() -> None:
    shown = str(bleu(HYPOTHESES, REFERENCES))
    assert shown.startswith("BLEU = ")
    assert "nrefs:2|case:mixed|eff:no|tok:13a|smooth:exp|version:" in shown


def test_bleu_logs_nothing_about_tokenised_text(caplog: pytest.LogCaptureFixture) -> None:
    bleu(["a b ."] * 200, [["a b ."] * 200])
    assert caplog.records == []


@pytest.mark.parametrize("score", [bleu, chrf, ter])
def test_scores_reject_texts_that_do_not_match(score) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match="references must be as many as the 2 hypotheses, got 1"):
        score(["a", "b"], [["a", "b"], ["a"]])
    with pytest.raises(InputError, match="hypotheses must hold at least one sentence"):
        score([], [[]])
    with pytest.raises(InputError, match="references must hold at least one stream"):
        score(["a"], [])
    with pytest.raises(InputError, match="got a string"):
        score(["a"], ["a"])


def test_bleu_and_chrf_reject_wrong_settings() -> None:
    with pytest.raises(InputError, match=r"tokenize must be one of .*13a.*, got 'moses'"):
        bleu(["a"], [["a"]], tokenize="moses")
    with pytest.raises(InputError, match="word_order must be at least 0"):
        chrf(["a"], [["a"]], word_order=-1)


def test_paired_bootstrap_tells_a_real_difference_from_none() -> None:
    reference = corpus(150)
    weak, strong, twin = (noisy(reference, share=s, seed=i) for i, s in enumerate((0.3, 0.15, 0.3)))
    better = paired_bootstrap(weak, strong, [reference], n_samples=200)
    assert better.p_value < 0.02
    assert better.baseline.value == bleu(weak, [reference]).value
    assert better.system.value == bleu(strong, [reference]).value
    assert better.baseline_interval[0] < better.baseline.value < better.baseline_interval[1] < better.system_interval[0]
    assert paired_bootstrap(weak, twin, [reference], n_samples=200).p_value > 0.05
    assert paired_bootstrap(weak, weak, [reference], n_samples=50).p_value == 1.0
    assert better == paired_bootstrap(weak, strong, [reference], n_samples=200)
    assert "bs:200|seed:12345" in str(better)
    assert f"p = {better.p_value:.4f}" in str(better)


@pytest.mark.parametrize("metric", ["chrf", "ter"])
def test_paired_bootstrap_takes_the_other_metrics(metric: str) -> None:
    reference = corpus(60)
    weak, strong = (noisy(reference, share=s, seed=4) for s in (0.4, 0.1))
    comparison = paired_bootstrap(weak, strong, [reference], metric=metric, n_samples=60)
    assert comparison.p_value < 0.05
    assert (comparison.system.value > comparison.baseline.value) == (metric == "chrf")


def test_paired_bootstrap_rejects_wrong_arguments() -> None:
    with pytest.raises(InputError, match="metric must be bleu, chrf or ter, got 'wer'"):
        paired_bootstrap(["a"], ["a"], [["a"]], metric="wer")
    with pytest.raises(InputError, match="n_samples must be at least 1, got 0"):
        paired_bootstrap(["a"], ["a"], [["a"]], n_samples=0)
    with pytest.raises(InputError, match="references must be as many as the 2 hypotheses, got 1"):
        paired_bootstrap(["a"], ["a", "b"], [["a"]])
