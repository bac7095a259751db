"""Another project lifts `seqkit.ops` alone: it imports nothing else of seqkit, and trains under `torch.compile`."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import torch
from torch import nn
from seqkit import ops

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
    def forward(self, x, lengths):
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, 2, 8).permute(2, 0, 3, 1, 4)
        mixed = ops.attention(q, k, v, k_lengths=lengths, causal=True)
        return self.out(mixed.transpose(1, 2).flatten(2))

torch.manual_seed(0)
model = torch.compile(Block(), fullgraph=True)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
x, lengths = torch.randn(4, 10, 16), torch.tensor([10, 7, 3, 1])
for step in range(60):
    loss = (model(x, lengths) - x.cumsum(1)).square().mean()
    optimizer.zero_grad(); loss.backward(); optimizer.step()
    first = loss.item() if step == 0 else first
print(first, loss.item())
"""
LOADED = """
import sys
print(sorted(name for name in sys.modules if name.startswith("seqkit") and not name.startswith("seqkit.ops")))
"""


def run(folder: Path, script: str) -> str:
    source = folder / "train.py"
    source.write_text(script)
    return subprocess.run([sys.executable, source], capture_output=True, text=True, check=True, cwd=folder).stdout


@pytest.mark.compile
def test_a_foreign_script_trains_under_compile(tmp_path: Path) -> None:
    assert len(SCRIPT.strip().splitlines()) <= 24
    first, last = map(float, run(tmp_path, SCRIPT).split())
    assert last < 0.7 * first


def test_ops_bring_nothing_else_of_seqkit_along(tmp_path: Path) -> None:
    assert run(tmp_path, "from seqkit import ops\n" + LOADED).strip() == "['seqkit', 'seqkit.errors']"
