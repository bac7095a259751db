"""Builds the CUDA kernels for the host: csrc/*/cuda*.cu over executor.h, as operators that take CPU tensors.

The library holds each `bind.cpp` and `cuda.cu` as they are, so that a test calls `torch.ops.seqkit_emulated.NAME` where
a program with a card calls `torch.ops.seqkit.NAME`. What runs on no card (cpu.cpp) comes from the objects of the
installed build.
"""

import functools
import importlib.util
import shlex
import subprocess
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"


@functools.cache
def setup() -> ModuleType:
    """The project's setup.py, which knows the compilers and their flags."""
    spec = importlib.util.spec_from_file_location("seqkit_setup", ROOT / "setup.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cuda_headers() -> Path | None:
    """The folder of CUDA's headers, or None where CUDA is not installed."""
    nvcc = setup().find_nvcc()
    return setup().cuda_root(nvcc) / "include" if nvcc else None


def cuda_ops() -> list[str]:
    """The operators that have a kernel for CUDA."""
    return sorted({source.parent.name for source in CSRC.glob("*/cuda*.cu")})


def build(
    folder: Path,
    *,
    name: str = "seqkit_emulated",
    ops: Iterable[str] | None = None,
    sources: dict[str, Path] | None = None,
    sanitize: bool = False,
) -> Path:
    """A library whose operators are `torch.ops.NAME.*`; what has not changed since the last time is not compiled again.

    Args:
        ops: the operators it holds; all by default.
        sources: another file in place of one of csrc, such as "attention/cuda.cu".
        sanitize: with AddressSanitizer, whose run-time library the process must have preloaded.

    Raises:
        RuntimeError: the compiler refused, with its words.
    """
    headers = cuda_headers()
    assert headers is not None
    native = [  # but what belongs to the word vectors' library
        path
        for path in sorted((ROOT / "build/native").glob("*.o"))
        if not path.name.endswith(("_bind.cpp.o", ".cu.o")) and not path.name.startswith("embedding_")
    ]
    if not native:
        raise RuntimeError("tests/csrc: the kernels must be built first, got no objects in build/native: make install")
    flags = f"-O2 -g1 -std=c++20 -fPIC -fvisibility=hidden -ffp-contract=off -w -I{shlex.quote(str(CSRC))}"
    flags += " -fsanitize=address -fno-omit-frame-pointer" if sanitize else ""
    executor = shlex.quote(str(Path(__file__).with_name("executor.h")))
    torch = setup().find_torch(setup().torch_candidates())
    compiler = shlex.join(setup().find_compiler())
    rules = [
        f"builddir = {folder}",
        "rule kernel\n  depfile = $out.d\n  deps = gcc\n  description = emulate $in"
        f"\n  command = {compiler} -x c++ {flags} -DSEQKIT_EMULATE -include {executor} -isystem {headers}"
        " -MMD -MF $out.d -c $in -o $out",
        "rule bind\n  depfile = $out.d\n  deps = gcc\n  description = compile $in"
        f"\n  command = {compiler} {flags} -DSEQKIT_EMULATE={name} -DSEQKIT_CUDA {setup().STABLE_ABI}"
        f" -isystem {torch / 'include'} -MMD -MF $out.d -c $in -o $out",
        f"rule link\n  command = {compiler} -shared $in -o $out -L{torch / 'lib'} -ltorch_cpu -ldl -lpthread"
        + (" -fsanitize=address" if sanitize else ""),
    ]
    objects = [str(path) for path in native]
    for op in cuda_ops() if ops is None else ops:
        for source in (*sorted((CSRC / op).glob("cuda*.cu")), CSRC / op / "bind.cpp"):
            objects.append(f"{folder / op}_{source.stem}.o")
            replaced = (sources or {}).get(f"{op}/{source.name}", source)
            rules.append(f"build {objects[-1]}: {'kernel' if source.suffix == '.cu' else 'bind'} {replaced}")
    library = folder / f"{name}.so"
    rules.append(f"build {library}: link {' '.join(objects)}")
    folder.mkdir(parents=True, exist_ok=True)
    plan = folder / "build.ninja"
    plan.write_text("\n".join(rules) + "\n")
    done = subprocess.run([setup().find_ninja(), "-f", str(plan)], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"tests/csrc: the emulated build failed:\n{done.stdout}")
    return library
