"""`seqkit translate`: N lines in, N lines out, and the formats of its output."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seqkit.decode.options import BeamOptions
from seqkit.decode.sampling import greedy
from seqkit.models.encoder_decoder import Source
from seqkit.tasks.translator import Translator
from seqkit.text.batch import pad

HOSTILE = [
    b"abc",
    b"",
    b"  \t ",
    b"\xff\xfe",
    b"a\x00b",
    b"abc\r",
    b"a\rb",
    "ab\u2028cd\u0085d".encode(),
    b"a" * (1 << 20),
    b"\xed\xa0\x80",
    b"\xe2\x80",
    "e\u0301".encode() * 30,
    b"|||",
    b"a" * 1100,
    b"abc",
]
BLANK = 2  # characters like any other to this model
TEXT = [index for index in range(len(HOSTILE)) if index not in (1, 2, 3, 8, 9, 10, 13)]
LINES = ["abc", "dd a", "éab", "c", "bcdab", "abcde", "zz"]


@pytest.fixture
def translate(seqkit: Any, tiny_run: Path) -> Callable[..., Any]:
    def translate(*flags: str | Path, lines: list[str] | None = None, stdin: bytes | None = None) -> Any:
        given = "".join(line + "\n" for line in (lines or LINES)).encode() if stdin is None else stdin
        return seqkit("translate", tiny_run, *flags, "--threads", "1", stdin=given)

    return translate


def test_hostile_lines_come_out_one_for_one(translate: Any) -> None:
    ran = translate(stdin=b"\n".join(HOSTILE))  # no newline at the end
    assert ran.code == 0
    assert len(ran.lines) == len(HOSTILE)
    assert [index for index, line in enumerate(ran.lines) if line and index != BLANK] == TEXT
    assert ran.lines[0] == ran.lines[5] == ran.lines[14] == translate(lines=["abc"]).lines[0]
    assert ran.lines[7] == translate(lines=["ab\u2028cd\u0085d"]).lines[0]
    warned = dict(re.findall(r"seqkit translate: warning: line (\d+): (.*)", ran.err))
    assert list(warned) == ["4", "9", "10", "11", "14"]
    assert warned["4"] == "not UTF-8 at byte 1; not translated"
    assert "longer than 1024 tokens" in warned["9"]
    assert "1101 tokens, at most 1024 are translated" in warned["14"]
    assert ran.err.count("\n") == 5


@pytest.mark.parametrize(
    ("stdin", "count"), [(b"", 0), (b"\n", 1), (b"\n\n\n", 3), (b"abc", 1), (b"\r\n\r", 2), (b"\x00", 1)]
)
def test_as_many_lines_come_out_as_went_in(translate: Any, stdin: bytes, count: int) -> None:
    ran = translate(stdin=stdin)
    assert (ran.code, len(ran.lines)) == (0, count)
    assert len(translate("--json", stdin=stdin).lines) == count


def test_batch_size_changes_no_byte(translate: Any) -> None:
    stdin = b"\n".join([*HOSTILE, *(line.encode() for line in 9 * LINES)])
    flags = ("--beam", "4", "--nbest", "2", "--json")
    ran = translate(*flags, stdin=stdin)
    assert len(ran.lines) == len(HOSTILE) + 9 * len(LINES)
    for batch in ("1", "7", "64"):
        assert translate(*flags, "--batch-size", batch, stdin=stdin).out == ran.out
    assert translate(*flags, "--batch-tokens", "30", stdin=stdin).out == ran.out


def test_order_moves_lines_and_changes_none(translate: Any) -> None:
    assert translate(lines=LINES[::-1]).lines == translate().lines[::-1]


def test_beam_of_one_equals_greedy(translate: Any, tiny_run: Path) -> None:
    translator = Translator.load(tiny_run)
    target = translator.target
    tokens, lengths = pad([translator.encode(line) for line in LINES], pad_id=translator.source.pad_id)
    options = BeamOptions(beam_size=1, max_length=translator.search.max_length)
    found = greedy(
        translator.model, Source(tokens, lengths, False), options,
        bos_id=target.bos_id, eos_id=target.eos_id, suppress=(target.pad_id, target.bos_id),
    )  # fmt: skip
    assert translate("--beam", "1").lines == [target.decode(each.tokens) for each in found]


def test_search_flags_take_the_place_of_the_config(translate: Any) -> None:
    assert translate().out == translate("--beam", "3", "--max-length", "12").out
    assert all(len(line) <= 2 for line in translate("--max-length", "2").lines)
    longer = translate("--min-length", "9").lines
    assert all(len(line) >= 9 for line in longer)
    assert longer != translate().lines


def test_json_is_one_object_a_line(translate: Any) -> None:
    ran = translate("--json", "--nbest", "2", "--alignments", stdin=b"ab\xc3\xa9\n\n\xff\nzc\n")
    records = [json.loads(line) for line in ran.lines]
    assert [record["line"] for record in records] == [1, 2, 3, 4]
    assert [record["source"] for record in records] == ["abé", "", "", "zc"]
    assert [len(record["hypotheses"]) for record in records] == [2, 0, 0, 2]
    assert records[0]["source_pieces"] == ["a", "b", "é", "</s>"]
    assert records[3]["source_pieces"] == ["<unk>", "c", "</s>"]
    for hypothesis in records[0]["hypotheses"]:
        assert hypothesis["text"] == "".join(hypothesis["pieces"])
        assert hypothesis["logprob"] == pytest.approx(sum(hypothesis["token_logprobs"]), abs=1e-5)
        length = len(hypothesis["pieces"]) + hypothesis["ended"]
        assert len(hypothesis["token_logprobs"]) == length
        assert hypothesis["score"] == pytest.approx(hypothesis["logprob"] / length**0.7, abs=1e-5)
        assert [target for _, target in hypothesis["alignment"]] == list(range(len(hypothesis["pieces"])))
        assert all(0 <= source < 4 for source, _ in hypothesis["alignment"])
    scores = [hypothesis["score"] for hypothesis in records[0]["hypotheses"]]
    assert scores == sorted(scores, reverse=True)
    plain = translate("--nbest", "2", stdin=b"ab\xc3\xa9\n").lines
    assert [line.split(" ||| ")[1] for line in plain] == [each["text"] for each in records[0]["hypotheses"]]


def test_nbest_lines_hold_number_text_and_score(translate: Any) -> None:
    lines = translate("--nbest", "3", "--beam", "3", lines=["abc", "", "d"]).lines
    assert [line.split(" ||| ")[0] for line in lines] == ["0", "0", "0", "1", "2", "2", "2"]
    assert lines[3] == "1 |||  ||| "
    best = translate(lines=["abc", "", "d"]).lines
    assert [lines[0].split(" ||| ")[1], lines[4].split(" ||| ")[1]] == [best[0], best[2]]
    for group in (lines[:3], lines[4:]):
        scores = [float(line.split(" ||| ")[2]) for line in group]
        assert scores == sorted(scores, reverse=True)
        assert all(score < 0 for score in scores)


def test_alignments_have_at_most_a_pair_for_each_target_token(translate: Any) -> None:
    for line, plain in zip(translate("--alignments").lines, translate().lines, strict=True):
        text, pairs = line.split(" ||| ")
        assert text == plain
        targets = [int(pair.split("-")[1]) for pair in pairs.split()]
        assert targets == sorted(set(targets))  # those that look at the end symbol have no pair
        assert set(targets) <= set(range(len(text)))


def test_output_goes_to_a_file_whole_or_not_at_all(translate: Any, tmp_path: Path) -> None:
    ran = translate("-o", tmp_path / "out")
    assert (ran.code, ran.out) == (0, b"")
    assert (tmp_path / "out").read_bytes() == translate().out
    (tmp_path / "in").write_bytes(b"abc\n")
    assert translate(tmp_path / "in", "-o", tmp_path / "out", "--batch-size", "0").code == 2
    assert (tmp_path / "out").read_bytes() == translate().out  # the old content
    assert translate(tmp_path / "in", "-o", tmp_path / "out").code == 0
    assert (tmp_path / "out").read_bytes() == translate(lines=["abc"]).out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_an_ensemble_of_a_model_with_itself_changes_nothing(translate: Any, tiny_run: Path) -> None:
    assert translate("--ensemble", tiny_run, "--ensemble", tiny_run).out == translate().out


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--beam", "0"], "`beam_size` must be at least 1, got 0"),
        (["--nbest", "9"], "`n_best` must be at most `beam_size` (3), got 9"),
        (["--length-penalty", "powr"], "`length_penalty` must be `none`, `power:ALPHA` or `gnmt:ALPHA`, got 'powr'"),
        (["--batch-tokens", "0"], "batch size must be at least 1, got 0"),
        (["--max-source-tokens", "0"], "--max-source-tokens: the count must be at least 1, got 0"),
        (["--device", "abacus"], "device must be one that this torch can use, got `abacus`"),
        (["--ensemble", "nowhere"], "nowhere: the model must be a run folder with a config.toml, got none"),
        (["nowhere.txt"], "nowhere.txt: the input must be a readable file, got: No such file or directory"),
        (["-o", "no/where"], "no/where: path must be in a folder that can be written"),
        (["-o", "."], "path must be a file, got a folder"),
    ],
)
def test_wrong_flags_end_with_one_sentence(translate: Any, flags: list[str], sentence: str) -> None:
    ran = translate(*flags)
    assert (ran.code, ran.out) == (2, b"")
    assert sentence in ran.err
    assert ran.err.startswith("seqkit translate: ")
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize("where", ["length", "header", "weights", "end"])
def test_damaged_weights_end_with_one_sentence(seqkit: Any, tiny_run: Path, tmp_path: Path, where: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    data = bytearray((run / "model.safetensors").read_bytes())
    place = {"length": 1, "header": data.index(b"sha256"), "weights": len(data) - 300, "end": len(data) - 1}[where]
    data[place] ^= 1
    (run / "model.safetensors").write_bytes(data)
    ran = seqkit("translate", run, stdin=b"abc\n")
    assert (ran.code, ran.out) == (2, b"")
    assert "model.safetensors: the checkpoint must" in ran.err
    assert ran.err.count("\n") == 1


def test_through_a_real_pipe_each_answer_comes_before_the_next_question(tiny_run: Path) -> None:
    """A program that writes a line and waits for its translation is not kept waiting; a closed reader is no fault."""
    command = [sys.executable, "-m", "seqkit", "translate", str(tiny_run), "--threads", "1"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[2], env={**os.environ, "OMP_NUM_THREADS": "1", "LC_ALL": "C"},
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    answers = []
    for line in (b"ab\xc3\xa9\n", b"\n", b"\xff\n"):
        process.stdin.write(line)
        process.stdin.flush()
        answers.append(process.stdout.readline())
    out, err = process.communicate(b"\n".join(HOSTILE))
    assert process.returncode == 0, err
    assert len((b"".join(answers) + out).split(b"\n")) == 3 + len(HOSTILE) + 1
    assert answers[0].strip()
    assert answers[1:] == [b"\n", b"\n"]
    assert out.split(b"\n")[0].decode() == Translator.load(tiny_run).translate(["abc"])[0].texts[0]
