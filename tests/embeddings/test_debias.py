"""Debiasing: against the published algorithms written row by row, and torch's optimiser for the soft one."""

import numpy as np
import pytest
import torch

from seqkit.embeddings import WordVectors, debias
from seqkit.embeddings.bias import bias_direction, bias_subspace, cluster_purity, direct_bias, most_biased
from seqkit.embeddings.debias import double_hard_debias, hard_debias, inlp, soft_debias, soft_metric, specific_words
from seqkit.embeddings.logistic import fit_logistic
from seqkit.errors import InputError

WORDS = ["she", "he", "woman", "man", "queen", "king", "nurse", "doctor", "tree"]
DEFINITIONAL = [("she", "he"), ("woman", "man")]
EQUALIZE = [("queen", "king"), ("woman", "man")]
SPECIFIC = {"she", "he", "queen"}


@pytest.fixture
def vectors() -> WordVectors:
    drawn = np.random.default_rng(0).standard_normal((len(WORDS), 6)).astype(np.float32)
    drawn[::2, 0] += 2  # the attribute
    return WordVectors(WORDS, drawn)


def published(vectors: WordVectors) -> np.ndarray:
    """Bolukbasi et al.'s steps, one word at a time, in float64."""
    rows = {word: row / np.linalg.norm(row) for word, row in zip(WORDS, vectors.matrix.astype(float), strict=True)}
    halves = []
    for a, b in DEFINITIONAL:
        centre = (rows[a] + rows[b]) / 2
        halves += [rows[a] - centre, rows[b] - centre]
    _, values = np.linalg.eigh(np.cov(np.array(halves).T))
    g = values[:, -1]
    for word in WORDS:
        if word not in SPECIFIC:
            rows[word] = rows[word] - (rows[word] @ g) * g
            rows[word] /= np.linalg.norm(rows[word])
    for a, b in EQUALIZE:
        mean = (rows[a] + rows[b]) / 2
        y = mean - (mean @ g) * g
        z = np.sqrt(1 - y @ y) * (1 if (rows[a] - rows[b]) @ g >= 0 else -1)
        rows[a], rows[b] = y + z * g, y - z * g
    return np.array([rows[word] for word in WORDS])


def test_hard_debias_is_the_published_algorithm(vectors: WordVectors) -> None:
    found = hard_debias(vectors, definitional=DEFINITIONAL, equalize=EQUALIZE, specific=SPECIFIC)
    neutral = [WORDS.index(word) for word in ("nurse", "doctor", "tree")]
    wanted = published(vectors)
    others = [row for row in range(len(WORDS)) if WORDS[row] not in ("woman", "man")]
    np.testing.assert_allclose(found.matrix[others], wanted[others], atol=2e-6)
    # Both words of this pair were neutralised: which of them lies on which side hangs on the last bit.
    pair = [WORDS.index("woman"), WORDS.index("man")]
    assert min(np.abs(found.matrix[pair] - wanted[order]).max() for order in (pair, pair[::-1])) < 2e-6
    direction = bias_direction(vectors, DEFINITIONAL)
    assert np.abs(found.matrix[neutral] @ direction).max() < 1e-6
    np.testing.assert_allclose(np.linalg.norm(found.matrix, axis=1), 1, atol=1e-6)
    # An equalised pair is as far from every neutral word on either side.
    queen, king = (found.matrix[WORDS.index(word)] for word in ("queen", "king"))
    np.testing.assert_allclose(found.matrix[neutral] @ queen, found.matrix[neutral] @ king, atol=1e-6)
    np.testing.assert_allclose(found.matrix[0], vectors.unit[0], atol=1e-6)


def test_the_order_in_a_pair_to_equalise_does_not_matter(vectors: WordVectors) -> None:
    given = {"definitional": DEFINITIONAL, "specific": SPECIFIC}
    found = hard_debias(vectors, equalize=[("queen", "king")], **given)
    np.testing.assert_allclose(
        hard_debias(vectors, equalize=[("king", "queen")], **given).matrix, found.matrix, atol=1e-6
    )


def test_hard_debias_of_three_groups_in_a_subspace() -> None:
    drawn = np.random.default_rng(1).standard_normal((30, 8)).astype(np.float32)
    words = [f"w{n}" for n in range(30)]
    vectors = WordVectors(words, drawn)
    sets = [words[:3], words[3:6], words[6:9]]
    found = hard_debias(
        vectors, definitional=sets, equalize=[words[:3], words[12:15]], specific=words[:15], components=2
    )
    basis = bias_subspace(vectors, sets, components=2)
    assert np.abs(found.matrix[15:] @ basis.T).max() < 1e-6
    np.testing.assert_allclose(found.matrix[3:12], vectors.unit[3:12], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found.matrix, axis=1), 1, atol=1e-6)
    # Equalised words are as near to each neutral word as their whole set is, and keep their side.
    near = found.matrix[15:] @ found.matrix[12:15].T
    np.testing.assert_allclose(near, near[:, :1].repeat(3, axis=1), atol=1e-6)
    inside = (vectors.unit[12:15] - vectors.unit[12:15].mean(0)) @ basis.T
    wanted = inside / np.linalg.norm(inside, axis=1, keepdims=True)
    parts = found.matrix[12:15] @ basis.T
    np.testing.assert_allclose(parts / np.linalg.norm(parts, axis=1, keepdims=True), wanted, atol=1e-5)


def optimised(words: np.ndarray, neutral: np.ndarray, basis: np.ndarray, weight: float) -> tuple[np.ndarray, float]:
    """T' T that torch's L-BFGS finds, in float64, and its loss."""
    w, n, b = (torch.tensor(each, dtype=torch.float64) for each in (words.T, neutral.T, basis))
    t = torch.eye(len(w), dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS(
        [t], max_iter=3000, tolerance_grad=1e-13, tolerance_change=1e-16, history_size=50, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        metric = t.T @ t
        return ((w.T @ metric @ w - w.T @ w) ** 2).sum() + weight * ((n.T @ metric @ b) ** 2).sum()

    def closure() -> torch.Tensor:
        solver.zero_grad()
        value = loss()
        value.backward()
        return value

    for _ in range(3):
        solver.step(closure)
    return (t.T @ t).detach().numpy(), float(loss().detach())


@pytest.mark.parametrize(
    ("rows", "neutral", "components", "weight", "clipped"),
    [(20, 20, 1, 3.0, False), (20, 15, 2, 10.0, False), (12, 9, 1, 0.0, False), (6, 2, 1, 30.0, True)],
)
def test_soft_metric_is_what_an_optimiser_finds(
    rows: int, neutral: int, components: int, weight: float, clipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    projected = debias._projected
    monkeypatch.setattr(debias, "_projected", lambda *given: calls.append(1) or projected(*given))
    generator = np.random.default_rng(3)
    words = generator.standard_normal((rows, 4)) * [3.0, 1.0, 1.0, 0.3]
    some = words[:neutral]
    basis = np.linalg.qr(generator.standard_normal((4, components)))[0]
    found = soft_metric(words.T @ words, some.T @ some, basis, weight)
    assert bool(calls) == clipped
    assert np.linalg.eigvalsh(found)[0] > -1e-9
    wanted, least = optimised(words, some, basis, weight)
    loss = ((words @ (found - np.eye(4)) @ words.T) ** 2).sum() + weight * ((some @ found @ basis) ** 2).sum()
    assert loss <= least * (1 + 1e-6) + 1e-12
    np.testing.assert_allclose(found, wanted, atol=2e-3 if clipped else 1e-5)


def test_soft_debias_has_the_inner_products_of_the_optimum(vectors: WordVectors) -> None:
    basis = bias_subspace(vectors, DEFINITIONAL).T.astype(float)
    unit = vectors.unit.astype(float)
    neutral = unit[[WORDS.index(word) for word in WORDS if word not in SPECIFIC]]
    metric, _ = optimised(unit, neutral, basis, 5.0 * len(unit) ** 2 / len(neutral))
    wanted = unit @ metric @ unit.T
    wanted /= np.sqrt(np.outer(np.diag(wanted), np.diag(wanted)))
    found = soft_debias(vectors, definitional=DEFINITIONAL, specific=SPECIFIC, weight=5.0)
    np.testing.assert_allclose(found.matrix @ found.matrix.T, wanted, atol=1e-4)


def test_soft_debias_takes_more_with_a_larger_weight(vectors: WordVectors) -> None:
    same = soft_debias(vectors, definitional=DEFINITIONAL, specific=SPECIFIC, weight=0.0)
    np.testing.assert_allclose(same.matrix, vectors.unit, atol=1e-6)
    direction = bias_direction(vectors, DEFINITIONAL)
    neutral = [word for word in WORDS if word not in SPECIFIC]
    biases = [direct_bias(vectors, direction, neutral)]
    for weight in (0.2, 5.0, 1e6):
        found = soft_debias(vectors, definitional=DEFINITIONAL, specific=SPECIFIC, weight=weight)
        np.testing.assert_allclose(np.linalg.norm(found.matrix, axis=1), 1, atol=1e-6)
        biases.append(direct_bias(found, direction, neutral))
    assert biases == sorted(biases, reverse=True)
    # The root of X has g in its null space when X has: what is left along g is rounding.
    assert biases[-1] < 0.01


def frequency_vectors() -> WordVectors:
    """Words with a side along one axis and, along another of much variance, the same side again in each word's size."""
    generator = np.random.default_rng(11)
    side = np.where(np.arange(402) % 2, -1.0, 1.0)
    drawn = generator.standard_normal((402, 6)) * 0.3
    drawn[:, 0] += side
    drawn[:, 3] += 4 * side * (1 + 0.2 * generator.standard_normal(402))
    drawn[:2] = [[1, 0.1, 0, 0, 0.2, 0], [-1, 0.1, 0, 0, 0.2, 0]]  # she and he differ by the first axis alone
    drawn += [0, 0, 2, 0, 0, 0]  # a mean
    return WordVectors(["she", "he", *(f"w{n}" for n in range(400))], drawn.astype(np.float32))


def test_double_hard_debias_is_the_published_algorithm() -> None:
    vectors = frequency_vectors()
    pair = [("she", "he")]
    found = double_hard_debias(
        vectors, definitional=pair, equalize=[("w0", "w1")], specific=["she", "he"], candidates=4, n_biased=100
    )
    matrix = vectors.matrix.astype(float)
    centred = matrix - matrix.mean(0)
    _, _, principal = np.linalg.svd(centred, full_matrices=False)
    purities = []
    for component in principal[:4]:
        purified = centred - np.outer(centred @ component, component)
        purified /= np.linalg.norm(purified, axis=1, keepdims=True)
        g = (purified[0] - purified[1]) / np.linalg.norm(purified[0] - purified[1])
        neutral = purified - np.outer(purified @ g, g)
        neutral /= np.linalg.norm(neutral, axis=1, keepdims=True)
        groups = most_biased(vectors, pair, n=100, without=["she", "he"])
        purities.append(
            cluster_purity(neutral[np.concatenate(groups)].astype(np.float32), np.repeat([0, 1], [100, 100]))
        )
    np.testing.assert_allclose(found.purities, purities, atol=0.03)
    assert found.component == 1 + int(np.argmin(purities)) == 1  # the axis that repeats the side
    assert found.purities[0] < 0.7 < min(found.purities[1:])
    purified = centred - np.outer(centred @ principal[0], principal[0])
    wanted = hard_debias(
        WordVectors(vectors.words, purified.astype(np.float32)),
        definitional=pair, equalize=[("w0", "w1")], specific=["she", "he"],
    )  # fmt: skip
    others = [row for row in range(402) if row not in (2, 3)]  # a neutralised pair's sides hang on the last bit
    np.testing.assert_allclose(found.vectors.matrix[others], wanted.matrix[others], atol=1e-5)


@pytest.mark.parametrize("groups", [2, 3])
def test_inlp_leaves_nothing_for_a_linear_classifier(groups: int) -> None:
    generator = np.random.default_rng(9)
    group = np.arange(1200) % groups
    drawn = generator.standard_normal((1200, 12))
    drawn[:, :groups] += 1.5 * np.eye(groups)[group]
    drawn[:, groups : 2 * groups] += 1.2 * np.eye(groups)[group]  # told again along other axes
    words = [f"w{n}" for n in range(1200)]
    vectors = WordVectors(words, drawn.astype(np.float32))
    definitional = [words[groups * n : groups * (n + 1)] for n in range(10)]
    specific = words[: 10 * groups]
    found = inlp(vectors, definitional=definitional, specific=specific, n_biased=300)
    assert found.accuracies[0] > 0.9
    assert found.accuracies[-1] <= 1 / groups + 0.05
    assert 1 <= found.removed < 12
    np.testing.assert_allclose(found.vectors.matrix[: len(specific)], vectors.unit[: len(specific)], atol=1e-6)
    rest = found.vectors.matrix[len(specific) :].astype(float)
    assert np.linalg.matrix_rank(rest, tol=1e-3) == 12 - found.removed
    np.testing.assert_allclose(np.linalg.norm(rest, axis=1), 1, atol=1e-6)
    biased = most_biased(vectors, definitional, n=300, without=specific)
    size = min(map(len, biased))
    rows = np.concatenate([rows[:size] for rows in biased[:2]])
    labels = np.repeat([True, False], size)
    half = generator.random(2 * size) < 0.5
    before = fit_logistic(vectors.unit[rows][half], labels[half]).scores(vectors.unit[rows][~half]) > 0
    fitted = fit_logistic(found.vectors.matrix[rows][half], labels[half])
    after = fitted.scores(found.vectors.matrix[rows][~half]) > 0
    assert (before == labels[~half]).mean() > 0.9
    assert (after == labels[~half]).mean() < 0.62


def test_specific_words_are_the_seed_and_what_is_like_it() -> None:
    generator = np.random.default_rng(4)
    drawn = generator.standard_normal((500, 10)) * 0.5
    drawn[:60, 0] += 4  # words that mean the attribute
    words = [f"w{n}" for n in range(500)]
    vectors = WordVectors(words, drawn.astype(np.float32))
    assert specific_words(vectors, [*words[:50], "unknown", words[300]]) == [*words[:60], words[300]]


def test_what_cannot_be_is_refused(vectors: WordVectors) -> None:
    lists = {"definitional": DEFINITIONAL, "specific": SPECIFIC}
    with pytest.raises(InputError, match="a set must have vectors"):
        hard_debias(vectors, definitional=[("he", "unknown")], equalize=[], specific=[])
    with pytest.raises(InputError, match="two words or more, got \\['he'\\]"):
        hard_debias(vectors, equalize=[["he"]], **lists)
    with pytest.raises(InputError, match=r"weight must be 0 or more, got -1\.0"):
        soft_debias(vectors, weight=-1.0, **lists)
    with pytest.raises(InputError, match="a word must be neutral"):
        soft_debias(vectors, definitional=DEFINITIONAL, specific=WORDS)
    with pytest.raises(InputError, match="candidates must be at least 1"):
        double_hard_debias(vectors, equalize=[], candidates=0, **lists)
    with pytest.raises(InputError, match="rounds must be at least 1"):
        inlp(vectors, rounds=0, **lists)
    with pytest.raises(InputError, match="words to learn from and to hold out, got 1 words a group"):
        inlp(frequency_vectors(), definitional=[("she", "he")], specific=[], n_biased=1)
    with pytest.raises(InputError, match="some of the 9 words, got 0 of them"):
        specific_words(vectors, ["unknown"])
    with pytest.raises(InputError, match="some of the 9 words, got 9 of them"):
        specific_words(vectors, WORDS)
