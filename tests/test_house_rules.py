"""Rules that no type checker holds: import direction, the mirror of tests, torch-free kernels, late torch, file names.

Each rule is a function that returns its violations. One test runs it over the repository, another feeds it a planted
violation, so that a rule that sees nothing is noticed.
"""

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# What each package may import besides itself. Level 0 (`errors`, and the two modules over it that every layer needs) is
# open to all. A name with a dot opens one module only: a model answers the StepModel protocol and must know its types.
OPEN_TO_ALL = {"errors", "config", "atomic"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "config": set(),
    "atomic": set(),
    "ops": set(),
    "text": set(),
    "audio": set(),
    "training": set(),
    "nn": {"ops"},
    "decode": {"ops"},
    "embeddings": {"text", "ops"},
    "models": {"nn", "decode.step"},
    "vision": {"nn", "ops"},
    "analysis": {"text", "decode"},
}
LEVEL_4 = {"cli", "serve", "tasks", "translator", "__main__", "__init__"}  # may import everything; nobody imports them
LATE_TORCH = [
    "seqkit",
    "seqkit.cli.main",
    "seqkit.cli.translate",
    "seqkit.config",
    "seqkit.decode.options",
    "seqkit.embeddings",
    "seqkit.text.corpus",
    "seqkit.text.kneser_ney",
    "seqkit.text.tokenizer",
    "seqkit.text.vocab",
]
DRAWERS = {"utils", "util", "helpers", "helper", "common", "misc", "base"}


def imported_names(source: str, module: str, *, is_package: bool) -> Iterator[tuple[int, str]]:
    """Line and full name of every import of seqkit in a module, wherever it stands.

    Imports inside functions and under TYPE_CHECKING count like any other: the rule is about what a module knows, not
    about when it is loaded. So do literal names given to `import_module`. A name imported from a package is resolved as
    its submodule, because ``from seqkit.decode import step`` and ``from seqkit.decode.step import x`` are the same.
    """
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            before = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*before, *([node.module] if node.module else [])])
            names = [f"{origin}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "import_module":
            names = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == "seqkit")


def import_violations(modules: dict[str, str]) -> list[str]:
    """Imports against the rule, from sources by their path below seqkit/."""
    violations = []
    for path, source in sorted(modules.items()):
        parts = path.removesuffix(".py").split("/")
        is_package = parts[-1] == "__init__"
        own = parts[0]
        name = ".".join(["seqkit", *(parts[:-1] if is_package else parts)])
        if own in LEVEL_4:
            continue
        if own not in MAY_IMPORT:
            violations.append(f"{path}: package {own} has no level; give it one in {Path(__file__).name}")
            continue
        for line, imported in imported_names(source, name, is_package=is_package):
            target = imported.split(".")[1:]
            allowed = MAY_IMPORT[own] | OPEN_TO_ALL | {own} if own not in OPEN_TO_ALL else OPEN_TO_ALL
            if (
                target
                and target[0] not in allowed
                and ".".join(target[:2]) not in allowed
                and target != ["__version__"]
            ):
                violations.append(f"{path}:{line}: {own} must not import {imported}")
    return violations


def unmirrored(modules: list[str], tests: set[str]) -> list[str]:
    """Modules (paths below seqkit/) that have no test file (paths below tests/)."""
    missing = []
    for path in sorted(modules):
        folder, _, name = path.rpartition("/")
        if name not in ("__init__.py", "__main__.py"):
            test = f"{folder}/test_{name}".lstrip("/")
            if test not in tests:
                missing.append(f"seqkit/{path}: tests/{test} must exist")
    return missing


def native_violations(sources: dict[str, str]) -> list[str]:
    """Torch headers where they must not be, from native sources by their path below csrc/."""
    violations = []
    for path in sorted(sources):
        for chain in _torch_includes(path, sources, ()):
            header = chain[-1]
            if path.startswith("embedding/"):
                violations.append(f"{path}: embedding must not include torch, got {' > '.join(chain)}")
            elif path.endswith("/bind.cpp"):
                if not header.startswith(("torch/csrc/stable/", "torch/headeronly/")):
                    violations.append(f"{path}: bind.cpp must include the stable headers only, got {' > '.join(chain)}")
            elif not path.startswith("common/"):
                violations.append(f"{path}: only bind.cpp may include torch, got {' > '.join(chain)}")
    return violations


def _torch_includes(path: str, sources: dict[str, str], above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Chains of includes from a file to a header of torch, through our own headers."""
    for header in re.findall(r'^[ \t]*#[ \t]*include[ \t]*[<"]([^>"]+)[>"]', sources[path], re.MULTILINE):
        if header.split("/")[0] in ("torch", "ATen", "c10", "caffe2"):
            yield (*above, header)
        for own in (header, f"{path.rpartition('/')[0]}/{header}"):
            if own in sources and own not in above:
                yield from _torch_includes(own, sources, (*above, own))


def weak_symbols(listing: str) -> list[str]:
    """The symbols of an object file, as `nm` lists it, that the linker may take for other files too."""
    return re.findall(r"^[0-9a-f ]* [WVu] (\S+)$", listing, re.MULTILINE)


def drawers(paths: list[str]) -> list[str]:
    """Python files and folders whose name says nothing of what they hold."""
    return [path for path in paths if DRAWERS & {part.removesuffix(".py").strip("_") for part in path.split("/")}]


def loads_torch(statement: str) -> bool:
    """Whether a statement, run in a fresh interpreter, imports torch."""
    script = f"import sys\n{statement}\nprint('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    return answer.stdout.strip() == "True"


def python_sources(folder: str) -> dict[str, str]:
    return {
        path.relative_to(ROOT / folder).as_posix(): path.read_text(encoding="utf-8")
        for path in (ROOT / folder).rglob("*.py")
        if "__pycache__" not in path.parts
    }


def test_imports_point_downwards() -> None:
    sources = python_sources("seqkit")
    assert len(sources) > 10
    assert import_violations(sources) == []


@pytest.mark.parametrize(
    ("path", "line", "says"),
    [
        ("decode/beam.py", "from seqkit.models.transformer import Transformer", "decode must not import seqkit.models"),
        ("decode/beam.py", "def f():\n    import seqkit.models.transformer", "decode/beam.py:2: decode must not"),
        ("decode/__init__.py", "from ..nn import attention", "decode must not import seqkit.nn.attention"),
        ("decode/beam.py", "from .. import nn", "decode must not import seqkit.nn"),
        ("nn/a.py", "if TYPE_CHECKING:\n    from seqkit.decode import step", "nn must not import seqkit.decode.step"),
        ("models/a.py", "from seqkit.decode.beam import beam_search", "models must not import seqkit.decode.beam"),
        ("models/a.py", "from seqkit import vision", "models must not import seqkit.vision"),
        ("ops/a.py", "importlib.import_module('seqkit.nn')", "ops must not import seqkit.nn"),
        ("ops/a.py", "from seqkit import *", "ops must not import seqkit.*"),
        ("training/loop.py", "import seqkit.text.batch as b", "training must not import seqkit.text.batch"),
        ("text/vocab.py", "from seqkit.cli.main import main", "text must not import seqkit.cli.main.main"),
        ("errors.py", "from seqkit.ops import library", "errors must not import seqkit.ops.library"),
        ("atomic.py", "from seqkit.text import vocab", "atomic must not import seqkit.text.vocab"),
        ("things/a.py", "", "package things has no level"),
    ],
)
def test_import_rule_sees_a_violation(path: str, line: str, says: str) -> None:
    (violation,) = import_violations({path: line})
    assert says in violation


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("models/a.py", "from seqkit.decode.step import StepOutput"),
        ("models/a.py", "from seqkit.decode import step"),
        ("models/a.py", "from . import b\nfrom .b import c\nfrom seqkit.nn.linear import Linear"),
        ("analysis/a.py", "from seqkit.decode.beam import beam_search\nfrom seqkit.text import vocab"),
        ("config.py", "from seqkit.errors import InputError"),
        ("cli/a.py", "from seqkit.vision import vgg"),
        ("text/a.py", "import torch\nfrom seqkit.errors import InputError\nfrom seqkit.atomic import write_atomically"),
    ],
)
def test_import_rule_allows_what_it_should(path: str, line: str) -> None:
    assert import_violations({path: line}) == []


def test_every_module_has_its_tests() -> None:
    assert unmirrored(list(python_sources("seqkit")), set(python_sources("tests"))) == []


def test_mirror_rule_sees_a_violation() -> None:
    modules = ["nn/__init__.py", "nn/linear.py", "errors.py", "__main__.py"]
    assert unmirrored(modules, {"nn/test_linear.py", "test_errors.py"}) == []
    assert unmirrored(modules, {"ops/test_linear.py", "nn/test_errors.py"}) == [
        "seqkit/errors.py: tests/test_errors.py must exist",
        "seqkit/nn/linear.py: tests/nn/test_linear.py must exist",
    ]


def test_native_sources_are_free_of_torch() -> None:
    suffixes = (".h", ".cpp", ".cu", ".cuh")
    sources = {
        path.relative_to(ROOT / "csrc").as_posix(): path.read_text(encoding="utf-8")
        for path in (ROOT / "csrc").rglob("*")
        if path.suffix in suffixes
    }
    assert any(path.endswith("/cpu.cpp") for path in sources)
    assert native_violations(sources) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("op/cpu.cpp", "#include <torch/csrc/stable/tensor.h>"),
        ("op/row.simd.cpp", "  #  include <torch/headeronly/core/ScalarType.h>"),
        ("op/cuda.cu", "#include <c10/util/Half.h>"),
        ("op/op.h", '#include "common/bridge.h"'),
        ("op/bind.cpp", "#include <torch/extension.h>"),
        ("op/bind.cpp", "#include <ATen/ATen.h>"),
        ("embedding/bind.cpp", "#include <torch/csrc/stable/tensor.h>"),
    ],
)
def test_native_rule_sees_a_violation(path: str, source: str) -> None:
    ours = {"common/bridge.h": "#include <torch/csrc/stable/tensor.h>", "op/bind.cpp": '#include "common/bridge.h"'}
    assert native_violations(ours) == []
    (violation,) = native_violations({**ours, path: source})
    assert violation.startswith(path)


def test_avx512_objects_have_no_weak_symbols() -> None:
    objects = sorted((ROOT / "build").rglob("*.v4.o"))
    if not objects or not shutil.which("nm"):
        pytest.skip("no build folder with AVX-512 objects, or no nm")
    for path in objects:
        listing = subprocess.run(["nm", str(path)], capture_output=True, text=True, check=True).stdout
        assert listing.strip(), path
        assert weak_symbols(listing) == [], path


def test_weak_symbol_rule_sees_a_violation(tmp_path: Path) -> None:
    assert weak_symbols("0000000000000000 T one\n                 U two\n0000000000000000 W _ZSt3maxIfE\n") == [
        "_ZSt3maxIfE"
    ]
    compiler = shutil.which("c++") or shutil.which("g++")
    if not compiler or not shutil.which("nm"):
        pytest.skip("no compiler")
    source = tmp_path / "a.cpp"
    source.write_text("template <class T> T twice(T x) { return x + x; }\nfloat f(float x) { return twice(x); }\n")
    subprocess.run([compiler, "-O0", "-c", str(source), "-o", str(tmp_path / "a.o")], check=True)
    listing = subprocess.run(["nm", str(tmp_path / "a.o")], capture_output=True, text=True, check=True).stdout
    assert len(weak_symbols(listing)) == 1


@pytest.mark.parametrize("module", LATE_TORCH)
def test_torch_is_imported_late(module: str) -> None:
    assert not loads_torch(f"import {module}")


def test_late_torch_rule_sees_a_violation() -> None:
    assert loads_torch("import seqkit.text.batch")


def test_no_file_is_a_drawer() -> None:
    paths = [f"{folder}/{path}" for folder in ("seqkit", "tests") for path in python_sources(folder)]
    assert drawers(paths) == []


def test_drawer_rule_sees_a_violation() -> None:
    bad = ["seqkit/nn/utils.py", "seqkit/common/a.py", "seqkit/_helpers.py"]
    assert drawers([*bad, "seqkit/text/corpus.py", "seqkit/nn/basement.py"]) == bad
