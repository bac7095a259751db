"""The CUDA kernel of word2vec on the host: apart, windows move rows as the reference does; together, none is lost."""

from typing import Any

import pytest
import torch
from torch import Tensor

from seqkit import ops

OPS = torch.ops.seqkit_emulated


@pytest.fixture
def poisoned() -> object:
    torch.use_deterministic_algorithms(True)  # fills what is allocated with NaN
    yield
    torch.use_deterministic_algorithms(False)


def draw_apart(windows: int, D: int, n: int, *, window: int) -> dict[str, Any]:
    """Sentences of which one word has a window, of words that no other sentence has; some come twice in their own."""
    generator = torch.Generator().manual_seed(windows + D + n)
    ids, radii, negatives = [], [], []
    next_word = 0
    for i in range(windows):
        length = int(torch.randint(1, 2 * window + 4, (), generator=generator))
        words = list(range(next_word, next_word + length + n))
        next_word += len(words)
        sentence, drawn = words[:length], words[length:]
        middle = int(torch.randint(length, (), generator=generator))
        if i % 3 == 1 and length > 1:
            sentence[(middle + 1) % length] = sentence[(middle + 2) % length]
        if i % 3 == 2 and n > 2:
            drawn[0], drawn[1] = sentence[middle], drawn[2]
        for position, word in enumerate(sentence):
            ids.append(word)
            reach = int(torch.randint(window + 1, (), generator=generator)) if position == middle else 0
            radii.append(reach if i % 4 else window * (position == middle))
            negatives.append(drawn if position == middle else [0] * n)
        ids.append(-1)
        radii.append(window)
        negatives.append([0] * n)
    rows = [torch.randn(next_word, D, generator=generator) for _ in range(2)]
    return {
        "inputs": rows[0],
        "outputs": rows[1],
        "ids": torch.tensor(ids, dtype=torch.int32),
        "radii": torch.tensor(radii, dtype=torch.int32),
        "negatives": torch.tensor(negatives, dtype=torch.int32).view(len(ids), n),
    }


def step(given: dict[str, Any], window: int, *, rate: float = 0.1, cbow: bool = False, begin: int = 0,
         concurrency: int = 8) -> list[Tensor]:  # fmt: skip
    rows = [given[name].clone() for name in ("inputs", "outputs")]
    rest = [given[name] for name in ("ids", "radii", "negatives")]
    losses, pairs = OPS.word2vec_step(*rows, *rest, begin, window, rate, 0.75, cbow, concurrency)
    return [*rows, losses, pairs]


def exact(given: dict[str, Any], window: int, dtype: torch.dtype, *, rate: float = 0.1, cbow: bool = False,
          begin: int = 0) -> list[Tensor]:  # fmt: skip
    rows = [given[name].to(dtype, copy=True) for name in ("inputs", "outputs")]
    rest = [given[name] for name in ("ids", "radii", "negatives")]
    found = ops.word2vec_step_reference(
        *rows, *rest, window=window, rate=rate, begin=begin, negative_weight=0.75, cbow=cbow
    )
    return [*rows, *found]


def check(mine: list[Tensor], given: dict[str, Any], window: int, **options: Any) -> None:
    truths, peers = (exact(given, window, dtype, **options) for dtype in (torch.float64, torch.float32))
    for x, truth, peer in zip(mine, truths, peers, strict=True):
        assert x.isfinite().all()
        error, theirs = ((each.double() - truth.double()).abs().max().item() for each in (x, peer))
        assert error <= 2 * theirs + 2e-6 * max(truth.double().abs().max().item(), 1.0)


# Each width of a tile and the widths around it, one tile of outputs and several, windows of more than a warp's votes.
@pytest.mark.parametrize("cbow", [False, True])
@pytest.mark.parametrize(
    ("windows", "D", "n", "window"),
    [
        (1, 1, 1, 1), (9, 5, 7, 2), (9, 96, 8, 3), (9, 100, 7, 5), (5, 128, 0, 2), (5, 129, 17, 2), (4, 300, 7, 5),
        (3, 321, 5, 2), (3, 513, 3, 2), (3, 1024, 1, 2), (2, 64, 3, 40),
    ],
)  # fmt: skip
def test_windows_apart_equal_float64(
    windows: int, D: int, n: int, window: int, cbow: bool, schedule: str, poisoned: None
) -> None:
    given = draw_apart(windows, D, n, window=window)
    mine = step(given, window, cbow=cbow)
    check(mine, given, window, cbow=cbow)
    for x, again in zip(mine, step(given, window, cbow=cbow, concurrency=3), strict=True):
        assert torch.equal(x, again)  # nothing is shared, so that nothing depends on who takes which window


@pytest.mark.parametrize("cbow", [False, True])
def test_one_warp_goes_through_a_text_as_the_cpu_does(cbow: bool, schedule: str) -> None:
    generator = torch.Generator().manual_seed(5)
    given = {
        "inputs": torch.randn(12, 40, generator=generator),
        "outputs": torch.randn(12, 40, generator=generator),
        "ids": torch.randint(-1, 12, (60,), generator=generator, dtype=torch.int32),
        "radii": torch.randint(0, 4, (50,), generator=generator, dtype=torch.int32),
        "negatives": torch.randint(12, (50, 7), generator=generator, dtype=torch.int32),
    }
    mine = step(given, 3, cbow=cbow, begin=7, concurrency=1)
    check(mine, given, 3, cbow=cbow, begin=7)


@pytest.mark.parametrize("cbow", [False, True])
def test_windows_that_share_rows_lose_no_addition(cbow: bool, schedule: str) -> None:
    # At a small rate the order hardly matters: what rows have moved by is the sum of all windows' steps.
    generator = torch.Generator().manual_seed(6)
    given = {
        "inputs": 0.1 * torch.randn(3, 20, generator=generator),
        "outputs": 0.1 * torch.randn(3, 20, generator=generator),
        "ids": torch.randint(3, (150,), generator=generator, dtype=torch.int32),
        "radii": torch.full((150,), 2, dtype=torch.int32),
        "negatives": torch.randint(3, (150, 7), generator=generator, dtype=torch.int32),
    }
    rate = 2.0**-14
    mine = step(given, 2, rate=rate, cbow=cbow, concurrency=150)
    truth = exact(given, 2, torch.float64, rate=rate, cbow=cbow)
    for name, x, wanted in zip(("inputs", "outputs"), mine, truth, strict=False):
        steps = (x.double() - given[name].double()) / rate
        torch.testing.assert_close(steps, (wanted - given[name].double()) / rate, rtol=0.02, atol=0.2)
    assert torch.equal(mine[3], truth[3])
    torch.testing.assert_close(mine[2].double(), truth[2], rtol=0.01, atol=0.01)


def test_what_is_out_of_range_is_cut(schedule: str, poisoned: None) -> None:
    given = draw_apart(6, 20, 3, window=3)
    V = len(given["inputs"])
    sound = {**given, "ids": given["ids"].clone(), "negatives": given["negatives"].clone()}
    wrong = {**given, "ids": given["ids"].clone(), "negatives": given["negatives"].clone()}
    wrong["radii"] = torch.where(given["radii"] == 3, 2**31 - 1, torch.where(given["radii"] == 0, -5, given["radii"]))
    for at, id in ((2, V), (5, 2**31 - 1)):
        wrong["ids"][at], sound["ids"][at] = id, -1
    wrong["negatives"][:, 1] = torch.where(given["radii"] == 2, V, -4)
    # Without a step, as a word that is drawn for itself.
    sound["negatives"][:, 1] = sound["ids"].clamp(min=0)
    for mine, wanted in zip(step(wrong, 3), step(sound, 3), strict=True):
        assert torch.equal(mine, wanted)


def test_no_positions_and_what_it_does_not_cover() -> None:
    given = draw_apart(3, 20, 3, window=3)
    none = {**given, "radii": given["radii"][:0], "negatives": given["negatives"][:0]}
    inputs, _, losses, _ = step(none, 3)
    assert torch.equal(inputs, given["inputs"])
    assert losses.shape == (0,)
    with pytest.raises(RuntimeError, match="rows must have at most 1024 numbers"):
        step({**given, "inputs": torch.zeros(5, 1025), "outputs": torch.zeros(5, 1025)}, 3)
    with pytest.raises(RuntimeError, match="got 20 and a window of 79"):
        step(given, 79)
