"""Word vectors: train, keep, measure. Importing this package does not import torch."""

from seqkit.embeddings.fasttext import FastText
from seqkit.embeddings.glove import GloVe
from seqkit.embeddings.vectors import WordVectors
from seqkit.embeddings.word2vec import Word2Vec

__all__ = ["FastText", "GloVe", "Word2Vec", "WordVectors"]
