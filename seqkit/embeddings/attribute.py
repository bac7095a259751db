"""The word lists that say what an attribute is, such as gender: by which words it shows, who keeps it, who must not.

A TOML file has these keys; all but the first two may be missing:

| key            | what it holds                                                                                    |
|----------------|--------------------------------------------------------------------------------------------------|
| `name`         | of the attribute                                                                                 |
| `definitional` | sets of words that differ by the attribute alone, one word for each group: `[["she", "he"], …]`  |
| `equalize`     | sets that come to lie symmetric about it                                                         |
| `seed`         | words that mean it, from which a classifier finds the others                                     |
| `specific`     | all words that mean it, in place of `seed`                                                       |
| `targets`      | words that should not have it, such as occupations: what is measured                             |
| `analogy`      | the two words whose analogies are looked for                                                     |
| `components`   | directions of its subspace; 1 unless said                                                        |
| `source`       | where the lists are from, for the report                                                         |
| `[[weat]]`     | an association test: `name`, and the sets `x`, `y`, `a`, `b`                                     |
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqkit.config import from_table, read_toml
from seqkit.embeddings.vectors import WordVectors
from seqkit.errors import InputError

LISTS = Path(__file__).with_name("lists")
SETS = ("definitional", "equalize")  # of several words each; the other lists are of words

Words = tuple[str, ...]
Sets = tuple[Words, ...]


@dataclass(frozen=True, kw_only=True)
class AssociationTest:
    """The four sets of a WEAT: targets x and y, attributes a and b."""

    name: str
    x: Words
    y: Words
    a: Words
    b: Words


@dataclass(frozen=True, kw_only=True)
class Attribute:
    """The word lists of an attribute; the fields are the keys of the file."""

    name: str
    definitional: Sets
    equalize: Sets = ()
    seed: Words = ()
    specific: Words = ()
    targets: Words = ()
    analogy: Words = ()
    components: int = 1
    source: str = ""
    weat: tuple[AssociationTest, ...] = ()

    def in_vocabulary(self, vectors: WordVectors) -> tuple[Attribute, dict[str, Words]]:
        """The lists as these vectors spell them, and the unknown words of each list.

        A word that the vectors lack becomes its lower case where they have that. Unknown words stay in the lists, and
        the functions leave them out.
        """

        def spelt(word: str) -> str:
            return word.lower() if word not in vectors and word.lower() in vectors else word

        def words(given: Words) -> Words:
            return tuple(dict.fromkeys(map(spelt, given)))

        def sets(given: Sets) -> Sets:
            return tuple(tuple(map(spelt, members)) for members in given)

        found = dataclasses.replace(
            self,
            definitional=sets(self.definitional), equalize=sets(self.equalize), seed=words(self.seed),
            specific=words(self.specific), targets=words(self.targets), analogy=words(self.analogy),
            weat=tuple(
                AssociationTest(name=test.name, x=words(test.x), y=words(test.y), a=words(test.a), b=words(test.b))
                for test in self.weat
            ),
        )  # fmt: skip
        lists: dict[str, Iterable[str]] = {
            "definitional": (word for members in found.definitional for word in members),
            "equalize": (word for members in found.equalize for word in members),
            **{name: getattr(found, name) for name in ("seed", "specific", "targets", "analogy")},
            **{f"weat {test.name}": test.x + test.y + test.a + test.b for test in found.weat},
        }
        unknown = {name: tuple(dict.fromkeys(word for word in given if word not in vectors))
                   for name, given in lists.items()}  # fmt: skip
        return found, {name: missing for name, missing in unknown.items() if missing}


def shipped() -> list[str]:
    """The names of the attributes that come with seqkit."""
    return sorted(path.stem for path in LISTS.glob("*.toml"))


def load_attribute(path: str | Path) -> Attribute:
    """The attribute of a TOML file, or of one that comes with seqkit, by its name.

    Raises:
        InputError: there is no such file, it is not TOML, a key is unknown or missing, or a list is none of words.
    """
    if str(path) in shipped():
        path = LISTS / f"{path}.toml"
    table = read_toml(Path(path))
    tests = table.pop("weat", [])
    if not isinstance(tests, list):
        raise InputError(f"{path}: weat must be tables that begin with [[weat]], got {type(tests).__name__}")
    found = _checked(table, where=str(path))
    made = []
    for number, test in enumerate(tests, 1):
        if not isinstance(test, dict):
            raise InputError(f"{path}: weat must be tables that begin with [[weat]], got {test!r}")
        made.append(from_table(AssociationTest, test, where=f"{path} [[weat]] {number}"))
    return dataclasses.replace(found, weat=tuple(made))


def with_json_list(attribute: Attribute, key: str, path: str | Path) -> Attribute:
    """The attribute with one list from a JSON file, such as those that Bolukbasi et al. gave out.

    Of an entry that is a list, where words are asked for, the first counts: their professions have two numbers more.

    Raises:
        InputError: there is no such file, it is not JSON, or it holds no such list.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: list must be a file that can be read, got {error.strerror}") from None
    except ValueError as error:  # of JSON or of UTF-8
        raise InputError(f"{path}: list must be JSON, got {error}") from None
    if key not in SETS and isinstance(found, list):
        found = [entry[0] if isinstance(entry, list) and entry else entry for entry in found]
    read = _checked({"name": "", "definitional": attribute.definitional, key: found}, where=str(path))
    changed: Attribute = dataclasses.replace(attribute, **{key: getattr(read, key)})
    return changed


def _checked(table: dict[str, Any], *, where: str) -> Attribute:
    found = from_table(Attribute, table, where=where)
    if not found.definitional:
        raise InputError(f"{where}: definitional must have a set of words, got none")
    for members in found.definitional + found.equalize:
        if len(members) < 2:
            raise InputError(f"{where}: a set must have two words or more, got {list(members)}")
    if len(found.analogy) not in (0, 2):
        raise InputError(f"{where}: analogy must be two words, got {len(found.analogy)}")
    if found.components < 1:
        raise InputError(f"{where}: components must be at least 1, got {found.components}")
    return found
