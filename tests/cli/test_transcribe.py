"""`seqkit transcribe` and `seqkit evaluate` of a CTC model, on a tiny model trained by `seqkit train`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toy_recordings import CONFIG, write_recordings

pytest.importorskip("soundfile")


@pytest.fixture(scope="module")
def run(seqkit: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ctc")
    (folder / "texts").write_text("\n".join(write_recordings(folder)))
    (folder / "config.toml").write_text(CONFIG)
    ran = seqkit("train", folder / "config.toml", "-o", folder / "run", "--threads", "1")
    assert ran.code == 0, ran.err
    assert "error_rate 0.0000" in ran.err
    return folder / "run"


def texts(run: Path) -> list[str]:
    return (run.parent / "texts").read_text().splitlines()


def test_files_are_transcribed_in_their_order(seqkit: Any, run: Path, tmp_path: Path) -> None:
    files = [run.parent / f"sounds/{place}.wav" for place in (3, 0, 7)]
    expected = [texts(run)[place] for place in (3, 0, 7)]
    assert seqkit("transcribe", run, *files).lines == expected
    stdin = "".join(f"{file}\n" for file in files).encode()
    assert seqkit("transcribe", run, "-", stdin=stdin).lines == expected
    assert seqkit("transcribe", run, *files, "--beam", "10").lines == expected
    assert seqkit("transcribe", run, *files, "-o", tmp_path / "out").code == 0
    assert (tmp_path / "out").read_text().splitlines() == expected


def test_words_have_their_times(seqkit: Any, run: Path) -> None:
    file = run.parent / "sounds/0.wav"
    words = texts(run)[0].split()
    (line,) = seqkit("transcribe", run, file, "--timestamps").lines
    times = [float(part) for part in line.split()[::2]]
    assert line.split()[1::2] == words
    assert times == sorted(times)
    (record,) = map(json.loads, seqkit("transcribe", run, file, "--json").lines)
    assert record["path"] == str(file)
    assert record["text"] == " ".join(words)
    assert record["score"] < 0.0
    assert [round(word["start"], 2) for word in record["words"]] == times


def test_a_language_model_and_hot_words_are_asked(seqkit: Any, run: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("\n".join(texts(run)) + "\n")
    assert seqkit("ngram", "train", tmp_path / "text", "-o", tmp_path / "lm.arpa", "--order", "2").code == 0
    (tmp_path / "hot").write_text("low\nmid high\n")
    call = ("transcribe", run, run.parent / "sounds/2.wav", "--beam", "10")
    assert seqkit(*call, "--lm", tmp_path / "lm.arpa", "--lm-weight", "0.3").lines == [texts(run)[2]]
    hot = (*call, "--hot-words", tmp_path / "hot", "--hot-word-weight")
    assert seqkit(*hot, "0").lines == [texts(run)[2]]
    (many,) = seqkit(*hot, "8").lines  # so heavy that it is heard where it is not
    assert many.split().count("low") > texts(run)[2].split().count("low")


def test_a_broken_file_gives_an_empty_line_and_exit_code_2(seqkit: Any, run: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    good = run.parent / "sounds/0.wav"
    ran = seqkit("transcribe", run, tmp_path / "broken.wav", good)
    assert ran.code == 2
    assert ran.lines == ["", texts(run)[0]]
    assert "broken.wav: audio must be a file that libsndfile decodes" in ran.err
    ran = seqkit("transcribe", run, tmp_path / "broken.wav", "--json")
    assert json.loads(ran.lines[0]) == {"path": str(tmp_path / "broken.wav"), "text": None, "score": None, "words": []}


def test_it_is_measured_on_a_manifest(seqkit: Any, run: Path) -> None:
    n = sum(len(text.split()) for text in texts(run))
    lines = seqkit("evaluate", run, run.parent / "train.tsv").lines
    assert lines[0].startswith(f"label error rate = 0.00 % (0 of {n}: 0 substituted, 0 deleted, 0 inserted; 0 of 40")
    assert lines[-1].endswith(" nats a label")
    found = json.loads(seqkit("evaluate", run, run.parent / "train.tsv", "--json").lines[0])
    assert found["recordings"] == 40
    assert found["labels"]["error_rate"] == 0.0
    assert found["words"]["total"] == n


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("transcribe", "none"), "none: the model must be a run folder with a config.toml, got none"),
        (("transcribe", "RUN", "-", "a.wav"), "transcribe: `-` must be given alone, got 2 names"),
        (("transcribe", "RUN", "--lm", "a.arpa"), "`beam_size` must be at least 1 to ask a language model, got 0"),
        (("transcribe", "RUN", "--beam", "-1"), "`beam_size` must be at least 0, got -1"),
        (("transcribe", "RUN", "--beam", "2", "--lm", "none.arpa"), "none.arpa"),
        (("transcribe", "RUN", "--hot-words", "none"), "none: corpus must be a file that can be read"),
        (("tag", "RUN"), "`task` must be tagging, got 'ctc'"),
        (("evaluate", "RUN", "none"), "none: corpus must be a file that can be read"),
    ],
)
def test_what_is_wrong_is_told(seqkit: Any, run: Path, arguments: tuple[str, ...], sentence: str) -> None:
    ran = seqkit(*(run if argument == "RUN" else argument for argument in arguments))
    assert ran.code == 2
    assert sentence in ran.err
    assert ran.out == b""
