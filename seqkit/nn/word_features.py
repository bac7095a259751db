"""What a tagger sees of a word: its vector, which may come from a file, and a vector of its spelling.

The spelling goes through a convolution over characters whose largest value is kept at each filter, so that a suffix or
a capital letter tells about a word that has no vector. Only the different words of a batch are spelled.

Reference: Ma and Hovy 2016, 2.1, arXiv:1603.01354; unknown words by dropping known ones: Dozat and Manning 2017.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from seqkit.nn.dropout import dropout, locked_dropout


class Words(NamedTuple):
    """A batch of sentences as numbers."""

    ids: Int[Tensor, "B T"]
    lengths: Int[Tensor, " B"]
    spelled: Int[Tensor, "B T"]
    """which row of `spellings` each word is"""
    spellings: Int[Tensor, "W L"]
    """the characters of each different word, 0 beyond its end"""

    def to(self, device: torch.device | str) -> Words:
        return Words(*(part.to(device) for part in self))


class WordFeatures(nn.Module):
    """A vector of each word.

    Rows of the table up to `n_trained` are trained; those beyond, of words that only the file of vectors has, are kept
    as they are. The row of unknown words is zero at first. With `train_vectors` false all rows stay, and words without
    a vector are zero too, so that those of the training data look like those of later texts: the spelling alone tells.

    Args:
        character_filters: how many numbers tell of the spelling; 0 for none.
        word_dropout: the share of words that are unknown while training.
        pad_id, unk_id: of the words.
    """

    def __init__(
        self, vocab_size: int, dim: int, *, n_trained: int, n_characters: int, character_dim: int = 25,
        character_filters: int = 30, character_width: int = 3, dropout: float = 0.0, word_dropout: float = 0.0,
        train_vectors: bool = True, pad_id: int = 0, unk_id: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        self.n_trained, self.pad_id, self.unk_id = n_trained, pad_id, unk_id
        self.dropout, self.word_dropout = dropout, word_dropout
        self.trained = nn.Parameter(torch.empty(n_trained, dim).uniform_(-((3.0 / dim) ** 0.5), (3.0 / dim) ** 0.5))
        self.register_buffer("kept", torch.zeros(vocab_size - n_trained, dim))
        self.trained.data[[pad_id, unk_id]] = 0.0
        self.trained.requires_grad_(train_vectors)
        self.characters: nn.Parameter | None = None
        self.convolution: nn.Conv1d | None = None
        if character_filters:
            self.characters = nn.Parameter(torch.empty(n_characters, character_dim).uniform_(-0.3, 0.3))
            self.convolution = nn.Conv1d(
                character_dim, character_filters, character_width, padding=character_width // 2
            )
        self.output_dim = dim + character_filters

    @torch.no_grad()
    def set_rows(self, ids: Int[Tensor, " N"], rows: Float[Tensor, "N D"]) -> None:
        """Puts vectors in place of the random ones of some words, and scales the random ones to their spread.

        Where rows are not trained, the random ones become zero.
        """
        self.trained.mul_(rows.std() / self.trained.std() if self.trained.requires_grad else 0.0)
        trained = ids < self.n_trained
        self.trained[ids[trained]] = rows[trained]
        kept: Tensor = self.kept  # type: ignore[assignment]
        kept[ids[~trained] - self.n_trained] = rows[~trained]

    def forward(self, words: Words) -> Float[Tensor, "B T D"]:
        ids = words.ids
        if self.training and self.word_dropout:
            dropped = torch.rand(ids.shape, device=ids.device) < self.word_dropout
            ids = ids.masked_fill(dropped & (ids != self.pad_id), self.unk_id)
        x = F.embedding(ids.clamp(max=self.n_trained - 1), self.trained)
        kept: Tensor = self.kept  # type: ignore[assignment]
        if len(kept):
            beyond = (ids - self.n_trained).clamp(min=0)
            x = torch.where((ids >= self.n_trained)[:, :, None], F.embedding(beyond, kept), x)
        if self.convolution is not None:
            x = torch.cat([x, F.embedding(words.spelled, self._spelling(words.spellings))], dim=-1)
        return locked_dropout(x, self.dropout, self.training)

    def _spelling(self, spellings: Int[Tensor, "W L"]) -> Float[Tensor, "W F"]:
        """The largest value of each filter over a word's characters."""
        assert self.convolution is not None
        assert self.characters is not None
        letters = spellings > 0
        x = F.embedding(spellings, self.characters) * letters[:, :, None]  # W L E
        x = self.convolution(dropout(x, self.dropout, self.training).transpose(1, 2))[:, :, : letters.shape[1]]
        return x.masked_fill(~letters[:, None], -torch.inf).amax(2).clamp(min=-1e4)  # a word may have no letters
