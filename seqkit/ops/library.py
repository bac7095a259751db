"""Which code an operator runs: the native kernel of `seqkit/_C.abi3.so`, or its plain-torch reference.

The library is loaded when this module is imported, and loading never fails the import: `status()` says per operator and
device what runs and why, for `seqkit info`. The choice is `auto` (native where it is built, else the reference),
`native` (an operator that is not built raises) or `reference`, from the environment variable SEQKIT_BACKEND or
`use_backend`.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from seqkit.errors import InputError

PACKAGE = Path(__file__).resolve().parents[1]
CHOICES = ("auto", "native", "reference")
DEVICES = ("cpu", "cuda")

RECURRENT = (
    "float32, bfloat16 and float16, on the CPU float64 too, forward and backward; bfloat16 by AMX where the CPU has it"
)
# The name of each operator's kernel in the dispatcher, and what the kernel covers; the rest runs on the reference.
OPERATORS = {
    "additive_attention": ("additive_attention", "float32, float64, bfloat16 and float16, forward and backward"),
    "attention": (
        "attention_forward",
        "float32, float64, bfloat16 and float16, forward and backward; long bfloat16 by torch where the CPU has AMX",
    ),
    "batched_nms": ("nms_mask", "float32, on the CPU float64 too"),
    "beam_step": ("beam_step", "float32; on CUDA float16 and bfloat16 too"),
    "box_iou": ("box_iou", "float32, on the CPU float64 too, without gradient"),
    "crf_decode": ("crf_decode", "float32 and float64"),
    "crf_log_likelihood": ("crf_log_likelihood", "float32 and float64, forward and backward in one pass"),
    "cross_attention_decode": ("cross_attention_decode", "float32, float16 and bfloat16 without gradient"),
    "ctc_beam_search": (
        "ctc_beam_search",
        "float32 and float64; on CUDA float32, float16 and bfloat16, beams of up to 512, else on the CPU",
    ),
    "ctc_loss": ("ctc_loss", "float32, float64, bfloat16 and float16, forward and backward"),
    "decode_attention": ("decode_attention", "float32, float16 and bfloat16 without gradient"),
    "extend_ancestry": ("extend_ancestry", "every call"),
    "gru": ("rnn", RECURRENT),
    "gru_cell": ("gru_cell", "float32 without gradient"),
    "linear": ("linear", "float32 without gradient"),
    "lstm": ("rnn", RECURRENT),
    "lstm_cell": ("lstm_cell", "float32 without gradient"),
    "nms": ("nms_mask", "float32, on the CPU float64 too"),
    "rnn": ("rnn", RECURRENT),
    "roi_align": ("roi_align", "float32, float64, bfloat16 and float16, forward and backward"),
    "soft_nms": ("soft_nms_padded", "float32, on the CPU float64 too"),
    "viterbi_align": ("viterbi_align", "float32, float64, bfloat16 and float16 without gradient"),
    "word2vec_step": ("word2vec_step", "float32; on CUDA rows of up to 1024 numbers, windows of up to 10000"),
}


@dataclass(frozen=True, kw_only=True)
class Status:
    """What one operator runs on one device (`native` or `reference`), and why."""

    op: str
    device: str
    backend: str
    why: str


def build_facts() -> dict[str, Any]:
    """What setup.py wrote down: `built`, `why`, `ops`, `compiler`, `isa`, `cuda_archs`, `torch`."""
    path = PACKAGE / "_build.json"
    if not path.exists():
        return {"built": False, "why": "seqkit was not installed, so nothing was built; run: pip install -e ."}
    facts: dict[str, Any] = json.loads(path.read_text())
    return facts


def _has_amx() -> bool:
    """Whether the CPU has AMX and the system lets this process use it; SEQKIT_ISA caps it, as it does the kernels."""
    supported, ask = (getattr(torch.cpu, name, lambda: False) for name in ("_is_amx_tile_supported", "_init_amx"))
    return os.environ.get("SEQKIT_ISA", "") not in ("0", "1") and bool(supported()) and bool(ask())


def _load() -> str:
    """Loads the library; the reason why not, or "" when it is there."""
    path = PACKAGE / "_C.abi3.so"
    if not path.exists():
        return str(build_facts()["why"]) or f"{path.name} is missing; install seqkit again"
    try:
        torch.ops.load_library(str(path))  # type: ignore[no-untyped-call]
    except OSError as error:
        return f"{path.name} cannot be loaded: {error}"
    return ""


def _native_pairs() -> frozenset[tuple[str, str]]:
    """Every (operator, device) that has a kernel."""
    pairs = set()
    for op, (kernel, _) in OPERATORS.items():
        name = f"seqkit::{kernel}"
        if torch._C._dispatch_has_kernel(name):
            for device in DEVICES:
                if torch._C._dispatch_has_kernel_for_dispatch_key(name, device.upper()):
                    pairs.add((op, device))
    return frozenset(pairs)


# The matrix unit of some CPUs, for products of bfloat16: torch's, and those of `rnn`, `gru` and `lstm`.
HAS_AMX = _has_amx()
_missing = _load()
_native = _native_pairs()
_choice = os.environ.get("SEQKIT_BACKEND", "auto")


def is_built(op: str, device: str = "cpu") -> bool:
    """Whether the operator has a kernel for the device type, whatever the choice."""
    return (op, device) in _native


def _why_not(op: str, device: str) -> str:
    if _missing:
        return _missing
    if device == "cpu" or (op, "cpu") not in _native:
        return "the library holds no such kernel; install seqkit again"
    return f"there is no {device} kernel yet"


def _check_choice() -> None:
    if _choice not in CHOICES:
        raise InputError(f"SEQKIT_BACKEND: the backend must be one of {', '.join(CHOICES)}, got {_choice!r}")


def backend(op: str, device: torch.device | str = "cpu") -> str:
    """`native` or `reference`: what `op` runs for a tensor on `device` that its kernel covers (see `status`).

    Raises:
        InputError: the choice is `native` and the kernel is not built, or the choice is none of `CHOICES`.
    """
    kind = device.split(":")[0] if isinstance(device, str) else device.type
    _check_choice()
    if _choice == "reference":
        return "reference"
    if (op, kind) in _native:
        return "native"
    if _choice == "native":
        raise InputError(
            f"ops.{op}: the backend must be built to be `native`, got none for {kind}: {_why_not(op, kind)}"
        )
    return "reference"


def may_choose() -> bool:
    """Whether an operator may run what is fastest, torch's own included: the choice is `auto`."""
    return _choice == "auto"


def runs_kernel(op: str, *tensors: torch.Tensor | None) -> bool:
    """Whether an inference kernel takes these: all float32 on one device, no gradient asked for, no autocast."""
    grad = torch.is_grad_enabled()
    device = None
    for tensor in tensors:  # a plain loop: it runs several times in every step of a decoder
        if tensor is None:
            continue
        if device is None:
            device = tensor.device
        if tensor.dtype != torch.float32 or tensor.device != device or (grad and tensor.requires_grad):
            return False
    return device is not None and not torch.is_autocast_enabled(device.type) and backend(op, device) == "native"


@contextmanager
def use_backend(choice: str) -> Iterator[None]:
    """Runs the operators of the whole process on `choice` (`auto`, `native` or `reference`) within the block."""
    global _choice
    if choice not in CHOICES:
        raise InputError(f"use_backend: choice must be one of {', '.join(CHOICES)}, got {choice!r}")
    before, _choice = _choice, choice
    try:
        yield
    finally:
        _choice = before


def status() -> list[Status]:
    """One line per operator and device, the CUDA device only where torch has one.

    Raises:
        InputError: the choice is none of `CHOICES`.
    """
    _check_choice()
    lines = []
    for op, (_, covers) in OPERATORS.items():
        for device in DEVICES if torch.cuda.is_available() else DEVICES[:1]:
            if (op, device) not in _native:
                lines.append(Status(op=op, device=device, backend="reference", why=_why_not(op, device)))
            elif _choice == "reference":
                lines.append(Status(op=op, device=device, backend="reference", why="SEQKIT_BACKEND is `reference`"))
            else:
                lines.append(Status(op=op, device=device, backend="native", why=covers))
    return lines
