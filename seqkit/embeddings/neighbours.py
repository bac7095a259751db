"""Approximate search: the words are sorted into lists by k-means, and a query looks into the nearest few lists only.

faiss is the library: its inverted file of 83,308 words is built in 1 s where graphs of neighbours take 3 s (HNSW of
faiss) and 6 s (usearch) for the same recall at the same speed; hnswlib has no wheel. An index is made anew in each
process. Against 0.4 ms a query in a batch and 1.4 ms alone, which exact search takes there, it has paid for itself
after some 4,400 and 850 queries: docs/results/embeddings.md.

Reference: Jegou et al. 2011, IEEE TPAMI 33(1), section 4 (without the compression).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqkit.errors import InputError

PROBES = 16  # lists that a query looks into, at least
PART = 32  # of so many lists it looks into one, where that is more


class NeighbourIndex:
    """Finds the rows of the largest products with a vector.

    There are about 2 sqrt(rows) lists. Where there are no more than `PROBES`, the search is exact.

    Args:
        unit: rows of length one.

    Raises:
        InputError: faiss is not installed.
    """

    def __init__(self, unit: NDArray[np.float32]) -> None:
        try:
            import faiss
        except ImportError:
            raise InputError(
                "nearest: faiss must be installed for approximate search, got no such package "
                "(pip install 'seqkit[faiss]')"
            ) from None
        rows, dim = unit.shape
        lists = max(1, min(int(2 * math.sqrt(rows)), rows // 39))  # faiss asks for 39 rows a list to learn from
        index: Any = faiss.index_factory(dim, f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
        unit = np.ascontiguousarray(unit, np.float32)
        index.train(unit)
        index.add(unit)
        index.nprobe = max(PROBES, lists // PART)
        self.index = index

    def search(self, queries: NDArray[np.float32], n: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The rows of each query [Q, n], best first and -1 where the lists hold no more, and their products."""
        products, rows = self.index.search(np.ascontiguousarray(queries, np.float32), n)
        return rows, products
