"""Claim: exact search is fast enough for a vocabulary, and from about what size and number of queries an index pays.

    python benchmarks/nearest_words.py VECTORS [--queries 2000] [--copies 1] [--rounds 5]

Asks for the ten nearest of words drawn at random, exactly and by the index of faiss (`approximate=True`), in a batch
and one by one, in turn in one process on one thread. Beside it stands usearch, a graph of neighbours, if it is
installed, as the library that was not taken. `--copies 12` makes a vocabulary twelve times as large, each copy with a
tenth of noise: it shows how the time grows, not how good real vectors of that number are. Prints CPU milliseconds a
query (medians), recall of the ten against the exact search, the seconds that an index takes, and after how many
queries it has paid for itself.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from seqkit.embeddings import WordVectors


def clocked(run: Callable[[], object]) -> float:
    begin = time.process_time()
    run()
    return time.process_time() - begin


def recall(found: list[set[str]], exact: list[set[str]]) -> float:
    return statistics.fmean(len(a & b) / len(b) for a, b in zip(found, exact, strict=True))


def usearch_figures(vectors: WordVectors, queries: list[str], exact: list[set[str]]) -> str:
    try:
        from usearch.index import Index
    except ImportError:
        return "usearch is not installed"
    index = Index(ndim=vectors.dim, metric="cos", connectivity=16, expansion_add=64, expansion_search=48)
    build = clocked(lambda: index.add(np.arange(len(vectors)), vectors.unit, threads=1))
    rows = vectors.unit[[vectors.index[word] for word in queries]]
    seconds = clocked(lambda: index.search(rows, 11, threads=1))
    keys = index.search(rows, 11, threads=1).keys.tolist()
    found = [
        set([vectors.words[key] for key in line if vectors.words[key] != query][:10])
        for line, query in zip(keys, queries, strict=True)
    ]
    each = 1000 * seconds / len(queries)
    return f"usearch, alone: {build:.1f} s to build, {each:.3f} ms in a batch, recall {recall(found, exact):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vectors")
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--copies", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    vectors = WordVectors.load(arguments.vectors)
    generator = np.random.default_rng(0)
    if arguments.copies > 1:
        spread = vectors.matrix.std()
        parts = [vectors.matrix]
        for _ in range(arguments.copies - 1):
            noise = generator.standard_normal(vectors.matrix.shape, np.float32)
            parts.append(vectors.matrix + np.float32(0.1) * spread * noise)
        words = [f"{word}\u00b7{copy}" for copy in range(arguments.copies) for word in vectors.words]
        vectors = WordVectors(words, np.concatenate(parts))
    chosen = generator.choice(len(vectors), min(arguments.queries, len(vectors)), replace=False)
    queries = [vectors.words[row] for row in chosen]
    print(f"unit rows: {clocked(lambda: vectors.unit):.2f} s")
    build = clocked(lambda: vectors.neighbours)
    times: dict[tuple[str, bool], list[float]] = {}
    for _ in range(arguments.rounds):
        for approximate in (False, True):
            options = {"approximate": approximate}
            few = queries[:100]
            batch = clocked(lambda: vectors.nearest_of_each(queries, 10, **options)) / len(queries)  # noqa: B023
            single = clocked(lambda: [vectors.nearest(word, 10, **options) for word in few]) / len(few)  # noqa: B023
            times.setdefault(("batch", approximate), []).append(1000 * batch)
            times.setdefault(("one by one", approximate), []).append(1000 * single)
    exact = [{word for word, _ in found} for found in vectors.nearest_of_each(queries, 10)]
    nearly = [{word for word, _ in found} for found in vectors.nearest_of_each(queries, 10, approximate=True)]
    print(
        f"{len(vectors):,} words of {vectors.dim} numbers; index {build:.2f} s; recall@10 {recall(nearly, exact):.3f}"
    )
    for kind in ("batch", "one by one"):
        ours, index = (statistics.median(times[kind, approximate]) for approximate in (False, True))
        ratio = ours / index
        pays = f"{1000 * build / (ours - index):,.0f}" if ours > index else "no number of"
        print(f"{kind:<11} exact {ours:.3f} ms, index {index:.3f} ms, ratio {ratio:.1f}; pays after {pays} queries")
    print(usearch_figures(vectors, queries, exact))


if __name__ == "__main__":
    main()
