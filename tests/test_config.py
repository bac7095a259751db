from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from seqkit.config import apply_overrides, from_table, nearest, option, read_toml, resolve_path, to_table, write_toml
from seqkit.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Options:
    name: str = field(metadata={"help": "must be given"})
    size: int = option(3, "how many")
    rate: float = option(0.5, "how fast")
    mode: str = option("slow", "which", choices=("slow", "fast"))
    whole: bool = option(False, "all of it")
    paths: list[str] = option([], "where")  # noqa: RUF009
    betas: tuple[float, ...] = option((0.9, 0.98), "two decays")
    limit: int | None = option(None, "at most")
    either: int | str = option(1, "a number or a word")


def made(**table: Any) -> Options:
    return from_table(Options, {"name": "x", **table}, where="c.toml [part]")


def test_missing_keys_take_their_defaults() -> None:
    assert made() == Options(name="x")
    assert made().paths is not made().paths  # no list is shared


@pytest.mark.parametrize(
    ("table", "changes"),
    [
        ({"size": 4, "rate": 2}, {"size": 4, "rate": 2.0}),
        ({"mode": "fast", "whole": True}, {"mode": "fast", "whole": True}),
        ({"paths": ["a", "b"]}, {"paths": ["a", "b"]}),
        ({"betas": [1, 0.5]}, {"betas": (1.0, 0.5)}),
        ({"limit": 3}, {"limit": 3}),
        ({"either": "many"}, {"either": "many"}),
    ],
)
def test_values_of_the_right_type_are_taken(table: dict[str, Any], changes: dict[str, Any]) -> None:
    config = made(**table)
    assert config == replace(Options(name="x"), **changes)
    for name, value in changes.items():
        assert type(getattr(config, name)) is type(value)


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"sise": 1}, "`sise` must be a known key, got an unknown one (did you mean `size`?)"),
        ({"zzz": 1}, "`zzz` must be a known key, got an unknown one"),
        ({"size": "4"}, "`size` must be a whole number, got '4'"),
        ({"size": 4.0}, "`size` must be a whole number, got 4.0"),
        ({"size": True}, "`size` must be a whole number, got True"),
        ({"rate": False}, "`rate` must be a number, got False"),
        ({"rate": "fast"}, "`rate` must be a number, got 'fast'"),
        ({"whole": 1}, "`whole` must be true or false, got 1"),
        ({"name": 3}, "`name` must be a string, got 3"),
        ({"mode": "fasst"}, "`mode` must be one of slow, fast, got `fasst` (did you mean `fast`?)"),
        ({"paths": "a"}, "`paths` must be a list, got 'a'"),
        ({"paths": [1]}, "`paths` must be a string, got 1"),
        ({"limit": "3"}, "`limit` must be int, got '3'"),
        ({"either": 1.5}, "`either` must be int or str, got 1.5"),
    ],
)
def test_wrong_keys_and_values_are_named(table: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError) as error:
        made(**table)
    assert str(error.value) == f"c.toml [part]: {sentence}"


def test_a_key_without_default_must_be_given() -> None:
    with pytest.raises(InputError, match=r"c: `name` must be given, got nothing"):
        from_table(Options, {}, where="c")


def test_a_config_survives_toml(tmp_path: Path) -> None:
    config = made(size=9, betas=[0.5, 0.25], paths=["a b", 'quote "', "é"], name="line\nbreak")
    (tmp_path / "c.toml").write_text(write_toml({"part": to_table(config)}), encoding="utf-8")
    table = read_toml(tmp_path / "c.toml")["part"]
    assert "limit" not in table  # TOML has no null
    assert from_table(Options, table, where="c") == config


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    with pytest.raises(InputError, match=r"c\.toml: the config file must be readable, got: No such file"):
        read_toml(path)
    path.write_text("a = \n")
    with pytest.raises(InputError, match=r"c\.toml: the config file must be TOML, got: Invalid value"):
        read_toml(path)
    path.write_bytes(b"a = '\xff'")
    with pytest.raises(InputError, match="readable, got: it is not UTF-8"):
        read_toml(path)


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("a.b=3", 3),
        ("a.b=3e-4", 3e-4),
        ("a.b=true", True),
        ("a.b='3'", "3"),
        ("a.b=[1, 2]", [1, 2]),
        ("a.b=power:0.7", "power:0.7"),
        ("a.b=x=y", "x=y"),
        ("a.b=", ""),
        (" a.b =3", 3),
    ],
)
def test_an_override_is_toml_or_else_text(override: str, value: object) -> None:
    tables: dict[str, Any] = {"a": {"b": 0, "c": 1}}
    apply_overrides(tables, [override])
    assert tables == {"a": {"b": value, "c": 1}}


def test_overrides_apply_in_order_and_make_sections() -> None:
    tables: dict[str, Any] = {}
    apply_overrides(tables, ["x.y=1", "x.y=2", "top=3"])
    assert tables == {"x": {"y": 2}, "top": 3}


@pytest.mark.parametrize("override", ["a.b", "=3", "a.=3", ".b=3", ""])
def test_an_override_of_another_form_is_refused(override: str) -> None:
    with pytest.raises(InputError, match=r"must be section\.key=value, got"):
        apply_overrides({}, [override])
    with pytest.raises(InputError, match="`a` must be a section, got a value"):
        apply_overrides({"a": 3}, ["a.b=1"])


def test_nearest_offers_only_what_is_close() -> None:
    assert nearest("trian", ["train", "score"]) == " (did you mean `train`?)"
    assert nearest("qqqqq", ["train", "score"]) == ""


def test_paths_start_at_the_config_and_take_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQKIT_A", "/data")
    monkeypatch.setenv("SEQKIT_B", "part")
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("SEQKIT_NO_SUCH", raising=False)
    folder = Path("configs")
    assert resolve_path("a.tsv", folder) == "configs/a.tsv"
    assert resolve_path("/a.tsv", folder) == "/a.tsv"
    assert resolve_path("$SEQKIT_A/${SEQKIT_B}.tsv", folder) == "/data/part.tsv"
    assert resolve_path("$SEQKIT_B/a.tsv", folder) == "configs/part/a.tsv"
    assert resolve_path("~/a.tsv", folder) == "/home/me/a.tsv"
    with pytest.raises(InputError, match="environment variable SEQKIT_NO_SUCH must be set, got nothing"):
        resolve_path("$SEQKIT_NO_SUCH/a", folder)
