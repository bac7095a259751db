"""Every command of the README runs, and so does its Python example."""

import gzip
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import seqkit.cli.demo as demo
from seqkit.cli.main import main

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[str]:
    return [line[2:] for block in blocks("console") for line in block.splitlines() if line.startswith("$ ")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the README's reader has it: a demo (made small here), a config, and its data."""
    folder = tmp_path_factory.mktemp("readme")
    before = Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "TRAIN", 300)
        patch.setattr(demo, "HELD_OUT", 40)
        for tables in demo.MODELS.values():
            patch.setitem(tables["training"], "max_epochs", 1)
        os.chdir(folder)
        try:
            assert main(["demo", "--threads", "1"]) == 0
        finally:
            os.chdir(before)
    for side in ("en", "de"):
        for name in ("train", "valid"):
            with gzip.open(folder / f"{name}.{side}.gz", "wt", encoding="utf-8") as file:
                file.writelines(f"{side} sentence number {number}\n" for number in range(30))
    (folder / "test.en").write_text("a sentence\nanother\n")
    (folder / "corpus.txt").write_text("the king and the queen saw a man and a woman\n" * 50)
    (config,) = blocks("toml")
    # Thirty sentences have no 8,000 subwords, and one epoch shows that the command runs.
    config = config.replace("max_epochs = 30", "max_epochs = 1") + '\n[tokenizer]\nkind = "char"\n'
    (folder / "en-de.toml").write_text(config)
    shim = folder / "bin" / "seqkit"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m seqkit "$@"\n')
    shim.chmod(0o755)
    return folder


@pytest.mark.parametrize("command", [command for command in commands() if "seqkit" in command])
def test_each_seqkit_command_of_the_readme_runs(command: str, folder: Path) -> None:
    environment = {
        **os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    result = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, encoding="utf-8"
    )
    assert result.returncode == 0, result.stderr
    if "seqkit translate" in command:
        assert result.stdout.endswith("\n")


def test_each_make_command_of_the_readme_is_a_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = [command.split()[1] for command in commands() if command.startswith("make ")]
    assert named == ["demo", "test"]
    for target in named:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


def test_the_python_example_runs(folder: Path) -> None:
    (example,) = blocks("python")
    before = Path.cwd()
    os.chdir(folder)
    try:
        exec(compile(example, "README.md", "exec"), {})
    finally:
        os.chdir(before)
