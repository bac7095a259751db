"""The demo's data: dates as people write them in ten languages, and the same dates in ISO 8601.

Days are drawn by Faker; babel writes them in the formats of the CLDR. Of those only the unambiguous ones are used: the
month is named, or the year stands first. 3/4/1987 could be two days and is never made.
"""

from __future__ import annotations

import datetime
import random
from pathlib import Path

from seqkit.atomic import write_atomically
from seqkit.errors import InputError

LOCALES = ("en_US", "de_DE", "fr_FR", "es_ES", "it_IT", "nl_NL", "pl_PL", "ru_RU", "tr_TR", "ja_JP")
FIRST, LAST = datetime.date(1950, 1, 1), datetime.date(2049, 12, 31)


def human_dates(count: int, *, seed: int) -> list[tuple[str, str]]:
    """`count` different pairs of a human-written date and its ISO form.

    Raises:
        InputError: Faker or babel is not installed.
    """
    try:
        from babel.dates import format_date
        from faker import Faker
    except ImportError as error:
        raise InputError(
            f"demo: `{error.name}` must be installed, got no such package (pip install 'seqkit[demo]')"
        ) from None
    generator = random.Random(seed)
    fake = Faker()
    fake.seed_instance(seed)
    patterns = {locale: _unambiguous_patterns(locale) for locale in LOCALES}
    pairs: dict[str, str] = {}
    while len(pairs) < count:
        day = fake.date_between(FIRST, LAST)
        locale = generator.choice(LOCALES)
        text = format_date(day, format=generator.choice(patterns[locale]), locale=locale)
        style = generator.random()
        if style < 0.2:
            text = text.lower()
        elif style < 0.3:
            text = text.upper()
        pairs[text] = day.isoformat()
    return list(pairs.items())


def _unambiguous_patterns(locale: str) -> list[str]:
    """The CLDR date patterns of a locale, and a few that people use beside them, that have one reading."""
    from babel import Locale

    formats = Locale.parse(locale).date_formats
    patterns = {formats[name].pattern for name in ("full", "long", "medium", "short")}
    if not locale.startswith("ja"):
        patterns |= {"d MMMM y", "EEE d MMM y", "d MMM, y", "y MMM d"}
    return sorted(
        pattern for pattern in patterns
        if ("MMM" in pattern or pattern.startswith("y")) and "yy" not in pattern.replace("yyyy", "y")
    )  # fmt: skip


def write_dates(folder: Path, *, train: int, valid: int, test: int, seed: int) -> tuple[Path, Path, Path]:
    """Three .tsv files without a common line: human-written date, tab, ISO date."""
    pairs = human_dates(train + valid + test, seed=seed)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, start, stop in (
        ("train", 0, train),
        ("valid", train, train + valid),
        ("test", train + valid, len(pairs)),
    ):
        path = folder / f"{name}.tsv"
        write_atomically(path, "".join(f"{text}\t{iso}\n" for text, iso in pairs[start:stop]).encode())
        paths.append(path)
    return paths[0], paths[1], paths[2]
