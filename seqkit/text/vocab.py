r"""Vocabularies: tokens and their numbers.

The first four ids are always the same: ``<pad>`` 0, ``<unk>`` 1, ``<s>`` 2, ``</s>`` 3; ordinary tokens follow. The
specials are reached by id only: a text that happens to contain the characters ``</s>`` gives an unknown token, never
the end symbol, so that no input can steer a model through its own vocabulary.

On disk a vocabulary is a table of two columns, token and count, whose line number is the id. Backslashes, tabs, line
breaks, control characters and lone surrogates are written as escapes (``\\ \t \n \r \u0007``), so that a line is a
token whatever the token holds.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from seqkit.atomic import write_atomically
from seqkit.errors import InputError

SPECIALS = ("<pad>", "<unk>", "<s>", "</s>")

_ESCAPED = re.compile("[\\\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_ESCAPE = re.compile(r"\\(?:u([0-9a-f]{4})|(.?))")
_NAMED = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_LETTERS = {written[1]: char for char, written in _NAMED.items()}


class Vocab:
    """Tokens numbered from 0, the four specials first.

    Args:
        tokens: ordinary tokens in the order of their ids, without the specials.
        counts: how often each was seen, in the same order; 0 where it is not given.

    Raises:
        InputError: a token comes twice or is a special, or the counts do not match the tokens.
    """

    pad_id = 0
    unk_id = 1
    bos_id = 2
    eos_id = 3

    def __init__(self, tokens: Sequence[str], counts: Sequence[int] | None = None) -> None:
        if counts is not None and len(counts) != len(tokens):
            raise InputError(f"Vocab: counts must be one a token, got {len(counts)} for {len(tokens)} tokens")
        self.tokens: tuple[str, ...] = (*SPECIALS, *tokens)
        self.counts: tuple[int, ...] = (0,) * len(SPECIALS) + (
            tuple(counts) if counts is not None else (0,) * len(tokens)
        )
        self._ids = {token: index for index, token in enumerate(self.tokens)}
        if len(self._ids) != len(self.tokens):
            twice = next(token for token, n in Counter(self.tokens).items() if n > 1)
            raise InputError(f"Vocab: tokens must differ from each other and from the specials, got {twice!r} twice")
        self._ordinary = {token: index for token, index in self._ids.items() if index >= len(SPECIALS)}

    @classmethod
    def build(cls, token_lists: Iterable[Iterable[str]], *, min_count: int = 1, max_size: int | None = None) -> Vocab:
        """The vocabulary of a tokenised corpus, most frequent token first, equals in code point order.

        Args:
            min_count: rarer tokens are left out.
            max_size: the largest length of the vocabulary, the four specials included.

        Raises:
            InputError: `max_size` leaves no room for the specials.
        """
        if max_size is not None and max_size < len(SPECIALS):
            raise InputError(f"Vocab.build: max_size must be at least {len(SPECIALS)}, got {max_size}")
        counter: Counter[str] = Counter()
        for tokens in token_lists:
            counter.update(tokens)
        for special in SPECIALS:
            counter.pop(special, None)
        ranked = sorted(((t, n) for t, n in counter.items() if n >= min_count), key=lambda pair: (-pair[1], pair[0]))
        if max_size is not None:
            ranked = ranked[: max_size - len(SPECIALS)]
        return cls([token for token, _ in ranked], [count for _, count in ranked])

    def __len__(self) -> int:
        return len(self.tokens)

    def __contains__(self, token: object) -> bool:
        return token in self._ids

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocab) and self.tokens == other.tokens and self.counts == other.counts

    def __hash__(self) -> int:
        return hash(self.tokens)

    def __repr__(self) -> str:
        return f"Vocab({len(self)} tokens)"

    def id(self, token: str) -> int:
        """The id of a token, a special's included; `unk_id` for a token that is not here."""
        return self._ids.get(token, self.unk_id)

    def token(self, index: int) -> str:
        """The token of an id.

        Raises:
            InputError: no token has this id.
        """
        if not 0 <= index < len(self.tokens):
            raise InputError(f"Vocab.token: id must be from 0 to {len(self) - 1}, got {index}")
        return self.tokens[index]

    def encode(self, tokens: Iterable[str]) -> list[int]:
        """The ids of ordinary tokens; `unk_id` for one that is not here or is spelled like a special."""
        get, unknown = self._ordinary.get, self.unk_id
        return [get(token, unknown) for token in tokens]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """The tokens of ids, specials included."""
        return [self.token(index) for index in ids]

    def save(self, path: str | Path) -> None:
        """Writes the table token<TAB>count, whole or not at all."""
        lines = (f"{_escape(token)}\t{count}\n" for token, count in zip(self.tokens, self.counts, strict=True))
        write_atomically(path, "".join(lines).encode())

    @classmethod
    def load(cls, path: str | Path) -> Vocab:
        """Reads what `save` wrote.

        Raises:
            InputError: the file is missing or is no such table; names the line.
        """
        try:
            text = Path(path).read_bytes().decode()
        except OSError as error:
            raise InputError(f"{path}: vocabulary must be a file that can be read, got {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: vocabulary must be UTF-8, got byte {error.start} that is not") from error
        lines = text.split("\n")
        if lines.pop() != "":
            raise InputError(f"{path}: vocabulary must end with a line break, got a file that was cut short")
        rows = [_row(line, f"{path}:{number}") for number, line in enumerate(lines, 1)]
        if tuple(token for token, _ in rows[: len(SPECIALS)]) != SPECIALS:
            raise InputError(f"{path}: first four lines must be {' '.join(SPECIALS)}, got {[t for t, _ in rows[:4]]}")
        return cls([token for token, _ in rows[len(SPECIALS) :]], [count for _, count in rows[len(SPECIALS) :]])


def _row(line: str, where: str) -> tuple[str, int]:
    """Token and count of one line of the table."""
    token, tab, count = line.partition("\t")
    if not tab or not (count.isascii() and count.isdigit()):
        raise InputError(f"{where}: line must be a token, a tab and a count, got {line[:80]!r}")
    return _unescape(token, where), int(count)


def _escape(token: str) -> str:
    return _ESCAPED.sub(lambda found: _NAMED.get(found[0], f"\\u{ord(found[0]):04x}"), token)


def _unescape(text: str, where: str) -> str:
    def char(found: re.Match[str]) -> str:
        if found[1]:
            return chr(int(found[1], 16))
        if found[2] not in _LETTERS:
            raise InputError(f"{where}: escape must be one of \\\\ \\t \\n \\r \\uXXXX, got {found[0]!r}")
        return _LETTERS[found[2]]

    return _ESCAPE.sub(char, text)
