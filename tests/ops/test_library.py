"""`ops.library`: which code runs, never silently another."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from seqkit.errors import InputError
from seqkit.ops import library


def run(code: str, **environment: str) -> str:
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=root,
        env={**os.environ, **environment},
    )
    return done.stdout.strip()


def test_backend_follows_the_choice() -> None:
    wanted = "native" if library.is_built("linear") else "reference"
    assert library.backend("linear", torch.device("cpu")) == wanted
    with library.use_backend("reference"):
        assert library.backend("linear", "cpu") == "reference"
    assert library.backend("linear", "cpu:0") == wanted


def test_backend_native_raises_where_nothing_is_built() -> None:
    with library.use_backend("native"), pytest.raises(InputError, match="got none for meta"):
        library.backend("linear", torch.device("meta"))


def test_use_backend_refuses_an_unknown_choice_and_restores_after_an_error() -> None:
    with pytest.raises(InputError, match="choice must be one of auto, native, reference"), library.use_backend("fast"):
        pass
    before = library.backend("linear")
    with pytest.raises(KeyError), library.use_backend("reference"):
        raise KeyError
    assert library.backend("linear") == before


def test_status_names_every_operator_with_a_reason() -> None:
    lines = library.status()
    assert {line.op for line in lines} == set(library.OPERATORS)
    assert all(line.why and line.backend in ("native", "reference") for line in lines)
    with library.use_backend("reference"):
        assert {line.backend for line in library.status()} == {"reference"}


def test_environment_chooses_the_backend() -> None:
    code = "from seqkit.ops import library; print(library.backend('linear'))"
    assert run(code, SEQKIT_BACKEND="reference") == "reference"
    wrong = "from seqkit.ops import library\ntry: library.backend('linear')\nexcept ValueError as e: print(e)"
    assert "must be one of auto, native, reference, got 'quick'" in run(wrong, SEQKIT_BACKEND="quick")


def test_missing_or_broken_library_leaves_the_import_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "PACKAGE", tmp_path)
    assert "was not installed" in library._load()
    (tmp_path / "_build.json").write_text(json.dumps({"built": False, "why": "no C++ compiler was found"}))
    assert library._load() == "no C++ compiler was found"
    (tmp_path / "_C.abi3.so").write_bytes(b"not a library")
    assert "cannot be loaded" in library._load()


@pytest.mark.skipif(not library.is_built("linear"), reason="the native library is not built")
@pytest.mark.parametrize("level", ["0", "1", "2"])
def test_every_machine_level_computes_the_same_to_rounding(level: str) -> None:
    code = """
import torch
from seqkit import ops
torch.manual_seed(0)
x, w, b = torch.randn(40, 300), torch.randn(70, 300), torch.randn(70)
for activation in ("none", "gelu", "tanh"):
    got = ops.linear(x, w, b, activation=activation)
    torch.testing.assert_close(got, ops.linear_reference(x, w, b, activation=activation), rtol=1e-5, atol=2e-5)
    assert torch.equal(got[7:20], ops.linear(x[7:20], w, b, activation=activation))
print("same")
"""
    assert run(code, SEQKIT_ISA=level) == "same"


def test_the_matrix_unit_is_capped_as_the_kernels_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    for level, allowed, has in (("2", True, True), ("1", True, False), ("0", True, False), ("2", False, False)):
        monkeypatch.setenv("SEQKIT_ISA", level)
        monkeypatch.setattr(torch.cpu, "_init_amx", lambda allowed=allowed: allowed)
        assert library._has_amx() is has
