import pytest
import torch

from seqkit.cli.threads import set_threads
from seqkit.errors import InputError


def test_set_threads_tells_torch() -> None:
    before = torch.get_num_threads()
    try:
        set_threads(2)
        assert torch.get_num_threads() == 2
        set_threads(None)
        assert torch.get_num_threads() == 2
        set_threads(1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("count", [0, -3])
def test_set_threads_refuses_less_than_one(count: int) -> None:
    with pytest.raises(InputError, match=f"--threads: the count must be at least 1, got {count}"):
        set_threads(count)
