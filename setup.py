"""Builds `seqkit/_C.abi3.so`, the native kernels, with ninja and without importing torch; and `_embedding.abi3.so`.

One folder of `csrc` is one operator: `cpu.cpp` and `*.simd.cpp` (compiled once per instruction set), `bind.cpp` (the
only file that sees torch, and only its stable ABI) and `cuda*.cu` (compiled where nvcc is found). A new folder needs no
edit here. The folder `embedding` moves text, not tensors: it becomes a library of its own, which links no torch.

torch is found, not imported and not required for the build, so that pip's isolated build uses the torch that is
installed beside it and never fetches another. The library carries no RPATH: the torch that loads it brings libtorch.

Environment: CXX, CUDA_HOME, SEQKIT_TORCH_DIR (the folder of the torch package), SEQKIT_CUDA=auto|0|1,
SEQKIT_CUDA_ARCHS ("80;90").

`torch.utils.cpp_extension` was tried and dropped: it imports torch, compiles its full headers (30 s a file against
1.5 s) and refuses CUDA on a CPU-only torch.
"""

import importlib.util
import json
import os
import platform
import re
import shlex
import shutil
import site
import subprocess
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
LIBRARY = "_C.abi3.so"
EMBEDDING = "_embedding.abi3.so"
FACTS = "_build.json"

# The oldest torch whose stable ABI has all that we call (parallel_for and TORCH_BOX came with 2.10).
STABLE_ABI = "-DTORCH_TARGET_VERSION=0x020a000000000000 -DTORCH_STABLE_ONLY -DPy_LIMITED_API=0x030b0000"
CXX_FLAGS = (
    "-std=c++20 -O3 -fPIC -fvisibility=hidden -fno-math-errno -fno-trapping-math -ffp-contract=off -Wall -Wextra"
)
NVCC_FLAGS = "-std=c++20 -O3 -lineinfo --expt-relaxed-constexpr -Xcompiler -fPIC,-fvisibility=hidden"
X86_LEVELS = {"base": "-march=x86-64", "v3": "-march=x86-64-v3", "v4": "-march=x86-64-v4 -mprefer-vector-width=512"}


@dataclass(frozen=True, kw_only=True)
class Toolchain:
    """What the build runs: the compilers, the torch whose headers it sees and the machine levels it compiles for."""

    cxx: list[str]
    torch: Path
    nvcc: Path | None = None
    cuda_root: Path | None = None
    cuda_archs: tuple[str, ...] = ()
    levels: dict[str, str]


def torch_candidates() -> list[Path]:
    """Every place where a torch package may be, the likeliest first."""
    places = []
    if named := os.environ.get("SEQKIT_TORCH_DIR"):
        places.append(Path(named))
    spec = importlib.util.find_spec("torch")
    if spec and spec.submodule_search_locations:
        places += [Path(location) for location in spec.submodule_search_locations]
    # In pip's isolated build nothing can be imported, but these still name the environment that is installed into.
    places += [Path(sysconfig.get_path(kind)) / "torch" for kind in ("purelib", "platlib")]
    if environment := os.environ.get("VIRTUAL_ENV"):
        places += sorted(Path(environment).glob("lib/python3*/site-packages/torch"))
    places.append(Path(site.getusersitepackages()) / "torch")
    return list(dict.fromkeys(places))


def find_torch(candidates: Iterable[Path]) -> Path | None:
    """The first candidate that has the stable-ABI headers."""
    return next((place for place in candidates if (place / "include/torch/csrc/stable/library.h").exists()), None)


def torch_version(torch: Path) -> str:
    """The version that a torch folder states of itself, or "unknown"."""
    source = torch / "version.py"
    found = re.search(r"__version__ = '([^']+)'", source.read_text()) if source.exists() else None
    return found.group(1) if found else "unknown"


def find_compiler() -> list[str] | None:
    """The C++ compiler as a command: $CXX, or the first of g++, clang++ and c++; None if there is none."""
    if named := os.environ.get("CXX"):
        command = shlex.split(named)
        if not shutil.which(command[0]):
            raise SystemExit(f"seqkit: CXX must name a compiler that can be run, got {named!r}")
        return command
    return next(([name] for name in ("g++", "clang++", "c++") if shutil.which(name)), None)


def find_nvcc() -> Path | None:
    """nvcc by SEQKIT_CUDA, CUDA_HOME, the PATH or the usual folder; None without one."""
    wish = os.environ.get("SEQKIT_CUDA", "auto")
    if wish not in ("auto", "0", "1"):
        raise SystemExit(f"seqkit: SEQKIT_CUDA must be auto, 0 or 1, got {wish!r}")
    if wish == "0":
        return None
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    named = str(Path(home) / "bin/nvcc") if home else shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    if Path(named).exists():
        return Path(named)
    if wish == "1":
        raise SystemExit(f"seqkit: SEQKIT_CUDA=1 needs nvcc, which is not at {named}; set CUDA_HOME")
    return None


def cuda_root(nvcc: Path) -> Path:
    """The CUDA folder that an nvcc belongs to; nvcc itself is asked, because it may be a wrapper script."""
    dry = subprocess.run([nvcc, "--dryrun", "-x", "cu", os.devnull, "-o", os.devnull], capture_output=True, text=True)
    top = re.search(r"^#\$ TOP=(.+)$", dry.stderr, re.MULTILINE)
    return Path(top.group(1).strip()).resolve() if top else nvcc.resolve().parents[1]


def cudart(root: Path) -> Path:
    """The static CUDA runtime, linked in so that the library also loads where CUDA is not installed."""
    for folder in ("lib64", "lib", f"targets/{platform.machine()}-linux/lib"):
        if (archive := root / folder / "libcudart_static.a").exists():
            return archive
    raise SystemExit(f"seqkit: no libcudart_static.a under {root}; set CUDA_HOME or SEQKIT_CUDA=0")


def first_line(command: list[str]) -> str:
    """What a tool says of itself when asked for its version."""
    lines = subprocess.run([*command, "--version"], capture_output=True, text=True).stdout.splitlines()
    return lines[0] if lines else shlex.join(command)


def escape(text: str) -> str:
    """A path or flag as ninja reads it."""
    return re.sub(r"([$ :])", r"$\1", text)


def flag(prefix: str, path: Path) -> str:
    """A flag with a path in it, safe for ninja and the shell behind it."""
    return prefix + shlex.quote(str(path)).replace("$", "$$")


def ninja_text(csrc: Path, objects: Path, library: Path, tools: Toolchain) -> str:
    """The build file: every `csrc` folder's sources to objects, the objects to `library`, `embedding`'s apart."""
    cxx = shlex.join(tools.cxx).replace("$", "$$")
    nvcc = shlex.quote(str(tools.nvcc or "false")).replace("$", "$$")
    rules = [
        f"builddir = {escape(str(objects))}",  # where ninja keeps its log
        f"rule cxx\n  command = {cxx} -MMD -MF $out.d $flags -c $in -o $out\n  depfile = $out.d\n  deps = gcc"
        "\n  description = compile $out",
        f"rule nvcc\n  command = {nvcc} -MD -MF $out.d $flags -c $in -o $out\n  depfile = $out.d\n  deps = gcc"
        "\n  description = compile $out",
        # A running process may have the old library mapped: replace the file, never write into it.
        f"rule link\n  command = {cxx} -shared $in -o $out.new $flags && mv $out.new $out\n  description = link $out",
    ]
    outputs: list[str] = []
    embedding: list[str] = []

    def compile_one(rule: str, source: Path, flags: str, tag: str = "") -> None:
        name = "_".join(source.relative_to(csrc).parts) + tag + ".o"
        output = escape(str(objects / name))
        rules.append(f"build {output}: {rule} {escape(str(source))}\n  flags = {flags}")
        (embedding if source.parent.name == "embedding" else outputs).append(output)

    # Messages name a source as the project does, not where it was built.
    include = f"{flag('-I', csrc)} {flag('-fmacro-prefix-map=', csrc)}=csrc"
    stable = f"{STABLE_ABI} {flag('-isystem ', tools.torch / 'include')}"
    archs = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in tools.cuda_archs]
    if tools.cuda_archs:  # newer cards compile the last architecture's PTX when they load it
        newest = tools.cuda_archs[-1].rstrip("a")
        archs.append(f"-gencode=arch=compute_{newest},code=compute_{newest}")
    any_cuda = False
    for source in sorted(csrc.glob("*/*.cpp")):
        if source.name == "bind.cpp":
            has_cuda = tools.nvcc is not None and any(source.parent.glob("cuda*.cu"))
            compile_one("cxx", source, f"{CXX_FLAGS} {include} {stable}{' -DSEQKIT_CUDA' if has_cuda else ''}")
        elif source.name.endswith(".simd.cpp"):
            for level, machine in tools.levels.items():
                compile_one("cxx", source, f"{CXX_FLAGS} {include} {machine} -DSEQKIT_LEVEL={level}", f".{level}")
        else:
            compile_one("cxx", source, f"{CXX_FLAGS} {include}")
    if tools.nvcc is not None:
        for source in sorted(csrc.glob("*/cuda*.cu")):
            compile_one("nvcc", source, f"{NVCC_FLAGS} {flag('-I', csrc)} {' '.join(archs)}")
            any_cuda = True

    links = f"{flag('-L', tools.torch / 'lib')} -ltorch_cpu"
    if any_cuda and tools.cuda_root is not None:
        links += f" {flag('', cudart(tools.cuda_root))} -ldl -lrt -lpthread -Wl,--exclude-libs,ALL"
    rules.append(f"build {escape(str(library))}: link {' '.join(outputs)}\n  flags = {links}")
    if embedding:
        target = escape(str(library.parent / EMBEDDING))
        rules.append(f"build {target}: link {' '.join(embedding)}\n  flags = -lpthread")
    return "\n".join(rules) + "\n"


def find_ninja() -> str:
    """ninja from its Python package (an environment that is not activated has it too) or from the PATH."""
    if importlib.util.find_spec("ninja"):
        import ninja

        if (program := Path(ninja.BIN_DIR) / "ninja").exists():
            return str(program)
    if program_on_path := shutil.which("ninja"):
        return program_on_path
    raise SystemExit("seqkit: ninja is needed to build the native code; install it with: pip install ninja")


def write_facts(package: Path, facts: dict[str, Any]) -> None:
    """What was built, for `seqkit info`."""
    package.mkdir(parents=True, exist_ok=True)
    (package / FACTS).write_text(json.dumps(facts, indent=2) + "\n")


def build(csrc: Path, objects: Path, package: Path) -> None:
    """Builds `package/_C.abi3.so` from `csrc`, or records why there is none.

    Raises:
        SystemExit: the compiler failed (its own message is printed above), or there is a compiler but no torch.
    """
    library, embedding = package / LIBRARY, package / EMBEDDING
    compiler = find_compiler()
    if compiler is None:
        why = "no C++ compiler was found when seqkit was installed (looked for $CXX, g++, clang++, c++)"
        for stale in (library, embedding):  # one from an earlier build would not match these sources
            stale.unlink(missing_ok=True)
        write_facts(package, {"built": False, "why": why})
        print(f"seqkit: {why}; the native kernels are not built and the plain-torch references will be used")
        return
    candidates = torch_candidates()
    torch = find_torch(candidates)
    if torch is None:
        looked = ", ".join(map(str, candidates))
        raise SystemExit(
            f"seqkit: torch 2.11 or later must be installed first (pip install torch), found none in {looked}"
        )

    nvcc = find_nvcc()
    x86 = platform.machine() in ("x86_64", "AMD64")
    tools = Toolchain(
        cxx=compiler,
        torch=torch,
        nvcc=nvcc,
        cuda_root=cuda_root(nvcc) if nvcc else None,
        cuda_archs=tuple(os.environ.get("SEQKIT_CUDA_ARCHS", "80;90").split(";")) if nvcc else (),
        levels=X86_LEVELS if x86 else {"base": ""},
    )
    objects.mkdir(parents=True, exist_ok=True)
    package.mkdir(parents=True, exist_ok=True)
    plan = objects / "build.ninja"
    plan.write_text(ninja_text(csrc, objects, library, tools))
    done = subprocess.run([find_ninja(), "-f", str(plan)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(done.stdout, end="", flush=True)  # ninja passes the compiler's words on; pip shows them when the build fails
    if done.returncode != 0:
        for stale in (library, embedding):
            stale.unlink(missing_ok=True)
        write_facts(package, {"built": False, "why": "the native build failed; its messages were printed then"})
        raise SystemExit(f"seqkit: the native build failed with {shlex.join(compiler)}; its message is above")
    facts = {
        "built": True,
        "why": "",
        "ops": sorted(folder.parent.name for folder in csrc.glob("*/bind.cpp")),
        "embedding": embedding.exists(),
        "compiler": first_line(compiler),
        "isa": list(tools.levels),
        "cuda_ops": sorted({source.parent.name for source in csrc.glob("*/cuda*.cu")}) if nvcc else [],
        "cuda_archs": list(tools.cuda_archs) if any(csrc.glob("*/cuda*.cu")) else [],
        "torch": torch_version(torch),
    }
    write_facts(package, facts)


class BuildNative(build_ext):
    """`build_ext` that hands the work to ninja; in place for `pip install -e` and `build_ext --inplace`."""

    def run(self) -> None:
        in_place = self.inplace or self.editable_mode
        package = (ROOT if in_place else Path(self.build_lib).resolve()) / "seqkit"
        # In place the objects stay in the checkout, so that the next build compiles only what changed.
        objects = ROOT / "build" / "native" if in_place else Path(self.build_temp).resolve()
        build(ROOT / "csrc", objects, package)

    def get_outputs(self) -> list[str]:
        return []

    def get_output_mapping(self) -> dict[str, str]:
        return {}

    def get_source_files(self) -> list[str]:
        return [str(path.relative_to(ROOT)) for path in sorted((ROOT / "csrc").rglob("*")) if path.is_file()]


if __name__ == "__main__":
    setup(
        ext_modules=[Extension("seqkit._C", [], py_limited_api=True)],
        cmdclass={"build_ext": BuildNative},
        options={"bdist_wheel": {"py_limited_api": "cp311"}},
    )
