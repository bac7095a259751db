"""Tokenizers: text to ids and back, all with the same four specials (see `seqkit.text.vocab`).

Three kinds. Characters keep every text they know. Words split punctuation off and mark where no space was, so that
decoding restores the text up to its white space. Subwords are sentencepiece's, unigram or BPE.

No text makes `encode` fail: what a vocabulary lacks, control characters and lone surrogates become the unknown token,
which decodes to ``⁇``. `encode` adds no begin or end symbol and `decode` drops them.

Subword sampling does not use sentencepiece's own sampler: in sentencepiece 0.2.3 `set_random_generator_seed` repeats
within a process but not across two of them (the seed is mixed with a random value drawn at start), so a resumed run
would differ. `SentencePieceTokenizer.encode_sampled` draws from the same distribution with a generator seeded per call.
On captions of 12 words it costs 27 µs for unigram and 71 µs for BPE where `encode` costs 7 µs.
"""

from __future__ import annotations

import functools
import io
import math
import random
import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import sentencepiece

from seqkit.atomic import write_atomically
from seqkit.errors import InputError
from seqkit.text.vocab import Vocab

UNKNOWN = "⁇"
JOINER = "￭"


@runtime_checkable
class Tokenizer(Protocol):
    """What the rest of seqkit asks of a tokenizer."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def pad_id(self) -> int: ...

    @property
    def unk_id(self) -> int: ...

    @property
    def bos_id(self) -> int: ...

    @property
    def eos_id(self) -> int: ...

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without begin and end symbols."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; pad, begin and end symbols are dropped."""
        ...

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The token of each id, for people to read."""
        ...

    def save(self, prefix: str | Path) -> None:
        """Writes the file from which `load_tokenizer(prefix)` makes this tokenizer again."""
        ...


class CharTokenizer:
    """One token a character (code point); decoding gives the text back exactly."""

    suffix = ".chars.tsv"

    def __init__(self, vocab: Vocab) -> None:
        self.vocab = vocab
        self.vocab_size = len(vocab)
        self.pad_id, self.unk_id, self.bos_id, self.eos_id = vocab.pad_id, vocab.unk_id, vocab.bos_id, vocab.eos_id

    @classmethod
    def train(cls, lines: Iterable[str], *, vocab_size: int | None = None, min_count: int = 1) -> CharTokenizer:
        """Knows the characters of `lines`, the most frequent ones where `vocab_size` is given."""
        return cls(Vocab.build(lines, min_count=min_count, max_size=vocab_size))

    def encode(self, text: str) -> list[int]:
        return self.vocab.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(_shown(self.vocab, ids))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        return self.vocab.decode(ids)

    def save(self, prefix: str | Path) -> None:
        self.vocab.save(f"{prefix}{self.suffix}")

    @classmethod
    def load(cls, prefix: str | Path) -> CharTokenizer:
        return cls(Vocab.load(f"{prefix}{cls.suffix}"))


class WordTokenizer:
    """One token a word, one a punctuation mark.

    The rule: white space separates. In what is left, a word is a longest run of letters, digits, underscores, combining
    marks and zero-width joiners of any script, with single apostrophes (' or ’) inside it; every other character is a
    token of its own. Where two tokens had no space between them, the punctuation mark carries the sign ``￭`` on that
    side, the right-hand token where both are marks: ``Well, "yes".`` gives ``Well ￭, "￭ yes ￭" ￭.``, and decoding gives
    the text back with single spaces. A ``￭`` in the text is read as ``■``.

    Scripts without spaces give very long words: use characters or subwords for them.
    """

    suffix = ".words.tsv"

    def __init__(self, vocab: Vocab) -> None:
        self.vocab = vocab
        self.vocab_size = len(vocab)
        self.pad_id, self.unk_id, self.bos_id, self.eos_id = vocab.pad_id, vocab.unk_id, vocab.bos_id, vocab.eos_id

    @classmethod
    def train(cls, lines: Iterable[str], *, vocab_size: int | None = None, min_count: int = 1) -> WordTokenizer:
        """Knows the words of `lines`, the most frequent ones where `vocab_size` is given."""
        return cls(Vocab.build(map(split_words, lines), min_count=min_count, max_size=vocab_size))

    def encode(self, text: str) -> list[int]:
        return self.vocab.encode(split_words(text))

    def decode(self, ids: Sequence[int]) -> str:
        return join_words(_shown(self.vocab, ids))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        return self.vocab.decode(ids)

    def save(self, prefix: str | Path) -> None:
        self.vocab.save(f"{prefix}{self.suffix}")

    @classmethod
    def load(cls, prefix: str | Path) -> WordTokenizer:
        return cls(Vocab.load(f"{prefix}{cls.suffix}"))


def _shown(vocab: Vocab, ids: Sequence[int]) -> list[str]:
    """The tokens a reader sees: no pad, begin or end symbol, and the sign for an unknown token."""
    hidden = (vocab.pad_id, vocab.bos_id, vocab.eos_id)
    return [UNKNOWN if index == vocab.unk_id else vocab.token(index) for index in ids if index not in hidden]


def split_words(text: str) -> list[str]:
    """The tokens of a text by the rule of `WordTokenizer`."""
    tokens: list[str] = []
    find = _word_pattern().finditer
    for chunk in text.replace(JOINER, "■").split():
        previous_is_word = True
        for number, found in enumerate(find(chunk)):
            is_word = found["word"] is not None
            token = found[0]
            if number:
                if not is_word:
                    token = JOINER + token
                elif not previous_is_word:
                    tokens[-1] += JOINER
            tokens.append(token)
            previous_is_word = is_word
    return tokens


def join_words(tokens: Iterable[str]) -> str:
    """The text of tokens: a space between two of them unless one bears a joining sign there."""
    parts: list[str] = []
    joined = True
    for token in tokens:
        if not joined and not token.startswith(JOINER):
            parts.append(" ")
        joined = token.endswith(JOINER)
        parts.append(token.replace(JOINER, ""))
    return "".join(parts)


@functools.cache
def _word_pattern() -> re.Pattern[str]:
    """A word or one other character; made on first use, because the combining marks must be looked up (0.1 s)."""
    marks = "".join(
        re.escape(char) for char in map(chr, range(0x300, sys.maxunicode + 1)) if unicodedata.category(char)[0] == "M"
    )
    run = rf"[\w\u200c\u200d{marks}]+"
    return re.compile(rf"(?P<word>{run}(?:['’]{run})*)|.", re.DOTALL)


class SentencePieceTokenizer:
    """Subwords of a sentencepiece model, unigram (Kudo 2018) or BPE (Sennrich et al. 2016).

    Args:
        model: the content of a sentencepiece model file whose specials have the ids 0 to 3 of `Vocab`.

    Raises:
        InputError: it is no such model.
    """

    suffix = ".spm"

    def __init__(self, model: bytes, *, where: str = "SentencePieceTokenizer") -> None:
        try:
            processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise InputError(f"{where}: model must be a sentencepiece model, got {len(model)} other bytes") from error
        ids = (processor.pad_id(), processor.unk_id(), processor.bos_id(), processor.eos_id())
        if ids != (Vocab.pad_id, Vocab.unk_id, Vocab.bos_id, Vocab.eos_id):
            raise InputError(f"{where}: ids of pad, unk, bos and eos must be 0, 1, 2 and 3, got {ids}")
        self.model = model
        self.pad_id, self.unk_id, self.bos_id, self.eos_id = ids
        self.vocab_size: int = processor.get_piece_size()
        self._processor = processor
        self._sampler: UnigramSampler | BPESampler | None = None

    def __getstate__(self) -> bytes:
        return self.model

    def __setstate__(self, model: bytes) -> None:
        self.__init__(model)  # type: ignore[misc]

    @classmethod
    def train(
        cls,
        lines: Iterable[str],
        *,
        vocab_size: int,
        model_type: str = "unigram",
        character_coverage: float = 1.0,
        normalization: str = "nmt_nfkc",
    ) -> SentencePieceTokenizer:
        """Learns `vocab_size` subwords (specials included) from lines; for a joint vocabulary give those of both sides.

        The same lines in the same order give the same bytes on any machine: the number of training threads is fixed,
        and no line is sampled or left out for its length.

        Args:
            model_type: ``unigram`` or ``bpe``.
            character_coverage: the share of characters that get a piece; the rare rest becomes unknown.
            normalization: sentencepiece's rule: ``nmt_nfkc``, ``nfkc``, ``nmt_nfkc_cf``, ``nfkc_cf`` or ``identity``.

        Raises:
            InputError: the corpus has no text, or allows no vocabulary of this size (the sentence says which it does).
        """
        where = "SentencePieceTokenizer.train"
        if model_type not in ("unigram", "bpe"):
            raise InputError(f"{where}: model_type must be unigram or bpe, got {model_type!r}")
        if not 0.0 < character_coverage <= 1.0:
            raise InputError(f"{where}: character_coverage must be above 0 and at most 1, got {character_coverage}")
        if normalization not in ("nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf", "identity"):
            raise InputError(f"{where}: normalization must be a rule of sentencepiece, got {normalization!r}")
        if vocab_size < 5:
            raise InputError(f"{where}: vocab_size must be at least 5, got {vocab_size}")
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                # read to the end here: an exception of the reader must not cross the C++ trainer
                sentence_iterator=iter([_valid(line).replace("\n", " ") for line in lines]),
                model_writer=model,
                vocab_size=vocab_size,
                model_type=model_type,
                character_coverage=character_coverage,
                normalization_rule_name=normalization,
                pad_id=Vocab.pad_id,
                unk_id=Vocab.unk_id,
                bos_id=Vocab.bos_id,
                eos_id=Vocab.eos_id,
                unk_surface=UNKNOWN,
                max_sentence_length=2**30,
                num_threads=4,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise InputError(f"{where}: {_complaint(str(error), vocab_size)}") from error
        return cls(model.getvalue())

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._processor.encode(_valid(text))
        return ids

    def encode_sampled(self, text: str, *, alpha: float, seed: int) -> list[int]:
        """The ids of a segmentation drawn at random; a function of `text`, `alpha` and `seed` alone.

        Unigram: segmentation x has probability proportional to P(x)^alpha over all of them (Kudo 2018, section 3.2,
        arXiv:1804.10959; 0.1 to 0.5 is usual, 0 is uniform, large is `encode`). BPE: every merge is left out with
        probability alpha at each step (BPE-dropout, Provilkov et al. 2020, algorithm 1, arXiv:1910.13267; 0.1 is usual,
        0 is `encode`, 1 gives characters).

        Raises:
            InputError: `alpha` is out of its range, or the model has byte pieces.
        """
        if self._sampler is None:
            self._sampler = _sampler(self._processor)
        return self._sampler.encode(self._processor.normalize(_valid(text)), alpha, random.Random(seed))

    def decode(self, ids: Sequence[int]) -> str:
        hidden = (self.pad_id, self.bos_id, self.eos_id)
        text: str = self._processor.decode([index for index in self._checked(ids) if index not in hidden])
        return text

    def pieces(self, ids: Sequence[int]) -> list[str]:
        return [self._processor.id_to_piece(index) for index in self._checked(ids)]

    def save(self, prefix: str | Path) -> None:
        write_atomically(f"{prefix}{self.suffix}", self.model)

    @classmethod
    def load(cls, prefix: str | Path) -> SentencePieceTokenizer:
        path = f"{prefix}{cls.suffix}"
        try:
            return cls(Path(path).read_bytes(), where=path)
        except OSError as error:
            raise InputError(f"{path}: tokenizer must be a file that can be read, got {error.strerror}") from error

    def _checked(self, ids: Sequence[int]) -> list[int]:
        for index in ids:
            if not 0 <= index < self.vocab_size:
                raise InputError(
                    f"SentencePieceTokenizer.decode: id must be from 0 to {self.vocab_size - 1}, got {index}"
                )
        return [int(index) for index in ids]


def _valid(text: str) -> str:
    """The text with lone surrogates, which UTF-8 cannot hold, replaced by question marks."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _complaint(message: str, vocab_size: int) -> str:
    """What is wrong with the corpus or the size, from the trainer's own words."""
    if found := re.search(r"value <= (\d+)", message):
        return f"vocab_size must be at most {found[1]} for this corpus, got {vocab_size}"
    if found := re.search(r"required_chars\. \d+ vs (\d+)", message):
        return f"vocab_size must be at least {found[1]} for the characters of this corpus, got {vocab_size}"
    if "sentences_.empty()" in message or "all_chars_count" in message:
        return "corpus must have text, got none"
    return f"corpus must be one that sentencepiece can learn from, got its error {message!r}"


class UnigramSampler:
    """Draws segmentations of a unigram model: forward sums over the lattice of pieces, then a draw from the end.

    No piece crosses the sign ``▁`` of a word's start, so a text's lattice is that of its words in a row; the tables of
    a word are kept for its next occurrence.
    """

    PENALTY = 10.0  # an unknown character scores this much below the worst piece, as in sentencepiece

    def __init__(self, processor: sentencepiece.SentencePieceProcessor) -> None:
        self._ids = _ordinary_pieces(processor)
        self._scores = [processor.get_score(index) for index in range(processor.get_piece_size())]
        self._longest = max(map(len, self._ids), default=1)
        self._unk_id: int = processor.unk_id()
        self._unk_score = min((self._scores[index] for index in self._ids.values()), default=0.0) - self.PENALTY
        self._tables = functools.lru_cache(maxsize=2**16)(self._table)

    def encode(self, text: str, alpha: float, generator: random.Random) -> list[int]:
        """Draws a segmentation of a normalised text."""
        if not 0.0 <= alpha < math.inf:
            raise InputError(f"encode_sampled: alpha must be at least 0, got {alpha}")
        ids: list[int] = []
        for word in _words(text):
            table = self._tables(word, alpha) if len(word) < 64 else self._table(word, alpha)
            drawn: list[int] = []
            end = len(word)
            while end:
                draw = generator.random()
                for cumulated, start, index in table[end]:  # noqa: B007
                    if draw < cumulated:
                        break
                drawn.append(index)
                end = start
            ids.extend(reversed(drawn))
        return _merge_unknown(ids, self._unk_id)

    def _table(self, word: str, alpha: float) -> list[list[tuple[float, int, int]]]:
        """For each end of a piece: its possible (cumulated probability, start, id), given that a piece ends there."""
        forward = [0.0]  # forward[i]: log of the summed P(x)^alpha over the segmentations x of word[:i]
        table: list[list[tuple[float, int, int]]] = [[]]
        for end in range(1, len(word) + 1):
            arcs = []
            for start in range(max(0, end - self._longest), end):
                index = self._ids.get(word[start:end])
                if index is not None:
                    arcs.append((forward[start] + alpha * self._scores[index], start, index))
                elif start == end - 1:
                    arcs.append((forward[start] + alpha * self._unk_score, start, self._unk_id))
            top = max(logp for logp, _, _ in arcs)
            total = sum(math.exp(logp - top) for logp, _, _ in arcs)
            forward.append(top + math.log(total))
            cumulated = 0.0
            row = []
            for logp, start, index in arcs:
                cumulated += math.exp(logp - top) / total
                row.append((cumulated, start, index))
            table.append(row)  # a draw past the last sum, which may round to below 1, takes the last arc
        return table


class BPESampler:
    """Applies the merges of a BPE model best first and leaves each out at random."""

    LONGEST = 256  # characters merged at once; the cost is quadratic in it

    def __init__(self, processor: sentencepiece.SentencePieceProcessor) -> None:
        self._ids = _ordinary_pieces(processor)
        self._scores = {piece: processor.get_score(index) for piece, index in self._ids.items()}
        self._unk_id: int = processor.unk_id()

    def encode(self, text: str, alpha: float, generator: random.Random) -> list[int]:
        """Draws a segmentation of a normalised text."""
        if not 0.0 <= alpha <= 1.0:
            raise InputError(f"encode_sampled: alpha must be from 0 to 1 for BPE, got {alpha}")
        ids: list[int] = []
        for word in _words(text):
            for begin in range(0, len(word), self.LONGEST):
                pieces = self._merged(word[begin : begin + self.LONGEST], alpha, generator)
                ids.extend(self._ids.get(piece, self._unk_id) for piece in pieces)
        return _merge_unknown(ids, self._unk_id)

    def _merged(self, word: str, alpha: float, generator: random.Random) -> list[str]:
        pieces = list(word)
        while True:
            best, best_score = -1, -math.inf
            for place in range(len(pieces) - 1):
                score = self._scores.get(pieces[place] + pieces[place + 1])
                if score is None or (alpha > 0.0 and generator.random() < alpha):
                    continue
                if score > best_score:
                    best, best_score = place, score
            if best < 0:
                return pieces
            pieces[best : best + 2] = [pieces[best] + pieces[best + 1]]


def _sampler(processor: sentencepiece.SentencePieceProcessor) -> UnigramSampler | BPESampler:
    """The sampler for the model's type, which the Python interface tells only by what it can do."""
    if any(processor.is_byte(index) for index in range(processor.get_piece_size())):
        raise InputError("encode_sampled: model must be without byte pieces, got one with byte fallback")
    try:
        processor.nbest_encode("a", nbest_size=1)
    except RuntimeError:
        return BPESampler(processor)
    return UnigramSampler(processor)


def _ordinary_pieces(processor: sentencepiece.SentencePieceProcessor) -> dict[str, int]:
    return {
        processor.id_to_piece(index): index
        for index in range(processor.get_piece_size())
        if not (processor.is_control(index) or processor.is_unknown(index) or processor.is_unused(index))
    }


def _words(text: str) -> list[str]:
    """A normalised text cut before every sign of a word's start."""
    return re.findall("▁[^▁]*|[^▁]+", text)


def _merge_unknown(ids: list[int], unk_id: int) -> list[int]:
    """Runs of the unknown token become one, as sentencepiece has it."""
    if unk_id not in ids:
        return ids
    return [index for place, index in enumerate(ids) if index != unk_id or place == 0 or ids[place - 1] != unk_id]


def train_tokenizer(
    kind: str,
    lines: Iterable[str],
    *,
    vocab_size: int | None = None,
    min_count: int = 1,
    character_coverage: float = 1.0,
) -> CharTokenizer | WordTokenizer | SentencePieceTokenizer:
    """Learns a tokenizer from the lines of one corpus, or of both sides for a joint vocabulary.

    Args:
        kind: ``char``, ``word``, ``unigram`` or ``bpe``.
        vocab_size: the size, specials included; needed for ``unigram`` and ``bpe``, a bound for ``char`` and ``word``.
        min_count: rarer characters or words are unknown (``char`` and ``word``).
        character_coverage: the share of characters that are known (``unigram`` and ``bpe``).

    Raises:
        InputError: the kind is unknown, or the size is missing or does not suit the corpus.
    """
    if kind == "char":
        return CharTokenizer.train(lines, vocab_size=vocab_size, min_count=min_count)
    if kind == "word":
        return WordTokenizer.train(lines, vocab_size=vocab_size, min_count=min_count)
    if kind not in ("unigram", "bpe"):
        raise InputError(f"train_tokenizer: kind must be char, word, unigram or bpe, got {kind!r}")
    if vocab_size is None:
        raise InputError(f"train_tokenizer: vocab_size must be given for {kind}, got none")
    return SentencePieceTokenizer.train(
        lines, vocab_size=vocab_size, model_type=kind, character_coverage=character_coverage
    )


def load_tokenizer(prefix: str | Path) -> CharTokenizer | WordTokenizer | SentencePieceTokenizer:
    """The tokenizer that was saved under a prefix: ``PREFIX.spm``, ``PREFIX.chars.tsv`` or ``PREFIX.words.tsv``.

    Raises:
        InputError: none of these files exists, or more than one, or it is damaged.
    """
    kinds = (SentencePieceTokenizer, CharTokenizer, WordTokenizer)
    found = [kind for kind in kinds if Path(f"{prefix}{kind.suffix}").exists()]
    if len(found) != 1:
        names = ", ".join(f"{prefix}{kind.suffix}" for kind in kinds)
        raise InputError(f"{prefix}: tokenizer must be one of the files {names}, got {len(found)} of them")
    return found[0].load(prefix)
