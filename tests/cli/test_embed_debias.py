"""`seqkit embed debias`: the table on stdout, talk on stderr, vectors and report whole or not at all."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqkit.embeddings import WordVectors
from seqkit.embeddings.fasttext import SubwordVectors

WORDS = ["she", "he", "woman", "man", "queen", "king", "nurse", "surgeon", *(f"w{n}" for n in range(80))]
LISTS = """
name = "gender"
definitional = [["she", "he"], ["Woman", "man"]]
equalize = [["queen", "king"]]
seed = ["queen", "king", "empress"]
targets = ["nurse", "surgeon", "baker"]
analogy = ["she", "he"]
[[weat]]
name = "care or craft"
x = ["nurse", "w1"]
y = ["surgeon", "w2"]
a = ["she"]
b = ["he"]
[[weat]]
name = "unknown"
x = ["none"]
y = ["surgeon"]
a = ["she"]
b = ["he"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    drawn = np.random.default_rng(0).standard_normal((len(WORDS), 8)).astype(np.float32)
    drawn[:, 0] += 2.0 * np.where(np.arange(len(WORDS)) % 2, -1, 1)
    WordVectors(WORDS, drawn).save(tmp_path / "v.safetensors")
    (tmp_path / "lists.toml").write_text(LISTS)
    (tmp_path / "q").write_text(": royal\nman king woman queen\nman king woman pear\n")
    (tmp_path / "s").write_text("king queen 5\nking man 9\nman woman 1\nking pear 3\n")
    return tmp_path


def test_hard_debiasing_prints_both_sides_and_writes_vectors_and_page(seqkit: Any, folder: Path) -> None:
    pytest.importorskip("matplotlib")
    ran = seqkit(
        "embed", "debias", folder / "v.safetensors", "-o", folder / "out.vec", "--lists", folder / "lists.toml",
        "--analogies", folder / "q", "--similarity", folder / "s", "--report", folder / "report.html",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    rows = {line.rsplit("  ", 2)[0].strip(): line for line in ran.lines}
    cells = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in ran.lines]
    table = {row[0]: row[1:] for row in cells}
    assert cells[0] == ["measure", "before", "after"]
    assert len({len(line) for line in rows.values()}) == 1
    old, new = map(float, table["direct bias of 2 targets"])
    assert old > 0.3
    assert new < 1e-6
    assert "WEAT care or craft" in table
    assert "WEAT unknown" not in table
    assert table["analogies, 1 of 2"][0].endswith("%")
    assert table["s, 3 of 4"][0].startswith("rho ")
    for sentence in (
        "6 words mean gender and keep it, 0 of them found by the classifier",
        "seed: left out 1 without a vector: empress",
        "targets: left out 1 without a vector: baker",
        "weat unknown: left out 1 without a vector: none",
    ):
        assert sentence in ran.err
    after = WordVectors.load(folder / "out.vec")
    assert after.words == WORDS
    assert abs(after.similarity("nurse", "queen") - after.similarity("nurse", "king")) < 1e-5
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "direct bias of 2 targets" in page
    assert "she–he" in page


@pytest.mark.parametrize(
    ("method", "facts"),
    [("hard", set()), ("soft", {"weight"}), ("double-hard", {"component", "purities"}),
     ("inlp", {"removed", "accuracies"})],
)  # fmt: skip
def test_each_method_lowers_the_direct_bias(seqkit: Any, folder: Path, method: str, facts: set[str]) -> None:
    ran = seqkit(
        "embed", "debias", folder / "v.safetensors", "-o", folder / "out.safetensors",
        "--lists", folder / "lists.toml", "--method", method, "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    record = json.loads(ran.out)
    assert record["method"] == method
    assert facts <= set(record)
    assert record["after"]["direct_bias"] < record["before"]["direct_bias"]
    assert set(record["before"]["projections"]) == {"nurse", "surgeon"}
    assert record["before"]["weat"][1] == {"name": "unknown", "effect": None, "p": None}
    assert record["before"]["analogies"] is None
    assert record["unknown"]["targets"] == ["baker"]
    after = WordVectors.load(folder / "out.safetensors")
    np.testing.assert_allclose(np.linalg.norm(after.matrix, axis=1), 1, atol=1e-5)


def test_json_lists_take_the_place_of_the_files(seqkit: Any, folder: Path) -> None:
    (folder / "t.json").write_text('[["w5", 0.1, 0.2], ["w6", 0.0, 0.0], ["w7", 0.0, 0.0]]')
    (folder / "g.json").write_text('["queen", "w7"]')
    ran = seqkit(
        "embed", "debias", folder / "v.safetensors", "-o", folder / "out.bin", "--lists", folder / "lists.toml",
        "--targets", folder / "t.json", "--specific", folder / "g.json", "--json",
    )  # fmt: skip
    record = json.loads(ran.out)
    assert record["targets"] == ["w5", "w6"]  # w7 means it
    assert (record["specific"], record["found"]) == (7, [])


def test_gender_is_there_without_a_file(seqkit: Any, folder: Path) -> None:
    ran = seqkit("embed", "debias", folder / "v.safetensors", "-o", folder / "out.safetensors", "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["attribute"] == "gender"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("V", "-o", "out.npz"), "format must be one of"),
        (("V", "-o", "-"), "-o: path must be a file's, as stdout has the table"),
        (("V", "-o", "out.bin", "--report", "-"), "--report: path must be a file's, as stdout has the table"),
        (("V", "-o", "out.bin", "--report", "."), "--report: path must be a file's, got the folder ."),
        (("V", "-o", "no/out.bin"), "path must be in a folder that can be written"),
        (("none", "-o", "out.bin"), "vectors must be a file that can be read"),
        (("V", "-o", "out.bin", "--attribute", "gendre"), "name must be one of gender, got gendre (did you mean"),
        (("V", "-o", "out.bin", "--lists", "none.toml"), "must be readable"),
        (("V", "-o", "out.bin", "--seed", "none.json"), "list must be a file that can be read"),
        (("V", "-o", "out.bin", "--weight", "3"), "--weight: method must be soft, got hard"),
        (("V", "-o", "out.bin", "--method", "soft", "--weight", "-1"), "weight must be 0 or more"),
        (("V", "-o", "out.bin", "--similarity", "none"), "questions must be a file that can be read"),
        (("V", "-o", "out.bin", "--lists", "other.toml"), "a set must have vectors for all its words"),
    ],
)
def test_bad_input_ends_with_2_a_sentence_and_no_file(
    seqkit: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], says: str
) -> None:
    monkeypatch.chdir(folder)
    (folder / "other.toml").write_text('name = "x"\ndefinitional = [["sun", "moon"]]\n')
    before = set(folder.iterdir())
    ran = seqkit("embed", "debias", *("v.safetensors" if each == "V" else each for each in arguments))
    assert (ran.code, ran.out) == (2, b"")
    assert says in ran.err
    assert ran.err.count("\n") == 1
    assert set(folder.iterdir()) == before


def test_a_report_that_cannot_be_drawn_is_told_before_the_work(
    seqkit: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    ran = seqkit("embed", "debias", folder / "none", "-o", folder / "o.bin", "--report", folder / "r.html")
    assert ran.code == 2
    assert "matplotlib must be installed" in ran.err  # and not that there are no vectors


def test_the_classifier_finds_words_but_no_targets(seqkit: Any, tmp_path: Path) -> None:
    drawn = np.random.default_rng(4).standard_normal((400, 8)) * 0.4
    drawn[:80, 1] += 4  # words that mean it, among them a target and w75
    drawn[:, 0] += np.where(np.arange(400) % 2, -1, 1)
    WordVectors([f"w{n}" for n in range(400)], drawn.astype(np.float32)).save(tmp_path / "v.safetensors")
    seed = [f"w{n}" for n in range(70)]
    (tmp_path / "lists.toml").write_text(
        f'name = "x"\ndefinitional = [["w0", "w1"]]\nseed = {json.dumps(seed)}\ntargets = ["w75", "w200"]\n'
    )
    ran = seqkit(
        "embed", "debias", tmp_path / "v.safetensors", "-o", tmp_path / "out.bin", "--lists", tmp_path / "lists.toml",
        "--json",
    )  # fmt: skip
    record = json.loads(ran.out)
    assert record["found"] == [f"w{n}" for n in range(70, 80) if n != 75]
    assert record["targets"] == ["w75", "w200"]


def test_subwords_are_not_kept_and_it_is_said(seqkit: Any, folder: Path) -> None:
    generator = np.random.default_rng(3)
    matrix = generator.standard_normal((len(WORDS), 8)).astype(np.float32)
    ngrams = generator.standard_normal((50, 8)).astype(np.float32)
    given = SubwordVectors(WORDS, matrix, ngrams, np.arange(50, dtype=np.int32), (3, 4, 50))
    given.save(folder / "v.bin")
    ran = seqkit("embed", "debias", folder / "v.bin", "-o", folder / "out.bin", "--lists", folder / "lists.toml")
    assert ran.code == 0, ran.err
    assert "warning: subwords are not kept" in ran.err
    assert type(WordVectors.load(folder / "out.bin")) is WordVectors
