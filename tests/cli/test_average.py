import shutil
from pathlib import Path
from typing import Any

import torch

from seqkit.training.checkpoint import load_tensors, save_tensors


def test_average_of_a_run_folder_is_the_mean_of_its_steps(seqkit: Any, tiny_run: Path, tmp_path: Path) -> None:
    ran = seqkit("average", tiny_run, "-o", tmp_path / "mean.safetensors")
    steps = sorted((tiny_run / "checkpoints").glob("step-*.safetensors"))
    assert len(steps) >= 2
    assert (ran.code, ran.out) == (0, b"")
    assert ran.err == f"{tmp_path / 'mean.safetensors'}: the mean of {len(steps)} checkpoints\n"
    mean, _ = load_tensors(tmp_path / "mean.safetensors")
    parts = [load_tensors(path)[0] for path in steps]
    assert mean.keys() == parts[0].keys()
    for name, tensor in mean.items():
        expected = torch.stack([part[name].double() for part in parts]).mean(0).float()
        torch.testing.assert_close(tensor, expected)
    given = seqkit("average", *steps, "-o", tmp_path / "again.safetensors")
    assert given.code == 0
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "mean.safetensors").read_bytes()


def test_the_average_serves_as_the_weights_of_a_run(seqkit: Any, tiny_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    assert seqkit("average", run, "-o", run / "model.safetensors").code == 0
    assert len(seqkit("translate", run, stdin=b"abc\nd\n").lines) == 2


def test_average_refuses_what_it_cannot_average(seqkit: Any, tiny_run: Path, tmp_path: Path) -> None:
    output = tmp_path / "x.safetensors"
    ran = seqkit("average", tmp_path, "-o", output)
    assert ran.code == 2
    assert "the run folder must have step checkpoints, got none" in ran.err
    assert "No such file" in seqkit("average", tmp_path / "none", "-o", output).err
    save_tensors(tmp_path / "other", {"w": torch.zeros(2)})
    ran = seqkit("average", tiny_run / "model.safetensors", tmp_path / "other", "-o", output)
    assert ran.code == 2
    assert "other: the checkpoint must have the tensors of the first one" in ran.err
    assert not output.exists()
