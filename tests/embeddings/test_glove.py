"""GloVe: counts against a plain count, steps against the formula, the same bytes, checkpoints, and that it learns."""

import hashlib
import os
import random
import subprocess
import sys
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from seqkit.embeddings import GloVe, native
from seqkit.embeddings.corpus import Corpus
from seqkit.embeddings.glove import GloVeProgress, Run, cooccurrences
from seqkit.errors import InputError

pytestmark = pytest.mark.skipif(not (native.PACKAGE / native.LIBRARY).exists(), reason="the trainer is not built")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Words of two topics: those of one mostly stand together (the objective does not see pairs that never do).

    A megabyte and more, so that there are several chunks.
    """
    generator = random.Random(1)
    path = tmp_path_factory.mktemp("text") / "a.txt"
    lines = []
    for _ in range(25_000):
        topic = generator.choice("ab")
        topics = [topic if generator.random() < 0.9 else "ab"[topic == "a"] for _ in range(10)]
        lines.append(" ".join(f"{each}{generator.randint(0, 30):02d}word" for each in topics))
    path.write_text("\n".join(lines))
    return path


def zipf_sentences(n_sentences: int, n_words: int) -> list[list[str]]:
    generator = random.Random(3)
    return [
        [f"w{int(n_words ** generator.random()) - 1}" for _ in range(generator.randint(0, 30))]
        for _ in range(n_sentences)
    ]


def plain_counts(sentences: list[list[str]], words: list[str], window: int) -> dict[tuple[int, int], Fraction]:
    """The definition: both orders of each two words, 1 over the distance each."""
    number = {word: index for index, word in enumerate(words)}
    found: Counter[tuple[int, int]] = Counter()
    for sentence in sentences:
        ids = [number[word] for word in sentence if word in number]
        for t, first in enumerate(ids):
            for d in range(1, min(window, len(ids) - 1 - t) + 1):
                second = ids[t + d]
                found[first, second] += Fraction(1, d)  # type: ignore[assignment]
                found[second, first] += Fraction(1, d)  # type: ignore[assignment]
    return {pair: Fraction(count) for pair, count in found.items() if pair[0] <= pair[1]}


# The least memory leaves a block of 256 cells and runs of 1,024 events; none leaves all in the block.
@pytest.mark.parametrize("memory", [4096, 1 << 16, None])
@pytest.mark.parametrize("threads", [1, 2])
def test_counts_equal_a_plain_count(memory: int | None, threads: int) -> None:
    sentences = zipf_sentences(800, 400)
    corpus = Corpus(sentences, min_count=2)
    i, j, count = cooccurrences(corpus, window=10, memory=memory, threads=threads)
    wanted = plain_counts(sentences, corpus.words, 10)
    assert list(zip(i.tolist(), j.tolist(), strict=True)) == sorted(wanted)
    assert count.tolist() == [float(wanted[pair]) for pair in sorted(wanted)]


def test_counts_of_long_windows_are_within_half_a_unit() -> None:
    sentences = zipf_sentences(50, 20)
    corpus = Corpus(sentences, min_count=1)
    i, j, count = cooccurrences(corpus, window=29)
    wanted = plain_counts(sentences, corpus.words, 29)
    exact = np.array([float(wanted[pair]) for pair in zip(i.tolist(), j.tolist(), strict=True)])
    assert len(exact) == len(wanted)
    np.testing.assert_allclose(count, exact, rtol=29 / 2 / 55440)


@pytest.mark.parametrize("memory", [4096, None])
def test_a_count_past_32_bits_is_carried(memory: int | None) -> None:
    sentences = [["a", "b"]] * 100_000 + [["a", "a"]] * 50_000
    i, j, count = cooccurrences(Corpus(sentences, min_count=1), window=3, memory=memory)
    assert (i.tolist(), j.tolist(), count.tolist()) == ([0, 0], [0, 1], [100_000.0, 100_000.0])


def test_counts_of_a_threaded_text_are_those_of_one_thread(text: Path) -> None:
    corpus = Corpus(text, min_count=1)
    one, two = (cooccurrences(corpus, threads=threads, memory=1 << 12) for threads in (1, 2))
    for mine, theirs in zip(one, two, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def random_rows(dim: int, width: int) -> np.ndarray:
    """Two rows on a 64-byte boundary, as the trainer lays them."""
    room = np.zeros(2 * 4 * width + 16, np.float32)
    begin = -room.ctypes.data % 64 // 4
    rows = room[begin : begin + 8 * width].reshape(2, 4, width)
    generator = np.random.default_rng(1)
    rows[:, :2, : dim + 2] = generator.normal(size=(2, 2, dim + 2)) * 0.5
    rows[:, 2:, :] = 1
    rows[:, 2:, : dim + 2] += generator.random((2, 2, dim + 2))
    rows[:, 0, dim + 1], rows[:, 1, dim] = 1, 1
    rows[:, 2, dim + 1], rows[:, 3, dim] = np.inf, np.inf
    return rows


def check_step(dim: int, pair: tuple[int, int]) -> None:
    width = (dim + 2 + 15) // 16 * 16
    rows = random_rows(dim, width)
    x = rows.astype(np.float64)
    w, v, w_sums, v_sums = (x[:, part, :dim].copy() for part in range(4))
    b, c, b_sums, c_sums = x[:, 0, dim].copy(), x[:, 1, dim + 1].copy(), x[:, 2, dim].copy(), x[:, 3, dim + 1].copy()
    log_count, weight, eta, loss = 1.3, 0.6, 0.05, 0.0
    for i, j in {pair, pair[::-1]}:  # the two orders touch different parameters
        miss = w[i] @ v[j] + b[i] + c[j] - log_count
        loss += weight * miss**2
        g = eta * weight * miss
        w_step, v_step = g * v[j], g * w[i]
        w[i] -= w_step / np.sqrt(w_sums[i])
        v[j] -= v_step / np.sqrt(v_sums[j])
        b[i] -= g / np.sqrt(b_sums[i])
        c[j] -= g / np.sqrt(c_sums[j])
        w_sums[i] += w_step**2
        v_sums[j] += v_step**2
        b_sums[i] += g**2
        c_sums[j] += g**2
    found = native.call("glove_step", rows.ctypes.data, width, *pair, log_count, weight, eta)
    assert found == pytest.approx(loss, rel=1e-5)
    for part, wanted in enumerate((w, v, w_sums, v_sums)):
        np.testing.assert_allclose(rows[:, part, :dim], wanted, rtol=2e-5, atol=1e-5)
    for part, at, wanted in ((0, dim, b), (1, dim + 1, c), (2, dim, b_sums), (3, dim + 1, c_sums)):
        np.testing.assert_allclose(rows[:, part, at], wanted, rtol=2e-5, atol=1e-5)
    assert (rows[:, 0, dim + 1] == 1).all()
    assert (rows[:, 1, dim] == 1).all()
    assert np.isinf(rows[:, 2, dim + 1]).all()
    assert np.isinf(rows[:, 3, dim]).all()
    assert (rows[:, :2, dim + 2 :] == 0).all()


def check_steps() -> None:
    for dim in (1, 14, 15, 100):
        for pair in ((0, 1), (1, 0), (1, 1)):
            check_step(dim, pair)


@pytest.mark.parametrize("level", ["0", "1", "2"])
def test_step_is_that_of_the_formula(level: str) -> None:
    code = "import sys; sys.path.insert(0, 'tests/embeddings'); import test_glove; test_glove.check_steps()"
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "SEQKIT_ISA": level, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_loss_of_an_epoch_is_the_objective_s_average() -> None:
    # So small weights move nothing: the loss is J of the first rows, over its terms.
    sentences = zipf_sentences(300, 100)
    corpus = Corpus(sentences, min_count=1)
    run = Run(corpus, GloVe(dim=7, min_count=1, epochs=1, x_max=1e12))
    x = run.rows().astype(np.float64)
    told: list[GloVeProgress] = []
    run.train(on_progress=told.append)
    i, j, count = cooccurrences(corpus)
    first, second = np.concatenate([i, j[i != j]]), np.concatenate([j, i[i != j]])
    count = np.concatenate([count, count[i != j]])
    miss = (x[first, 0] * x[second, 1]).sum(1) - np.log(count)
    wanted = (np.minimum(1, (count / 1e12) ** 0.75) * miss**2).mean()
    assert told[-1].terms == told[-1].total_terms == len(count)
    assert told[-1].loss == pytest.approx(wanted, rel=1e-5)


def test_biases_begin_at_a_rate_of_1() -> None:
    # Two words that meet once: one step, of which the formula gives each bias's length.
    run = Run(Corpus(["a b"], min_count=1), GloVe(dim=3, min_count=1, epochs=1, x_max=1.0, eta=0.01))
    before = run.rows().astype(np.float64)
    run.train()
    rows = run.rows()
    for i, j in ((0, 1), (1, 0)):
        miss = before[i, 0] @ before[j, 1]
        assert rows[i, 0, 3] == pytest.approx(before[i, 0, 3] - miss, rel=1e-3)
        assert rows[j, 1, 4] == pytest.approx(before[j, 1, 4] - miss, rel=1e-3)
        assert rows[i, 2, 3] == pytest.approx(1e-4 * (1 + miss**2), rel=1e-4)
        step = 0.01 * miss * before[j, 1, :3]
        np.testing.assert_allclose(rows[i, 0, :3], before[i, 0, :3] - step, rtol=1e-3)


def test_loss_falls_and_topics_part(text: Path) -> None:
    losses = []
    for epochs in (1, 15):
        told: list[GloVeProgress] = []
        vectors = GloVe(dim=10, min_count=1, epochs=epochs).train(text, on_progress=told.append)
        losses.append(told[-1].loss)
    assert losses[1] < 0.1 * losses[0]
    unit = vectors.matrix / np.linalg.norm(vectors.matrix, axis=1, keepdims=True)
    alike = unit @ unit.T
    same = np.array([[a[0] == b[0] for b in vectors.words] for a in vectors.words])
    assert alike[same].min() > alike[~same].max()


def digest(trainer: GloVe, text: Path) -> str:
    return hashlib.sha256(trainer.train(text).matrix.tobytes()).hexdigest()


def test_bytes_are_the_same_for_any_threads_and_differ_by_seed(text: Path) -> None:
    options = {"dim": 12, "min_count": 1, "epochs": 2}
    first = digest(GloVe(**options), text)
    assert first == digest(GloVe(**options), text)
    assert first == digest(GloVe(**options, threads=2), text)
    assert first == digest(GloVe(**options, threads=3, deterministic=True), text)
    assert first != digest(GloVe(**options, seed=2), text)


def test_bytes_are_the_same_for_any_memory_with_several_buckets() -> None:
    sentences = zipf_sentences(6_000, 3_000)
    corpus = Corpus(sentences, min_count=1)
    found = []
    for threads, memory in ((1, None), (1, 1 << 20), (2, 1 << 18)):
        run = Run(corpus, GloVe(dim=6, epochs=2, threads=threads, memory=memory))
        assert run.on_disk == (memory is not None)
        run.train()
        assert run.progress().position > 2  # more than one bucket
        found.append(run.rows().tobytes())
    assert found[0] == found[1] == found[2]


def test_resumed_run_gives_the_bytes_of_a_whole_one(tmp_path: Path) -> None:
    sentences = zipf_sentences(6_000, 3_000)
    trainer, kept = GloVe(dim=6, epochs=4, min_count=1), tmp_path / "run.safetensors"
    whole = trainer.train(sentences).matrix

    def interrupt(progress: GloVeProgress) -> None:
        if progress.terms:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.train(sentences, checkpoint=kept, on_progress=interrupt)
    resumed = trainer.train(sentences, checkpoint=kept, resume=True).matrix
    np.testing.assert_array_equal(whole, resumed)
    with pytest.raises(InputError, match=r"eta must be 0\.1, got 0\.05"):
        GloVe(dim=6, epochs=4, min_count=1, eta=0.1).train(sentences, checkpoint=kept, resume=True)
    with pytest.raises(InputError, match="same text"):
        trainer.train(sentences[1:], checkpoint=kept, resume=True)
    kept.write_bytes(b"no checkpoint")
    with pytest.raises(InputError, match="checkpoint must be of a GloVe run"):
        trainer.train(sentences, checkpoint=kept, resume=True)


def test_options_out_of_range_and_texts_without_pairs_are_refused() -> None:
    for options in ({"dim": 0}, {"x_max": 0.0}, {"eta": float("nan")}, {"alpha": -1.0}, {"window": 0}):
        with pytest.raises(InputError, match=f"GloVe: {next(iter(options))} must be"):
            GloVe(**options)
    with pytest.raises(InputError, match="two known words"):
        GloVe(min_count=1).train(["a", "b", "a"])
