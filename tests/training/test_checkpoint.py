from pathlib import Path

import pytest
import torch

from seqkit.errors import InputError
from seqkit.training.checkpoint import average_checkpoints, load_tensors, save_tensors


def test_tensors_and_state_come_back(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 2), "half": torch.randn(5).half(), "empty": torch.zeros(0), "n": torch.tensor(7)}
    save_tensors(tmp_path / "x.safetensors", tensors, {"step": 3, "list": [1, 2.5]})
    loaded, state = load_tensors(tmp_path / "x.safetensors")
    assert state == {"step": 3, "list": [1, 2.5]}
    assert loaded.keys() == tensors.keys()
    assert all(
        torch.equal(loaded[name], tensors[name]) and loaded[name].dtype == tensors[name].dtype for name in tensors
    )


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    tensors = {name: torch.arange(5.0) for name in "abcdefgh"}
    for name in ("one", "two"):
        save_tensors(tmp_path / name, tensors, {"x": 1, "y": 2})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_flipped_bit_anywhere_in_the_weights_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_tensors(path, {"a": torch.randn(64)})
    content = bytearray(path.read_bytes())
    for offset in (1, 100, 255):
        damaged = bytearray(content)
        damaged[-offset] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="checksum"):
            load_tensors(path)


def test_a_damaged_header_is_refused_like_damaged_tensors(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_tensors(path, {"w": torch.ones(2)}, {"step": 7})
    whole = path.read_bytes()
    for old, new in ((b"sha256", b"sha257"), (b"state", b"stade"), (b'{\\"sha', b'[\\"sha'), (b'\\": 7}', b'\\": x}')):
        assert whole.count(old) == 1
        path.write_bytes(whole.replace(old, new))
        with pytest.raises(InputError, match="the file is damaged"):
            load_tensors(path)


@pytest.mark.parametrize("content", [b"", b"not safetensors", b"\xff" * 100])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(InputError, match="must be a readable safetensors file"):
        load_tensors(tmp_path / "x")
    with pytest.raises(InputError, match="must be a readable safetensors file"):
        load_tensors(tmp_path / "missing")


def test_average_is_the_mean(tmp_path: Path) -> None:
    parts = [torch.randn(4, 4) for _ in range(3)]
    for index, part in enumerate(parts):
        save_tensors(tmp_path / f"{index}", {"w": part})
    mean = average_checkpoints([tmp_path / "0", tmp_path / "1", tmp_path / "2"])["w"]
    torch.testing.assert_close(mean, torch.stack(parts).double().mean(0).float())
    assert mean.dtype == torch.float32


def test_average_refuses_other_shapes_and_nothing(tmp_path: Path) -> None:
    save_tensors(tmp_path / "a", {"w": torch.zeros(2)})
    save_tensors(tmp_path / "b", {"w": torch.zeros(3)})
    with pytest.raises(InputError, match="must have the tensors of the first one"):
        average_checkpoints([tmp_path / "a", tmp_path / "b"])
    with pytest.raises(InputError, match="at least one checkpoint"):
        average_checkpoints([])
