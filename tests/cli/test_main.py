import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from seqkit.cli import info, main
from seqkit.errors import InputError

ROOT = Path(__file__).parents[2]


def test_without_a_command_the_verbs_are_listed(seqkit: Any) -> None:
    ran = seqkit("--help")
    assert ran.code == 0
    for verb, text in main.VERBS.items():
        assert f"  {verb} " in ran.out.decode()
        assert text in ran.out.decode()
    assert seqkit("-h") == ran
    assert (seqkit().code, seqkit().out) == (2, ran.out)


def test_version(seqkit: Any) -> None:
    assert seqkit("--version").out.startswith(b"seqkit 0.")


def test_a_wrong_verb_gets_the_nearest_one(seqkit: Any) -> None:
    ran = seqkit("trnslate", "x")
    assert (ran.code, ran.out) == (2, b"")
    assert "got `trnslate` (did you mean `translate`?)" in ran.err


@pytest.mark.parametrize("verb", main.VERBS)
def test_each_verb_has_help_and_refuses_unknown_flags(seqkit: Any, verb: str) -> None:
    ran = seqkit(verb, "--help")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"usage: seqkit {verb}".encode())
    ran = seqkit(verb, "--no-such-flag")
    assert (ran.code, ran.out) == (2, b"")
    assert "error:" in ran.err


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (InputError("file: x must be y, got z"), 2, "seqkit info: file: x must be y, got z\n"),
        (KeyboardInterrupt(), 130, "seqkit info: interrupted\n"),
    ],
)
def test_exit_codes(seqkit: Any, monkeypatch: pytest.MonkeyPatch, raised: BaseException, code: int, said: str) -> None:
    def fails(arguments: object) -> int:
        raise raised

    monkeypatch.setattr(info, "run", fails)
    assert seqkit("info") == (code, b"", said)


def test_a_fault_of_seqkit_keeps_its_traceback(seqkit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(info, "run", lambda arguments: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        seqkit("info")


def test_a_reader_that_leaves_is_no_fault(tiny_run: Path) -> None:
    """As in `seqkit translate MODEL FILE | head -1`."""
    read, write = os.pipe()
    os.close(read)
    try:
        result = subprocess.run(
            [sys.executable, "-m", "seqkit", "translate", str(tiny_run), "--threads", "1"],
            input=b"abc\n" * 3, stdout=write, stderr=subprocess.PIPE, cwd=ROOT,
        )  # fmt: skip
    finally:
        os.close(write)
    assert (result.returncode, result.stderr) == (0, b"")


def test_help_comes_at_once_and_without_torch() -> None:
    script = "import sys; from seqkit.cli.main import main; main(sys.argv[1:]); print('torch' in sys.modules)"
    best = float("inf")
    for arguments in (["--help"], ["translate", "--help"], ["train", "--help"], ["embed", "train", "--help"]):
        started = time.monotonic()
        result = subprocess.run(
            [sys.executable, "-c", script, *arguments], capture_output=True, text=True, cwd=ROOT, check=True
        )
        best = min(best, time.monotonic() - started)
        assert result.stdout.endswith("\nFalse\n")
    with contextlib.suppress(OSError):  # on a machine that has something else to do, only the absence of torch counts
        if os.getloadavg()[0] < os.cpu_count():  # type: ignore[operator]
            assert best < 0.3
