"""The machine code of the CUDA kernels, as the build left it: what is promised of it is there, for every card.

`cuobjdump` and `nvdisasm` are NVIDIA's, from PyPI; no card is needed.
"""

import functools
import os
import re
import subprocess
import sysconfig
from pathlib import Path
from typing import NamedTuple

import pytest
from emulated import CSRC, ROOT

# What a kernel must hold, by a part of its name: a pattern for one of its instructions, or several.
COPIES_BY_16 = r"LDGSTS\.E\.(BYPASS\.)?128"
LOADS_OF_16 = r"LDG\.E\.128"
TENSOR_CORES = (r"HMMA\.16816\.F32", r"LDSM\.16\.M(T)?88\.4")
PROMISES: dict[str, dict[str, tuple[str, ...]]] = {
    "attention": {
        r"forward_kernelI(6__half|13__nv_bfloat16)": (COPIES_BY_16, *TENSOR_CORES),
        r"queries_kernelI(6__half|13__nv_bfloat16)": (COPIES_BY_16, *TENSOR_CORES),
        r"keys_kernelI(6__half|13__nv_bfloat16)": (COPIES_BY_16, *TENSOR_CORES),
        r"(forward|queries|keys)_kernelIf": (COPIES_BY_16, r"FFMA", r"LDS\.128"),
    },
    "additive_attention": {  # bound by the tanh, not by memory: a lane has four numbers
        r"(forward|backward_scores)IfLb1": (LOADS_OF_16, r"LDS\.128"),
        r"(forward|backward_scores)I(6__half|13__nv_bfloat16)Lb1": (r"LDG\.E\.64", r"LDS\.128"),
    },
    "beam_step": {r"(sweep|sentence|mean)_kernel": (LOADS_OF_16,)},
    "crf": {r"likelihood_kernel": (r"SHFL\.BFLY", r"MUFU\.EX2")},  # small and bound by latency
    "ctc": {
        r"(gather|gradient)I(f|6__half|13__nv_bfloat16)Lb1": (LOADS_OF_16,),
        r"gradientI(f|6__half|13__nv_bfloat16)Lb1": (r"STG\.E\.128",),
        r"walk_both_ways": (r"STG\.E\.128", r"LDS\.128", r"STS\.128"),
        r"meet": (LOADS_OF_16,),
        r"align": (r"BAR\.SYNC",),
    },
    "ctc_beam": {  # bound by barriers and latency: numbers are read one by one
        r"search_kernelI(f|6__half|13__nv_bfloat16)Lb1": (r"DADD", r"ATOMS\.MIN"),
        r"search_kernelI(f|6__half|13__nv_bfloat16)": (r"ATOMS", r"VOTE", r"SHFL\.BFLY", r"BAR\.SYNC", r"MUFU\.EX2"),
    },
    "decode_attention": {r"attendI.*Lb1E": (LOADS_OF_16,)},
    "nms": {
        r"(decide|strike|iou)_kernel": (LOADS_OF_16,),
        r"soft_kernelILb1": (r"SHFL\.BFLY", r"BAR\.SYNC", r"DFMA", r"LDS\.128", r"STS\.128"),
        r"soft_kernelILb0": (r"SHFL\.BFLY", r"BAR\.SYNC", r"DFMA", LOADS_OF_16, r"STG\.E\.128"),
    },
    "rnn": {
        r"product_kernelILb1": (LOADS_OF_16, r"FFMA", r"SHFL\.BFLY"),
        r"(forward|backward)_kernel": (r"BAR\.SYNC", r"SHFL\.BFLY", r"MUFU\.EX2"),  # numbers are read one by one
    },
    "roi_align": {  # scattered loads; the backward pass has no atomics
        r"forward_kernelIf": (r"LDG\.E(\.CONSTANT)?$", r"FFMA"),
        r"backward_kernelI": (r"BAR\.SYNC", r"FFMA", r"LDS"),
    },
    "word2vec_step": {  # past the first cache, by whole lines; additions that wait for no answer
        r"step_kernel": (r"LDG\.E\.STRONG\.GPU", r"REDG?\.E\.ADD\.F32", r"SHFL\.BFLY", r"FFMA"),
    },
}
ARCHITECTURES = ("sm_80", "sm_90")


class Kernel(NamedTuple):
    name: str
    architecture: str
    instructions: list[str]  # with their suffixes, without operands

    @property
    def local_memory(self) -> list[str]:
        """What spilled registers and arrays with a moving index would leave."""
        return [text for text in self.instructions if re.match(r"(LDL|STL)\b", text)]


def tools() -> dict[str, str]:
    """An environment whose PATH has the disassembler."""
    folder = Path(sysconfig.get_path("purelib")) / "nvidia/cu13/bin"
    if not (folder / "cuobjdump").exists():
        pytest.skip("nvidia-cuda-cuobjdump is not installed")
    return {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def kernels_in(listing: str) -> list[Kernel]:
    """The kernels of a listing of `cuobjdump -sass`."""
    found: list[Kernel] = []
    architecture = ""
    for line in listing.splitlines():
        if named := re.match(r"\s*arch = (\w+)", line):
            architecture = named[1]
        elif named := re.match(r"\s*Function : (\S+)", line):
            found.append(Kernel(named[1], architecture, []))
        elif named := re.match(r"\s*/\*[0-9a-f]{4,5}\*/\s+(?:@!?\w+\s+)?([A-Z][\w.]+)", line):
            found[-1].instructions.append(named[1])
    return found


@functools.cache
def kernels(op: str) -> list[Kernel]:
    """All kernels of an operator, for all architectures."""
    objects = sorted((ROOT / "build/native").glob(f"{op}_cuda*.cu.o"))
    if not objects:
        pytest.skip("no CUDA objects in build/native")
    found: list[Kernel] = []
    for path in objects:
        done = subprocess.run(["cuobjdump", "-sass", path], capture_output=True, text=True, check=True, env=tools())
        found += kernels_in(done.stdout)
    return found


def test_every_operator_with_a_kernel_has_promises() -> None:
    assert set(PROMISES) == {path.parent.name for path in CSRC.glob("*/cuda*.cu")}


@pytest.mark.parametrize("op", PROMISES)
def test_machine_code_is_what_it_should_be(op: str) -> None:
    found = kernels(op)
    for pattern, promised in PROMISES[op].items():
        matching = [kernel for kernel in found if re.search(pattern, kernel.name)]
        assert {kernel.architecture for kernel in matching} == set(ARCHITECTURES), pattern
        for kernel in matching:
            for wanted in promised:
                assert any(re.match(wanted, text) for text in kernel.instructions), (kernel[:2], wanted)


@pytest.mark.parametrize("op", PROMISES)
def test_no_kernel_spills(op: str) -> None:
    for kernel in kernels(op):
        assert kernel.local_memory == [], kernel[:2]


def test_a_kernel_that_uses_local_memory_is_seen() -> None:
    listing = """
        arch = sm_80
                Function : _Z5spill
        /*0000*/                   MOV R1, c[0x0][0x28] ;    /* 0x00000a0000017a02 */
        /*0010*/              @!P0 STL.64 [R1], R2 ;         /* 0x0000000201007387 */
        /*12a0*/                   LDGSTS.E.BYPASS.128 [R9], [R6.64], P0 ;
    """
    (kernel,) = kernels_in(listing)
    assert kernel.architecture == "sm_80"
    assert kernel.local_memory == ["STL.64"]
    assert re.match(COPIES_BY_16, kernel.instructions[2])
