"""Word lists: what a file says is what is used, a wrong one is refused, those that are shipped are sound."""

import json
from pathlib import Path

import numpy as np
import pytest

from seqkit.embeddings import WordVectors
from seqkit.embeddings.attribute import Attribute, load_attribute, shipped, with_json_list
from seqkit.errors import InputError

LISTS = """
name = "faith"
definitional = [["Church", "mosque", "temple"]]
targets = ["Baker", "baker", "judge"]
components = 2
[[weat]]
name = "one"
x = ["Rich"]
y = ["poor"]
a = ["Church"]
b = ["mosque"]
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "faith.toml").write_text(LISTS)
    return tmp_path / "faith.toml"


def test_a_file_gives_the_fields(path: Path) -> None:
    found = load_attribute(path)
    assert (found.name, found.components, found.equalize, found.source) == ("faith", 2, (), "")
    assert found.definitional == (("Church", "mosque", "temple"),)
    (test,) = found.weat
    assert (test.name, test.x, test.b) == ("one", ("Rich",), ("mosque",))


def test_words_are_spelt_as_the_vectors_have_them(path: Path) -> None:
    vectors = WordVectors(["church", "mosque", "baker", "Rich", "rich"], np.eye(5, dtype=np.float32))
    found, unknown = load_attribute(path).in_vocabulary(vectors)
    assert found.definitional == (("church", "mosque", "temple"),)
    assert found.targets == ("baker", "judge")
    assert (found.weat[0].x, found.weat[0].a) == (("Rich",), ("church",))
    assert unknown == {"definitional": ("temple",), "targets": ("judge",), "weat one": ("poor",)}


@pytest.mark.parametrize("name", shipped())
def test_shipped_lists_are_sound(name: str) -> None:
    found = load_attribute(name)
    assert found.name == name
    assert len(found.targets) > 100
    assert found.weat
    for words in (found.seed, found.targets, *(words for test in found.weat for words in (test.x, test.y))):
        assert len(set(words)) == len(words)
    meant = {word for words in found.definitional + found.equalize for word in words} | set(found.seed)
    assert not meant & set(found.targets)
    assert set(found.analogy) in [set(words) for words in found.definitional]


def test_gender_has_the_ten_pairs_of_the_paper(shared_data: Path) -> None:
    pairs = json.loads((shared_data / "embeddings/definitional_pairs.json").read_text())
    assert load_attribute("gender").definitional == tuple(map(tuple, pairs))


def test_json_lists_take_the_place_of_one(path: Path, tmp_path: Path) -> None:
    given = load_attribute(path)
    (tmp_path / "p.json").write_text('[["nurse", 0.0, -1.0], ["judge", 0.5, 1.0], "cook"]')
    assert with_json_list(given, "targets", tmp_path / "p.json").targets == ("nurse", "judge", "cook")
    (tmp_path / "e.json").write_text('[["monk", "nun"]]')
    found = with_json_list(given, "equalize", tmp_path / "e.json")
    assert found == Attribute(**{**vars(given), "equalize": (("monk", "nun"),)})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name = 3\ndefinitional = [['a', 'b']]", "`name` must be a string, got 3"),
        ("name = 'x'", "`definitional` must be given"),
        ("name = 'x'\ndefinitional = []", "definitional must have a set of words, got none"),
        ("name = 'x'\ndefinitional = [['a']]", r"a set must have two words or more, got \['a'\]"),
        ("name = 'x'\ndefinitional = ['a']", "`definitional` must be a list, got 'a'"),
        ("name = 'x'\ndefinitional = [['a', 'b']]\ntarget = []", r"must be a known key.*did you mean `targets`"),
        ("name = 'x'\ndefinitional = [['a', 'b']]\nanalogy = ['a']", "analogy must be two words, got 1"),
        ("name = 'x'\ndefinitional = [['a', 'b']]\ncomponents = 0", "components must be at least 1, got 0"),
        ("name = 'x'\ndefinitional = [['a', 'b']]\nweat = 3", r"begin with \[\[weat\]\], got int"),
        ("name = 'x'\ndefinitional = [['a', 'b']]\nweat = [3]", r"begin with \[\[weat\]\], got 3"),
        ("name = 'x'\ndefinitional = [['a', 'b']]\n[[weat]]\nname = 'w'", r"\[\[weat\]\] 1: `x` must be given"),
        ("name = ", "must be TOML"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(InputError, match=says):
        load_attribute(tmp_path / "x.toml")


def test_wrong_json_is_refused(path: Path, tmp_path: Path) -> None:
    given = load_attribute(path)
    (tmp_path / "x.json").write_text("[1, 2]")
    with pytest.raises(InputError, match="`seed` must be a string, got 1"):
        with_json_list(given, "seed", tmp_path / "x.json")
    (tmp_path / "x.json").write_text("[")
    with pytest.raises(InputError, match="list must be JSON"):
        with_json_list(given, "seed", tmp_path / "x.json")
    with pytest.raises(InputError, match="list must be a file that can be read"):
        with_json_list(given, "seed", tmp_path / "none.json")
    with pytest.raises(InputError, match="must be readable"):
        load_attribute(tmp_path / "none.toml")
