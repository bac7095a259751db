"""Tensors on disk: safetensors files that are whole or not there, each with the checksum of its content.

A file's header carries one entry, `seqkit`: JSON with a state that the writer adds, and the SHA-256 over tensors and
state. One entry only, because safetensors does not fix the order of several, and the same weights should give the same
bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from seqkit.atomic import write_atomically
from seqkit.errors import InputError


def save_tensors(path: Path, tensors: dict[str, Tensor], state: dict[str, Any] | None = None) -> None:
    """Writes named tensors and a JSON-able state to `path`, atomically."""
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    header = json.dumps({"sha256": _digest(tensors, state or {}), "state": state or {}}, sort_keys=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, safetensors.torch.save(tensors, {"seqkit": header}))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the state of a file of `save_tensors`; a plain safetensors file has an empty state.

    Raises:
        InputError: the file is missing, is not safetensors, or its content does not have the checksum it carries.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get("seqkit")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        raise InputError(f"{path}: the checkpoint must be a readable safetensors file, got: {reason}") from None
    if header is None:
        return tensors, {}
    try:
        content = json.loads(header)
        checksum, state = content["sha256"], content["state"]
    except (ValueError, KeyError, TypeError):
        checksum, state = None, {}  # the header itself is damaged
    if checksum != _digest(tensors, state):
        raise InputError(
            f"{path}: the checkpoint must have the checksum it was written with, got another: the file is damaged; "
            "take another checkpoint, or remove the folder and start anew"
        )
    return tensors, state


def average_checkpoints(paths: Iterable[Path]) -> dict[str, Tensor]:
    """The mean of the weights of several checkpoints, summed in float64 (Vaswani et al. 2017, section 6.1).

    Raises:
        InputError: no checkpoint, one that a training resumes from, or checkpoints whose tensors differ.
    """
    total: dict[str, Tensor] = {}
    first: dict[str, Tensor] = {}
    count = 0
    for path in paths:
        tensors, state = load_tensors(path)
        if "progress" in state:
            raise InputError(f"{path}: the checkpoint must hold weights alone to be averaged, got one to resume from")
        if not first:
            first = tensors
            total = {name: torch.zeros_like(tensor, dtype=torch.float64) for name, tensor in tensors.items()}
        if {n: t.shape for n, t in tensors.items()} != {n: t.shape for n, t in first.items()}:
            raise InputError(
                f"{path}: the checkpoint must have the tensors of the first one, got other names or shapes"
            )
        for name, tensor in tensors.items():
            total[name] += tensor
        count += 1
    if not count:
        raise InputError("average: there must be at least one checkpoint, got none")
    return {name: (tensor / count).to(first[name].dtype) for name, tensor in total.items()}


def _digest(tensors: dict[str, Tensor], state: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(state, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
