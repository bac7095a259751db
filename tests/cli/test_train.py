"""`seqkit train`: the run folder, what is refused, and that kills and signals lose nothing."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from seqkit.config import read_toml
from seqkit.tasks.translator import Translator

ROOT = Path(__file__).parents[2]
EPOCH = ("--set", "training.max_epochs=1", "--threads", "1")


def test_a_run_folder_holds_all_that_translate_needs(tiny_run: Path) -> None:
    names = {path.relative_to(tiny_run).as_posix() for path in tiny_run.rglob("*") if path.is_file()}
    steps = {name for name in names if name.startswith("checkpoints/step-")}
    assert names - steps == {
        "config.toml", "source.chars.tsv", "target.chars.tsv", "metrics.jsonl", "model.safetensors",
        "checkpoints/latest.safetensors",
    }  # fmt: skip
    assert len(steps) in (2, 3)  # the last two, and the best
    assert read_toml(tiny_run / "config.toml")["training"]["label_smoothing"] == 0.1  # defaults are written out
    valid = [
        record["loss"]
        for line in (tiny_run / "metrics.jsonl").read_text().splitlines()
        if (record := json.loads(line))["kind"] == "valid"
    ]
    assert len(valid) == 20
    assert min(valid) < 0.7 * valid[0]


def test_the_report_goes_to_stderr_and_the_path_is_the_configs_name(
    seqkit: Any, tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = seqkit("train", tiny_config, *EPOCH)
    assert (ran.code, ran.out) == (0, b"")
    assert "train: 60 pairs\nvalid: 12 pairs\n" in ran.err
    assert "validation at step" in ran.err
    assert ran.err.splitlines()[-1].startswith("finished at step")
    assert Translator.load(tmp_path / "runs" / "config").translate(["ab"])[0].texts


def test_json_gives_records_on_stdout(seqkit: Any, tiny_config: Path, tmp_path: Path) -> None:
    ran = seqkit("train", tiny_config, "-o", tmp_path / "run", *EPOCH, "--json")
    kinds = [json.loads(line)["kind"] for line in ran.lines]
    assert kinds[-1] == "valid"
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == ran.out


def test_set_overrides_the_config(seqkit: Any, tiny_config: Path, tmp_path: Path) -> None:
    more = (
        "--set",
        "training.learning_rate=2e-3",
        "--set",
        "search.length_penalty=gnmt:0.6",
        "--set",
        "model.ffn_dim=8",
    )
    assert seqkit("train", tiny_config, "-o", tmp_path / "run", *EPOCH, *more).code == 0
    tables = read_toml(tmp_path / "run" / "config.toml")
    assert tables["training"]["learning_rate"] == 2e-3
    assert tables["training"]["max_epochs"] == 1
    assert tables["search"]["length_penalty"] == "gnmt:0.6"
    assert tables["model"]["ffn_dim"] == 8


def test_an_average_of_checkpoints_is_measured_and_told(seqkit: Any, tiny_config: Path, tmp_path: Path) -> None:
    more = ("--set", "training.max_epochs=3", "--set", "training.keep_best=2", "--set", "training.average=2")
    ran = seqkit("train", tiny_config, "-o", tmp_path / "run", "--threads", "1", "--json", *more)
    assert ran.code == 0, ran.err
    record = json.loads(ran.lines[-1])
    assert record["kind"] == "average"
    assert "mean of 2 checkpoints at step" in ran.err
    steps = [tmp_path / "run" / "checkpoints" / f"step-{step:08d}.safetensors" for step in record["averaged_steps"]]
    assert seqkit("average", *steps, "-o", tmp_path / "mean").code == 0
    assert (tmp_path / "mean").read_bytes() == (tmp_path / "run" / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--set", "training.max_epoch=1"], "must be a known key, got an unknown one (did you mean `max_epochs`?)"),
        (["--set", "trainig.max_epochs=1"], "`trainig` must be a known table (did you mean `training`?)"),
        (["--set", "model.kind=seq2sec"], "got 'seq2sec' (did you mean `seq2seq`?)"),
        (["--set", "training.max_epochs"], "an override must be section.key=value, got `training.max_epochs`"),
        (["--set", "training.max_epochs=few"], "`max_epochs` must be a whole number, got 'few'"),
        (["--set", "data.train=['none.tsv']"], "none.tsv: corpus must be a file that can be read, got No such file"),
        (["--set", "data.valid=['$SEQKIT_NO_SUCH/v.tsv']"], "the environment variable SEQKIT_NO_SUCH must be set"),
        (["--threads", "0"], "--threads: the count must be at least 1, got 0"),
    ],
)  # fmt: skip
def test_a_wrong_config_ends_with_one_sentence_and_nothing_written(
    seqkit: Any, tiny_config: Path, tmp_path: Path, flags: list[str], sentence: str
) -> None:
    ran = seqkit("train", tiny_config, "-o", tmp_path / "run", *flags)
    assert (ran.code, ran.out) == (2, b"")
    assert sentence in ran.err
    assert ran.err.startswith("seqkit train: ")
    assert ran.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_config_that_is_not_there_or_not_toml_is_told(seqkit: Any, tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    assert f"{path}: the config file must be readable, got: No such file" in seqkit("train", path).err
    path.write_text("[data\n")
    assert "c.toml: the config file must be TOML, got: " in seqkit("train", path).err
    path.write_bytes(b"\xff")
    ran = seqkit("train", path)
    assert (ran.code, ran.err) == (2, f"seqkit train: {path}: the config file must be readable, got: it is not UTF-8\n")


def test_a_run_is_neither_overwritten_nor_resumed_with_another_config(
    seqkit: Any, tiny_config: Path, tiny_run: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in tiny_run.rglob("*")}
    ran = seqkit("train", tiny_config, "-o", tiny_run)
    assert ran.code == 2
    assert "the run folder must be new, got one with a run in it; go on with --resume" in ran.err
    ran = seqkit("train", tiny_config, "-o", tiny_run, "--resume", "--set", "training.warmup=7")
    assert ran.code == 2
    assert "`training.warmup` must be 10 as when the run was started, to resume, got 7" in ran.err
    assert {path: path.stat().st_mtime_ns for path in tiny_run.rglob("*")} == before


def test_resume_starts_where_there_is_nothing_and_then_goes_on(seqkit: Any, tiny_config: Path, tmp_path: Path) -> None:
    """In two halves the training gives the bytes of one in a single piece."""

    def run(folder: str, epochs: int) -> Any:
        flags = ("--set", f"training.max_epochs={epochs}", "--set", "training.schedule=constant")
        return seqkit("train", tiny_config, "-o", tmp_path / folder, "--resume", "--threads", "1", *flags)

    assert "resuming" not in run("parts", 2).err
    assert "resuming from step" in run("parts", 4).err
    assert run("whole", 4).code == 0
    parts, whole = (tmp_path / name / "model.safetensors" for name in ("parts", "whole"))
    assert parts.read_bytes() == whole.read_bytes()


def test_a_damaged_checkpoint_is_not_resumed_from(
    seqkit: Any, tiny_config: Path, tiny_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    latest = run / "checkpoints" / "latest.safetensors"
    latest.write_bytes(latest.read_bytes()[:-1])
    ran = seqkit("train", tiny_config, "-o", run, "--resume", "--set", "training.max_epochs=30", "--threads", "1")
    assert ran.code == 2
    assert "latest.safetensors: the checkpoint must be a readable safetensors file" in ran.err


LONG = ("--set", "training.max_epochs=40", "--set", "training.ema_decay=0.9")


def start(config: Path, folder: Path, *flags: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "seqkit", "train", str(config), "-o", str(folder), "--threads", "1", *LONG, *flags]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stderr=subprocess.PIPE, cwd=ROOT, env=environment)


def last_step(folder: Path) -> int:
    """The step of the last whole record in metrics.jsonl, 0 where there is none."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    try:
        return json.loads(lines[-1])["step"] if lines else 0
    except json.JSONDecodeError:
        return 0


@pytest.fixture(scope="module")
def whole(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that no one interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    process = start(tiny_config, folder)
    _, err = process.communicate()
    assert process.returncode == 0, err
    return folder


@pytest.mark.slow
def test_kill_9_loses_nothing(tiny_config: Path, tmp_path: Path, whole: Path) -> None:
    """Three kills in a row at random steps; the run that they leave ends with the bytes of the undisturbed one."""
    steps = last_step(whole)
    moments = sorted(random.Random().sample(range(1, steps - 10), 3))
    for kill_at in moments:
        process = start(tiny_config, tmp_path / "run", "--resume")
        while last_step(tmp_path / "run") < kill_at and process.poll() is None:
            time.sleep(0.001)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    process = start(tiny_config, tmp_path / "run", "--resume")
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert b"resuming from step" in err
    for name in ("model.safetensors", "config.toml"):
        assert (tmp_path / "run" / name).read_bytes() == (whole / name).read_bytes(), f"killed at {moments}"
    files = [sorted(path.relative_to(top) for path in top.rglob("*")) for top in (tmp_path / "run", whole)]
    assert files[0] == files[1]  # and no half-written file is left


@pytest.mark.slow
def test_sigterm_saves_and_says_how_to_go_on(tiny_config: Path, tmp_path: Path, whole: Path) -> None:
    process = start(tiny_config, tmp_path / "run")
    while last_step(tmp_path / "run") < 20:
        assert process.poll() is None
        time.sleep(0.005)
    process.terminate()
    _, err = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    last = err.decode().splitlines()[-1]
    assert last.startswith("SIGTERM: saved at step ")
    assert last.endswith("; go on with --resume")
    process = start(tiny_config, tmp_path / "run", "--resume")
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
