"""The projector's folder, read back by its rules and by TensorBoard itself."""

import json
from pathlib import Path

import numpy as np
import pytest

from seqkit.embeddings import WordVectors
from seqkit.embeddings.projector import write_projector
from seqkit.errors import InputError

WORDS = ["the", "été", "日本", "3", '"quoted"', "a b", "#", "new york"]


def vectors() -> WordVectors:
    return WordVectors(WORDS, np.random.default_rng(1).normal(size=(len(WORDS), 3)).astype(np.float32))


def test_the_two_tables_have_a_line_a_word_and_no_heading(tmp_path: Path) -> None:
    write_projector(vectors(), tmp_path / "p")
    assert sorted(file.name for file in (tmp_path / "p").iterdir()) == [
        "metadata.tsv", "projector_config.pbtxt", "tensors.tsv",
    ]  # fmt: skip
    # The page splits at "\n" and drops lines of blanks; a first line with a tab would be a heading.
    lines = (tmp_path / "p" / "metadata.tsv").read_bytes().decode().split("\n")
    assert [line for line in lines if line.strip()] == WORDS
    rows = (tmp_path / "p" / "tensors.tsv").read_text().splitlines()
    found = np.array([list(map(float, row.split("\t"))) for row in rows], np.float32)
    assert (found == vectors().matrix).all()


def test_eight_bits_are_written_as_numbers(tmp_path: Path) -> None:
    vectors().save(tmp_path / "v.safetensors", dtype="int8")
    small = WordVectors.load(tmp_path / "v.safetensors")
    small.save(tmp_path / "p", "projector")
    found = np.loadtxt(tmp_path / "p" / "tensors.tsv", np.float32, delimiter="\t")
    assert (found == small.matrix).all()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_serves_words_and_vectors(tmp_path: Path) -> None:
    plugin = pytest.importorskip("tensorboard.plugins.projector.projector_plugin")
    from tensorboard.backend import application
    from tensorboard.plugins.base_plugin import TBContext
    from werkzeug.test import Client
    from werkzeug.wrappers import Response

    vectors().save(tmp_path / "p", "projector")

    made = plugin.ProjectorPlugin(TBContext(logdir=str(tmp_path / "p")))
    client = Client(application.TensorBoardWSGI([made]), Response)
    address = "/data/plugin/projector"
    (run,) = json.loads(client.get(f"{address}/runs").data)
    config = json.loads(client.get(f"{address}/info?run={run}").data)
    (embedding,) = config["embeddings"]
    assert (embedding["tensorPath"], embedding["metadataPath"]) == ("tensors.tsv", "metadata.tsv")
    assert embedding["tensorShape"] == [len(WORDS), 3]
    name = embedding["tensorName"]
    words = client.get(f"{address}/metadata?run={run}&name={name}&num_rows={len(WORDS)}").data.decode()
    assert words == "".join(word + "\n" for word in WORDS)
    numbers = client.get(f"{address}/tensor?run={run}&name={name}&num_rows={len(WORDS)}").data
    assert (np.frombuffer(numbers, np.float32).reshape(-1, 3) == vectors().matrix).all()


def test_a_folder_that_holds_something_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "mine").write_text("x")
    with pytest.raises(InputError, match="folder must be new or empty"):
        vectors().save(tmp_path / "p", "projector")
    for word in ("\u00a0", "a\tb", "a\u2028b"):
        with pytest.raises(InputError, match="word must not"):
            WordVectors([word], np.ones((1, 2), np.float32)).save(tmp_path / "q", "projector")
    with pytest.raises(InputError, match="got projector, which is a folder"):
        vectors().save("-", "projector")
    assert [path.name for path in tmp_path.rglob("*")] == ["p", "mine"]
