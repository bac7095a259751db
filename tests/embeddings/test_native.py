"""The arithmetic of a window against autograd, at every machine level, and the library's face."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from seqkit.embeddings import native
from seqkit.errors import InputError

pytestmark = pytest.mark.skipif(not (native.PACKAGE / native.LIBRARY).exists(), reason="the trainer is not built")


def aligned(rows: np.ndarray, width: int) -> np.ndarray:
    """The same rows, padded with zeros to `width` and on a 64-byte boundary."""
    raw = np.zeros(rows.shape[0] * width + 16, np.float32)
    begin = -raw.ctypes.data % 64 // 4
    padded = raw[begin : begin + rows.shape[0] * width].reshape(rows.shape[0], width)
    padded[:, : rows.shape[1]] = rows
    return padded


def step(inputs: np.ndarray, outputs: np.ndarray, weight: np.ndarray, *, mean: bool) -> float:
    return native.call(
        "window_step", inputs.ctypes.data, len(inputs), outputs.ctypes.data, weight.ctypes.data, len(outputs),
        inputs.shape[1], int(mean),
    )  # fmt: skip


def check_windows() -> None:
    generator = np.random.default_rng(3)
    for mean in (False, True):
        for n_in in (1, 2, 3, 4, 7, 10):
            for n_out in (1, 2, 3, 5, 6, 8, 9, 16, 23):
                dim = int(generator.integers(1, 70))
                width = (dim + 15) // 16 * 16
                before_in, before_out = (generator.normal(size=(n, dim)).astype(np.float32) for n in (n_in, n_out))
                weight = generator.choice([-1.0, -0.5, 0.0, 0.25, 1.0], n_out).astype(np.float32) * 1e-2
                inputs, outputs = aligned(before_in, width), aligned(before_out, width)
                loss = step(inputs, outputs, weight, mean=mean)

                x, q = (torch.tensor(rows, dtype=torch.float64, requires_grad=True) for rows in (before_in, before_out))
                w = torch.tensor(weight, dtype=torch.float64)
                hidden = x.mean(0, keepdim=True) if mean else x
                log_p = torch.nn.functional.logsigmoid((hidden @ q.T) * w.sign())
                (log_p * w.abs()).sum().backward()
                grad = n_in * x.grad if mean else x.grad  # each row of a mean takes the whole step
                where = (mean, n_in, n_out, dim)
                np.testing.assert_allclose(inputs[:, :dim], before_in + grad.numpy(), atol=2e-6, err_msg=str(where))
                np.testing.assert_allclose(outputs[:, :dim], before_out + q.grad.numpy(), atol=2e-6, err_msg=str(where))
                assert not inputs[:, dim:].any()
                assert not outputs[:, dim:].any()
                expected = float(-log_p[:, w != 0].sum())
                assert loss == pytest.approx(expected, rel=1e-5, abs=1e-5), where


@pytest.mark.parametrize("level", ["0", "1", "2"])
def test_window_step_is_that_of_autograd(level: str) -> None:
    code = "import sys; sys.path.insert(0, 'tests/embeddings'); import test_native; test_native.check_windows()"
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "SEQKIT_ISA": level, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_window_step_lowers_the_loss_of_a_fixed_batch_as_torch_does() -> None:
    generator = np.random.default_rng(5)
    x, q = (generator.normal(size=(n, 16)).astype(np.float32) * 0.1 for n in (6, 8))
    weight = np.array([0.05] + [-0.05] * 7, np.float32)
    inputs, outputs = aligned(x, 16), aligned(q, 16)
    ours = [step(inputs, outputs, weight, mean=False) for _ in range(40)]
    a, b, sign = torch.tensor(x), torch.tensor(q), torch.tensor(weight).sign()
    theirs = []
    for _ in range(40):
        a, b = a.requires_grad_(), b.requires_grad_()
        loss = -torch.nn.functional.logsigmoid((a @ b.T) * sign).sum()
        theirs.append(float(loss.detach()))
        grad_a, grad_b = torch.autograd.grad(loss, (a, b))
        a, b = (a - 0.05 * grad_a).detach(), (b - 0.05 * grad_b).detach()
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    assert ours[-1] < 0.5 * ours[0]


def test_a_large_loss_is_not_cut() -> None:
    inputs, outputs = aligned(np.full((1, 1), 10, np.float32), 16), aligned(np.full((1, 1), 6, np.float32), 16)
    assert step(inputs, outputs, np.array([-1e-9], np.float32), mean=False) == pytest.approx(60, rel=1e-5)


def test_a_missing_library_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    native._functions.cache_clear()
    monkeypatch.setattr(native, "LIBRARY", "no_such.so")
    with pytest.raises(InputError, match="the native trainer must be built to train, got none"):
        native.call("corpus_new", 1, 0, 0, 1, b"/tmp")
    native._functions.cache_clear()


def test_importing_embeddings_does_not_import_torch() -> None:
    code = "import seqkit.embeddings, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
