"""Dates that people write: each has one reading, whatever the reader's language."""

import builtins
import datetime
import re
from pathlib import Path
from typing import Any

import pytest
from babel import Locale
from babel.dates import format_date

from seqkit.errors import InputError
from seqkit.tasks.dates import FIRST, LAST, LOCALES, human_dates, write_dates

PAIRS = human_dates(400, seed=7)


def spellings(locale: str, day: datetime.date) -> set[str]:
    """The ways to write a day in a language: all of the CLDR's, the ambiguous ones too, in three cases of letters."""
    formats = [Locale.parse(locale).date_formats[name].pattern for name in ("full", "long", "medium", "short")]
    formats += ["d MMMM y", "EEE d MMM y", "d MMM, y", "y MMM d", "d/M/y", "M/d/y"]
    texts = {format_date(day, format=pattern, locale=locale) for pattern in formats}
    return texts | {text.lower() for text in texts} | {text.upper() for text in texts}


def possible_days(text: str) -> set[datetime.date]:
    """The days whose year is the number of four digits in a text and whose day of the month is one of its numbers."""
    numbers = [int(number) for number in re.findall(r"\d+", text)]
    (year,) = (number for number in numbers if number > 31)
    days = set()
    for month in range(1, 13):
        for day in numbers:
            try:
                days.add(datetime.date(year, month, day))
            except ValueError:
                continue
    return days


@pytest.mark.parametrize(("text", "iso"), PAIRS[:60])
def test_a_date_has_one_reading_in_all_ten_languages(text: str, iso: str) -> None:
    readings = {
        day for day in possible_days(text) if any(text in spellings(locale, day) for locale in LOCALES)
    }  # fmt: skip
    assert readings == {datetime.date.fromisoformat(iso)}


def test_the_month_is_named_or_the_year_stands_first() -> None:
    for text, _ in PAIRS:
        letters = re.sub(r"[\W\d_]", "", text)
        assert letters or re.match(r"\d{4}", text), text
        assert re.search(r"\b\d{4}(\b|\D)", text), text  # and the year has its four digits


def test_all_ten_languages_and_the_whole_span_of_years_come_up() -> None:
    assert len(LOCALES) == 10
    days = [datetime.date.fromisoformat(iso) for _, iso in PAIRS]
    assert all(FIRST <= day <= LAST for day in days)
    assert {day.month for day in days} == set(range(1, 13))
    assert max(days).year - min(days).year > 80
    found = {
        locale for text, iso in PAIRS[:150]
        for locale in LOCALES if text in spellings(locale, datetime.date.fromisoformat(iso))
    }  # fmt: skip
    assert found == set(LOCALES)


def test_dates_are_unique_and_a_function_of_the_seed() -> None:
    assert len({text for text, _ in PAIRS}) == 400
    assert human_dates(400, seed=7) == PAIRS
    assert human_dates(400, seed=8) != PAIRS
    assert human_dates(0, seed=1) == []


def test_the_three_files_have_no_line_in_common(tmp_path: Path) -> None:
    paths = write_dates(tmp_path / "new" / "data", train=200, valid=30, test=20, seed=3)
    assert [path.name for path in paths] == ["train.tsv", "valid.tsv", "test.tsv"]
    lines = [path.read_text(encoding="utf-8").split("\n") for path in paths]
    assert [len(part) for part in lines] == [201, 31, 21]  # each file ends with a newline
    texts = [line.split("\t")[0] for part in lines for line in part[:-1]]
    assert len(set(texts)) == 250
    before = [path.read_bytes() for path in paths]
    write_dates(tmp_path / "new" / "data", train=200, valid=30, test=20, seed=3)
    assert [path.read_bytes() for path in paths] == before


def test_without_faker_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **named: Any) -> Any:
        if name == "faker":
            raise ModuleNotFoundError("No module named 'faker'", name="faker")
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"`faker` must be installed, .* \(pip install 'seqkit\[demo\]'\)"):
        human_dates(1, seed=1)
