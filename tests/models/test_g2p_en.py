"""The checkpoint: what is read, and what is refused. Its outputs are the matter of `tests/tasks/test_importer.py`."""

import contextlib
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_networks import g2p_checkpoint

from seqkit.errors import InputError
from seqkit.models.g2p_en import CHECKPOINT, PHONEMES, import_g2p_en
from seqkit.models.plain_seq2seq import PlainSeq2Seq


def test_tables_and_shapes_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    weights = g2p_checkpoint(tmp_path / CHECKPOINT)
    read = import_g2p_en(tmp_path)  # the package's folder
    assert (len(PHONEMES), len(read.source_tokens)) == (70, 52)
    assert (read.source_eos, read.max_length, read.config.cell) == (True, 20, "gru")
    model = PlainSeq2Seq(read.config, source_vocab_size=56, target_vocab_size=74)
    model.load_state_dict(read.state_dict)
    small, capital = model.source_embedding[4:30], model.source_embedding[30:]
    assert torch.equal(small, capital)
    np.testing.assert_array_equal(small.detach(), weights["enc_emb"][3:])
    np.testing.assert_array_equal(model.source_embedding[3].detach(), weights["enc_emb"][2])
    again = import_g2p_en(tmp_path / CHECKPOINT).state_dict
    assert all(torch.equal(read.state_dict[name], again[name]) for name in again)


def _rewritten(path: Path, **changes: np.ndarray | None) -> None:
    with np.load(path) as archive:
        arrays = {**archive, **changes}
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("fc_b", None, "fc_b.npy"),
        ("fc_b", np.zeros(73, np.float32), r"fc_b must have the shape \(74,\), got \(73,\)"),
        ("enc_emb", np.zeros((30, 6), np.float32), r"enc_emb must have the shape \(29, 6\)"),
        ("dec_w_hh", np.zeros((12, 36), np.float32), "dec_w_hh must have the shape"),
        ("enc_emb", np.float32(1.0), "no matrix or vector of real numbers"),
        ("fc_b", np.full(74, np.nan, np.float32), "fc_b must be of finite numbers"),
        ("fc_b", np.full(74, 1e300), "fc_b must be of finite numbers"),
        ("fc_b", np.zeros(74, np.int64), "no matrix or vector of real numbers"),
        ("fc_b", np.array([print] * 74), "Object arrays cannot be loaded"),
    ],
)
def test_other_weights_are_one_sentence(name: str, value: np.ndarray | None, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / CHECKPOINT
    g2p_checkpoint(path)
    _rewritten(path, **{name: value})
    with pytest.raises(InputError, match=sentence) as raised:
        import_g2p_en(path)
    assert "\n" not in str(raised.value)


def test_damaged_files_are_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / CHECKPOINT
    g2p_checkpoint(path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 997):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"whole \.npz of g2p-en"):
            import_g2p_en(path)
    for place in range(0, len(whole), 997):  # a flipped bit is found by the archive's checksums, or is in no weight
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        with contextlib.suppress(InputError):
            import_g2p_en(path)
    with pytest.raises(InputError, match="can be read, got: No such file"):
        import_g2p_en(tmp_path / "none.npz")


def test_a_header_that_lies_of_its_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / CHECKPOINT
    weights = g2p_checkpoint(path)
    for shape in ("(1000000000000, 1000000000)", "(5000, 5000)", "(-1, 3)"):
        with zipfile.ZipFile(path, "w") as archive:
            for name, weight in weights.items():
                file = io.BytesIO()
                np.save(file, weight)
                data = file.getvalue()
                if name == "enc_w_hh":
                    data = data.replace(b"(36, 12), }" + b" " * (len(shape) - 8), shape.encode() + b", }", 1)
                    assert shape.encode() in data
                archive.writestr(f"{name}.npy", data)
        with pytest.raises(InputError, match=r"whole \.npz of g2p-en"):
            import_g2p_en(path)
