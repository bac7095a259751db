"""setup.py: it finds torch without importing it, writes the ninja file, and never hides what a compiler said."""

import ctypes
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")

BIND = """
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>
int twice(int);
static int64_t four(const torch::stable::Tensor&) { return twice(2); }
STABLE_TORCH_LIBRARY_FRAGMENT(seqkit_toy, library) { library.def("four(Tensor x) -> int"); }
STABLE_TORCH_LIBRARY_IMPL(seqkit_toy, CPU, library) { library.impl("four", TORCH_BOX(&four)); }
extern "C" __attribute__((visibility("default"))) int toy_level() { return twice(1); }
"""


@pytest.fixture(scope="module")
def setup() -> ModuleType:
    spec = importlib.util.spec_from_file_location("seqkit_setup", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["seqkit_setup"] = module
    spec.loader.exec_module(module)
    return module


def toy(csrc: Path, *, cuda: bool = False) -> Path:
    """An operator folder of three small sources, or four."""
    folder = csrc / "toy"
    folder.mkdir(parents=True)
    (folder / "cpu.cpp").write_text("int twice(int x) { return 2 * x; }\n")
    (folder / "lane.simd.cpp").write_text(
        "#define JOIN2(a, b) a##b\n#define JOIN(a, b) JOIN2(a, b)\nint JOIN(lane_, SEQKIT_LEVEL)() { return 1; }\n"
    )
    # Two libraries in one process may not define the same operator.
    (folder / "bind.cpp").write_text(BIND.replace("seqkit_toy", "seqkit_toy_cuda") if cuda else BIND)
    if cuda:
        (folder / "cuda.cu").write_text(
            "__global__ void fill(float* x) { x[threadIdx.x] = 1; }\n"
            'extern "C" __attribute__((visibility("default"))) int toy_cuda(float* x) {\n'
            "  fill<<<1, 32>>>(x);\n  return cudaGetLastError();\n}\n"
        )
    return csrc


def torch_folder(at: Path) -> Path:
    header = at / "torch/include/torch/csrc/stable/library.h"
    header.parent.mkdir(parents=True)
    header.touch()
    (at / "torch/version.py").write_text("__version__ = '2.12.1+cu130'\n")
    return at / "torch"


def test_find_torch_takes_the_first_with_stable_headers(setup: ModuleType, tmp_path: Path) -> None:
    old = tmp_path / "old/torch"
    old.mkdir(parents=True)
    first, second = torch_folder(tmp_path / "a"), torch_folder(tmp_path / "b")
    assert setup.find_torch([tmp_path / "none", old, first, second]) == first
    assert setup.find_torch([old]) is None
    assert setup.torch_version(first) == "2.12.1+cu130"
    assert setup.torch_version(old) == "unknown"


def test_torch_candidates_begin_with_the_named_folder(
    setup: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEQKIT_TORCH_DIR", str(tmp_path / "mine"))
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path / "venv"))
    inside = torch_folder(tmp_path / "venv/lib/python3.12/site-packages")
    places = setup.torch_candidates()
    assert places[0] == tmp_path / "mine"
    assert inside in places


def test_finding_torch_does_not_import_it() -> None:
    code = (
        "import importlib.util, sys; s = importlib.util.spec_from_file_location('m', 'setup.py');"
        "m = importlib.util.module_from_spec(s); sys.modules['m'] = m; s.loader.exec_module(m);"
        "assert m.find_torch(m.torch_candidates()); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_find_compiler_and_nvcc_say_what_is_wrong(setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler -O1")
    with pytest.raises(SystemExit, match="CXX must name a compiler that can be run, got 'no-such-compiler -O1'"):
        setup.find_compiler()
    monkeypatch.setenv("SEQKIT_CUDA", "yes")
    with pytest.raises(SystemExit, match="SEQKIT_CUDA must be auto, 0 or 1, got 'yes'"):
        setup.find_nvcc()
    monkeypatch.setenv("SEQKIT_CUDA", "1")
    monkeypatch.setenv("CUDA_HOME", "/no/such/folder")
    with pytest.raises(SystemExit, match="SEQKIT_CUDA=1 needs nvcc"):
        setup.find_nvcc()
    monkeypatch.setenv("SEQKIT_CUDA", "0")
    assert setup.find_nvcc() is None


def test_ninja_text_has_each_source_once_a_level(setup: ModuleType, tmp_path: Path) -> None:
    csrc = toy(tmp_path / "with space" / "csrc", cuda=True)
    tools = setup.Toolchain(cxx=["g++"], torch=tmp_path / "torch", levels=setup.X86_LEVELS)
    text = setup.ninja_text(csrc, tmp_path / "objects", tmp_path / "_C.abi3.so", tools)
    assert text.count("lane.simd.cpp\n") == 3
    assert "-march=x86-64-v4 -mprefer-vector-width=512 -DSEQKIT_LEVEL=v4" in text
    assert text.count("TORCH_STABLE_ONLY") == 1  # bind.cpp alone sees torch
    assert "cuda.cu" not in text
    assert "SEQKIT_CUDA" not in text
    assert "rpath" not in text
    assert "with$ space/csrc/toy/cpu.cpp" in text


@needs_compiler
def test_build_makes_a_library_that_torch_loads(
    setup: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setenv("SEQKIT_CUDA", "0")
    package = tmp_path / "a package"
    setup.build(toy(tmp_path / "c src"), tmp_path / "objects", package)
    torch.ops.load_library(str(package / "_C.abi3.so"))
    assert torch.ops.seqkit_toy.four(torch.zeros(1)) == 4
    facts = json.loads((package / "_build.json").read_text())
    assert facts["built"]
    assert facts["ops"] == ["toy"]
    assert facts["torch"] == torch.__version__


@needs_compiler
def test_the_folder_embedding_becomes_a_library_without_torch(
    setup: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEQKIT_CUDA", "0")
    csrc = toy(tmp_path / "csrc")
    (csrc / "embedding").mkdir()
    (csrc / "embedding/api.cpp").write_text(
        'extern "C" __attribute__((visibility("default"))) int seqkit_three() { return 3; }\n'
    )
    setup.build(csrc, tmp_path / "objects", tmp_path)
    assert ctypes.CDLL(str(tmp_path / "_embedding.abi3.so")).seqkit_three() == 3
    needed = subprocess.run(
        ["ldd", str(tmp_path / "_embedding.abi3.so")], capture_output=True, text=True, check=True
    ).stdout
    assert "torch" not in needed
    assert (
        "seqkit_three"
        not in subprocess.run(
            ["nm", "-D", str(tmp_path / "_C.abi3.so")], capture_output=True, text=True, check=True
        ).stdout
    )
    assert json.loads((tmp_path / "_build.json").read_text())["embedding"]


@needs_compiler
@pytest.mark.slow
def test_build_compiles_cuda_where_nvcc_is(setup: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if setup.find_nvcc() is None:
        pytest.skip("there is no nvcc")
    monkeypatch.setenv("SEQKIT_CUDA_ARCHS", "80")
    setup.build(toy(tmp_path / "csrc", cuda=True), tmp_path / "objects", tmp_path)
    assert hasattr(ctypes.CDLL(str(tmp_path / "_C.abi3.so")), "toy_cuda")
    facts = json.loads((tmp_path / "_build.json").read_text())
    assert facts["cuda_ops"] == ["toy"]
    assert facts["cuda_archs"] == ["80"]


@needs_compiler
def test_build_shows_the_compilers_message_and_fails(
    setup: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SEQKIT_CUDA", "0")
    csrc = toy(tmp_path / "csrc")
    (csrc / "toy/cpu.cpp").write_text("int twice(int x) { return y; }\n")
    with pytest.raises(SystemExit, match="the native build failed"):
        setup.build(csrc, tmp_path / "objects", tmp_path)
    assert "‘y’ was not declared" in capfd.readouterr().out.replace("'y'", "‘y’")
    assert not (tmp_path / "_C.abi3.so").exists()


def test_build_without_a_compiler_records_why(
    setup: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "_C.abi3.so").touch()
    setup.build(toy(tmp_path / "csrc"), tmp_path / "objects", tmp_path)
    facts = json.loads((tmp_path / "_build.json").read_text())
    assert not facts["built"]
    assert "no C++ compiler was found" in facts["why"]
    assert capsys.readouterr().out.count("\n") == 1
    assert not (tmp_path / "_C.abi3.so").exists()


@needs_compiler
def test_build_without_torch_is_one_clear_line(
    setup: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "torch_candidates", lambda: [tmp_path / "torch"])
    with pytest.raises(SystemExit, match=r"torch 2.11 or later must be installed first .*, found none in"):
        setup.build(toy(tmp_path / "csrc"), tmp_path / "objects", tmp_path)


@needs_compiler
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the levels are those of x86-64")
def test_files_of_higher_levels_lend_no_code(setup: ModuleType, tmp_path: Path) -> None:
    """A weak symbol in an AVX-512 object may be the copy that the linker keeps for every caller."""
    for source in sorted((ROOT / "csrc").glob("*/*.simd.cpp")):
        target = tmp_path / f"{source.parent.name}.o"
        flags = [*setup.CXX_FLAGS.replace("-O3", "-O1").split(), *setup.X86_LEVELS["v4"].split()]
        command = ["g++", *flags, f"-I{ROOT / 'csrc'}", "-DSEQKIT_LEVEL=v4", "-c", str(source), "-o", str(target)]
        subprocess.run(command, check=True)
        symbols = subprocess.run(["nm", "-C", str(target)], capture_output=True, text=True, check=True).stdout
        weak = [line for line in symbols.splitlines() if re.search(r" [WVu] ", line)]
        assert not weak, (source.name, weak)
