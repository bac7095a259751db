"""The trainer: gradients of its objectives, the same bytes where promised, checkpoints, and that it learns."""

import hashlib
import random
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from seqkit.embeddings import native
from seqkit.embeddings.corpus import Corpus
from seqkit.embeddings.word2vec import Progress, Run, Word2Vec
from seqkit.errors import InputError

pytestmark = pytest.mark.skipif(not (native.PACKAGE / native.LIBRARY).exists(), reason="the trainer is not built")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Words of two topics: those of one stand together. A megabyte and more, so that there are several chunks."""
    generator = random.Random(1)
    path = tmp_path_factory.mktemp("text") / "a.txt"
    lines = []
    for _ in range(25_000):
        topic = generator.choice("ab")
        lines.append(" ".join(f"{topic}{generator.randint(0, 30):02d}word" for _ in range(10)))
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def wide_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine thousand words, so that a deterministic run has eight pieces at once."""
    generator = random.Random(2)
    path = tmp_path_factory.mktemp("wide") / "a.txt"
    path.write_text("\n".join(" ".join(f"w{generator.randint(0, 8999)}" for _ in range(20)) for _ in range(10_000)))
    return path


def huffman(counts: list[int]) -> list[list[tuple[int, int]]]:
    """Node and code from the root, by the textbook."""
    import heapq

    heap = [(count, index, ("leaf", index)) for index, count in enumerate(counts)]
    heapq.heapify(heap)
    nodes = 0
    while len(heap) > 1:
        first, second = heapq.heappop(heap), heapq.heappop(heap)
        heapq.heappush(heap, (first[0] + second[0], len(counts) + nodes, ("node", nodes, first[2], second[2])))
        nodes += 1
    paths: list[list[tuple[int, int]]] = [[] for _ in counts]

    def walk(tree: tuple, path: list[tuple[int, int]]) -> None:
        if tree[0] == "leaf":
            paths[tree[1]] = path
        else:
            for code in (0, 1):
                walk(tree[2 + code], [*path, (tree[1], code)])

    walk(heap[0][2], [])
    return paths


@pytest.mark.parametrize("architecture", ["skipgram", "cbow"])
@pytest.mark.parametrize("objective", ["hierarchical", "softmax"])
def test_objectives_step_as_autograd_does(architecture: str, objective: str) -> None:
    # Counts 1, 2, 4, 8, 16 leave one Huffman tree; a window of 1 and no sub-sampling leave nothing to chance.
    words = [word for word, count in zip("abcde", (16, 8, 4, 2, 1), strict=True) for _ in range(count)]
    random.Random(2).shuffle(words)
    trainer = Word2Vec(
        dim=6, window=1, min_count=1, sample=0.0, epochs=1, alpha=0.1, min_alpha=0.1, architecture=architecture,
        hierarchical=objective == "hierarchical", softmax=objective == "softmax",
    )  # fmt: skip
    corpus = Corpus([words], min_count=1)
    run = Run(corpus, trainer._options())
    generator = np.random.default_rng(1)
    run.matrix(1)[:, :6] = generator.normal(size=(5, 6)) * 0.3
    x, q = (torch.tensor(run.matrix(i)[:, :6].astype(np.float64), requires_grad=True) for i in (0, 1))
    run.run()

    ids = [corpus.words.index(word) for word in words]
    paths = huffman(corpus.counts.tolist())
    total, pairs = 0.0, 0
    for t, target in enumerate(ids):
        around = [ids[c] for c in (t - 1, t + 1) if 0 <= c < len(ids)]
        if objective == "softmax" and architecture == "skipgram":
            groups = [[c] for c in around]  # rows move after each pair
        else:
            groups = [around]
        for group in groups:
            hidden = x[group].mean(0, keepdim=True) if architecture == "cbow" else x[group]
            if objective == "softmax":
                log_p = torch.log_softmax(hidden @ q.T, 1)[:, target]
            else:
                nodes = [node for node, _ in paths[target]]
                signs = torch.tensor([1.0 - 2 * code for _, code in paths[target]], dtype=torch.float64)
                log_p = torch.nn.functional.logsigmoid((hidden @ q[nodes].T) * signs).sum(1)
            loss = -log_p.sum()
            total, pairs = total + float(loss.detach()), pairs + len(log_p)
            gx, gq = torch.autograd.grad(loss, (x, q))
            with torch.no_grad():
                x -= 0.1 * gx * (len(group) if architecture == "cbow" else 1)
                q -= 0.1 * gq
    np.testing.assert_allclose(run.matrix(0)[:, :6], x.detach().numpy(), atol=1e-5)
    np.testing.assert_allclose(run.matrix(1)[:, :6], q.detach().numpy(), atol=1e-5)
    assert run.progress().loss == pytest.approx(total, rel=1e-5)
    assert run.progress().pairs == pairs


@pytest.mark.parametrize("options", [{}, {"architecture": "cbow"}, {"hierarchical": True}, {"negative": 9, "dim": 33}])
def test_word2vec_learns_the_topics(text: Path, options: dict) -> None:
    vectors = Word2Vec(**{"dim": 16, "epochs": 3, "sample": 0.0, "threads": 2, **options}).train(text)
    unit = vectors.matrix / np.linalg.norm(vectors.matrix, axis=1, keepdims=True)
    topic = np.array([word[0] == "a" for word in vectors.words])
    cosines = unit @ unit.T
    same = topic[:, None] == topic
    assert np.isfinite(vectors.matrix).all()
    assert cosines[same].mean() > cosines[~same].mean() + 0.5


def digest(trainer: Word2Vec, text: Path) -> str:
    return hashlib.sha256(trainer.train(text).matrix.tobytes()).hexdigest()


@pytest.mark.parametrize("options", [{}, {"architecture": "cbow"}, {"hierarchical": True}])
def test_a_deterministic_run_is_the_same_for_any_number_of_threads(wide_text: Path, options: dict) -> None:
    trainers = [Word2Vec(dim=8, epochs=1, sample=0.0, deterministic=True, threads=n, **options) for n in (1, 2, 3, 2)]
    assert len({digest(trainer, wide_text) for trainer in trainers}) == 1
    assert digest(Word2Vec(dim=8, epochs=1, sample=0.0, deterministic=True, seed=2, **options), wide_text) != digest(
        trainers[0], wide_text
    )


def test_one_thread_gives_the_same_bytes_twice_and_from_disk(text: Path) -> None:
    first = digest(Word2Vec(dim=8, epochs=1), text)
    assert digest(Word2Vec(dim=8, epochs=1), text) == first
    assert digest(Word2Vec(dim=8, epochs=1, memory=100_000), text) == first


@pytest.mark.parametrize("deterministic", [False, True])
def test_an_interrupted_run_goes_on_to_the_same_bytes(text: Path, tmp_path: Path, deterministic: bool) -> None:
    trainer = Word2Vec(dim=8, epochs=40, deterministic=deterministic)
    whole = trainer.train(text)

    def interrupt(progress: Progress) -> None:
        raise KeyboardInterrupt

    state = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        trainer.train(text, checkpoint=state, on_progress=interrupt)
    told: list[Progress] = []
    again = trainer.train(text, checkpoint=state, resume=True, on_progress=told.append)
    assert told[-1].words == told[-1].total_words
    assert (again.matrix == whole.matrix).all()
    finished = trainer.train(text, checkpoint=state, resume=True)
    assert (finished.matrix == whole.matrix).all()


def test_a_checkpoint_of_other_options_or_text_is_refused(text: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    Word2Vec(dim=8, epochs=1).train(text, checkpoint=state)
    with pytest.raises(InputError, match="window must be 4, got 5"):
        Word2Vec(dim=8, epochs=1, window=4).train(text, checkpoint=state, resume=True)
    with pytest.raises(InputError, match="checkpoint must be of the same text"):
        Word2Vec(dim=8, epochs=1).train(["a a a a a a"], checkpoint=state, resume=True)
    with pytest.raises(InputError, match="checkpoint must be given"):
        Word2Vec(dim=8).train(["a a a a a a"], resume=True)
    (tmp_path / "broken").write_bytes(state.read_bytes()[:100])
    with pytest.raises(InputError, match="broken: checkpoint must"):
        Word2Vec(dim=8, epochs=1).train(text, checkpoint=tmp_path / "broken", resume=True)


def test_a_vocabulary_grows_and_keeps_its_rows(text: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    first = Word2Vec(dim=8, epochs=1).train(text, checkpoint=state)
    grown = Word2Vec(dim=8, epochs=1, alpha=0.0, min_alpha=0.0).train(
        ["new new new new new old " + first.words[0]], grow_from=state
    )
    assert grown.words == [*first.words, "new"]
    assert (grown.matrix[:-1] == first.matrix).all()


def test_the_loss_told_is_the_average_over_pairs() -> None:
    # Twenty thousand words, so that hardly one is drawn twice: one seen and five drawn words of score zero.
    told: list[Progress] = []
    trainer = Word2Vec(dim=8, epochs=1, min_count=1, alpha=1e-9, min_alpha=0.0, sample=0.0)
    trainer.train([[f"word{i}" for i in range(20_000)]], on_progress=told.append)
    assert told[-1].loss == pytest.approx(6 * np.log(2), rel=1e-3)


def test_training_leaves_no_thread(text: Path) -> None:
    before = threading.active_count()
    Word2Vec(dim=8, epochs=1, threads=3).train(text)
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"dim": 0}, "dim must be from 1"),
        ({"window": 0}, "window must be from 1"),
        ({"negative": 0}, "negative must be from 1"),
        ({"architecture": "glove"}, "architecture must be one of"),
        ({"alpha": -1.0}, "alpha must be at least"),
        ({"alpha": float("nan")}, "alpha must be at least"),
        ({"sample": 2.0}, "sample must be from 0 to 1"),
        ({"hierarchical": True, "softmax": True}, "must not both"),
    ],
)
def test_wrong_options_are_refused(options: dict, says: str) -> None:
    with pytest.raises(InputError, match=says):
        Word2Vec(**options)
