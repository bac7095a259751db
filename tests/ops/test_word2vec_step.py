"""`ops.word2vec_step`: windows by hand and by autograd, sentence ends, words that come twice, refused arguments."""

from typing import Any

import pytest
import torch
from torch import Tensor

from seqkit import ops
from seqkit.errors import InputError
from seqkit.ops import library

needs_native = pytest.mark.skipif(not library.is_built("word2vec_step"), reason="the native library is not built")
BACKENDS = ["reference", pytest.param("native", marks=needs_native)]


def draw(V: int, D: int, L: int, n: int, *, window: int = 3, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """A call for a text of a few sentences."""
    generator = torch.Generator().manual_seed(V + D + L)
    rows = [0.7 * torch.randn(V, D, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2)]
    ids = torch.randint(V, (L,), generator=generator, dtype=torch.int32)
    ids[torch.rand(L, generator=generator) < 0.2] = -1
    return {
        "inputs": rows[0],
        "outputs": rows[1],
        "ids": ids,
        "radii": torch.randint(window + 1, (L,), generator=generator, dtype=torch.int32),
        "negatives": torch.randint(V, (L, n), generator=generator, dtype=torch.int32),
        "window": window,
        "rate": 0.2,
        "negative_weight": 0.75,
    }


def moved(given: dict[str, Any], **more: Any) -> list[Tensor]:
    """The rows after a step on copies, the losses and the pairs."""
    rows = [given[name].clone() for name in ("inputs", "outputs")]
    rest = {name: value for name, value in given.items() if name not in ("inputs", "outputs")}
    return [*rows, *ops.word2vec_step(*rows, **{**rest, **more})]


def by_autograd(given: dict[str, Any], *, cbow: bool) -> list[Tensor]:
    """One window after the other, each by the gradient of its loss."""
    x, q = (given[name].double().clone() for name in ("inputs", "outputs"))
    ids, losses, pairs = given["ids"].tolist(), [], []
    for t, (word, radius) in enumerate(zip(ids, given["radii"].tolist(), strict=True)):
        around: list[int] = []
        for side in (range(t - 1, t - radius - 1, -1), range(t + 1, t + radius + 1)):
            for c in side:
                if word < 0 or not 0 <= c < len(ids) or ids[c] < 0:
                    break
                around.append(ids[c])
        pairs.append(min(len(around), 1) if cbow else len(around))
        losses.append(torch.zeros(()))
        if not around:
            continue
        x.requires_grad_()
        q.requires_grad_()
        rows = x[around].mean(0, keepdim=True) if cbow else x[around]
        drawn = [v for v in given["negatives"][t].tolist() if v != word]
        loss = -torch.nn.functional.logsigmoid(rows @ q[word]).sum()
        loss = loss - given["negative_weight"] * torch.nn.functional.logsigmoid(-rows @ q[drawn].T).sum()
        gx, gq = torch.autograd.grad(loss, (x, q))
        losses[-1] = loss.detach()
        x = x.detach() - given["rate"] * gx * (len(around) if cbow else 1)
        q = q.detach() - given["rate"] * gq
    return [x, q, torch.stack([loss.double() for loss in losses]), torch.tensor(pairs)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cbow", [False, True])
@pytest.mark.parametrize(("V", "D", "L", "n"), [(1, 1, 1, 1), (2, 3, 9, 0), (30, 16, 40, 5), (7, 33, 25, 12)])
def test_a_step_moves_as_autograd_does(V: int, D: int, L: int, n: int, cbow: bool, backend: str) -> None:
    given = draw(V, D, L, n)
    with library.use_backend(backend):
        got = moved(given, cbow=cbow)
    for mine, truth in zip(got, by_autograd(given, cbow=cbow), strict=True):
        torch.testing.assert_close(mine.double(), truth.double(), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_pair_by_hand(backend: str) -> None:
    inputs, outputs = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[0.5, 1.0], [0.0, -1.0]])
    ids, radii = torch.tensor([0, 1], dtype=torch.int32), torch.tensor([1, 0], dtype=torch.int32)
    with library.use_backend(backend):
        losses, pairs = ops.word2vec_step(
            inputs, outputs, ids, radii, torch.tensor([[1], [0]], dtype=torch.int32), window=1, rate=0.1
        )
    wrong, right = torch.sigmoid(torch.tensor([-2.0, -2.0])).tolist()  # of the scores 2 and -2, both right
    torch.testing.assert_close(inputs[1], torch.tensor([0.1 * wrong * 0.5, 2.0 + 0.1 * wrong + 0.1 * right]))
    torch.testing.assert_close(outputs, torch.tensor([[0.5, 1.0 + 0.2 * wrong], [0.0, -1.0 - 0.2 * right]]))
    assert inputs[0].tolist() == [1.0, 0.0]
    assert pairs.tolist() == [1, 0]
    torch.testing.assert_close(losses, torch.tensor([2 * torch.log1p(torch.exp(torch.tensor(-2.0))).item(), 0.0]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_windows_end_with_their_sentence_and_reach_beyond_the_positions(backend: str) -> None:
    given = draw(9, 4, 6, 2)
    given["ids"] = torch.tensor([3, 4, -1, 5, 6, -7], dtype=torch.int32)
    given["radii"].fill_(3)
    with library.use_backend(backend):
        whole = moved(given)
        assert whole[3].tolist() == [1, 1, 0, 1, 1, 0]
        part = {**given, "radii": given["radii"][3:4], "negatives": given["negatives"][3:4]}
        inputs, _, _, pairs = moved(part, begin=3)
    assert pairs.tolist() == [1]
    assert (inputs != given["inputs"]).any(1).nonzero().flatten().tolist() == [6]


@needs_native
def test_steps_of_parts_are_the_step_of_the_whole_to_the_last_bit() -> None:
    given = draw(20, 30, 50, 7)
    whole = moved(given)
    rows, losses = [given["inputs"].clone(), given["outputs"].clone()], []
    for begin in range(0, 50, 10):
        part = slice(begin, begin + 10)
        losses.append(
            ops.word2vec_step(
                *rows, given["ids"], given["radii"][part], given["negatives"][part], begin=begin, window=3, rate=0.2,
                negative_weight=0.75,
            )[0]
        )  # fmt: skip
    for mine, truth in zip([*rows, torch.cat(losses)], whole[:3], strict=True):
        assert torch.equal(mine, truth)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_of_no_positions_moves_nothing(backend: str) -> None:
    given = draw(3, 4, 5, 2)
    given["radii"], given["negatives"] = given["radii"][:0], given["negatives"][:0]
    with library.use_backend(backend):
        inputs, outputs, losses, pairs = moved(given)
    assert torch.equal(inputs, given["inputs"])
    assert torch.equal(outputs, given["outputs"])
    assert losses.shape == pairs.shape == (0,)


@needs_native
def test_large_scores_stay_finite() -> None:
    given = draw(4, 8, 10, 3)
    given["inputs"] *= 1e4
    given["outputs"] *= 1e4
    for x in moved(given):
        assert x.isfinite().all()


def test_other_floats_run_the_reference() -> None:
    given = draw(5, 6, 8, 2, dtype=torch.float64)
    for mine, truth in zip(moved(given), by_autograd(given, cbow=False), strict=True):
        torch.testing.assert_close(mine.double(), truth.double(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("ids", 9, "ids must be from"),
        ("radii", 4, "radii must be from 0 to 3, got 4"),
        ("radii", -1, "radii must be from 0 to 3, got -1"),
        ("negatives", 9, "negatives must be from 0 to 8, got 9"),
        ("negatives", -1, "negatives must be from 0 to 8, got -1"),
    ],
)
def test_numbers_out_of_range_are_refused(name: str, value: int, says: str, backend: str) -> None:
    given = draw(9, 4, 6, 2)
    given[name].view(-1)[2] = value
    with library.use_backend(backend), pytest.raises(RuntimeError, match=says):
        moved(given)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"window": 0}, "window must be from 1 to 1024, got 0"),
        ({"begin": 1}, "begin must be from 0 to 0, the ids but the radii, got 1"),
        ({"rate": float("nan")}, "rate must be finite in float32, got nan"),
        ({"negative_weight": -1.0}, "negative_weight must be 0 or more"),
        ({"concurrency": 0}, "concurrency must be from 1"),
        ({"ids": torch.zeros(6, dtype=torch.int64)}, "ids must be int32, got torch.int64"),
        ({"radii": torch.zeros(6)}, "radii must be int32"),
        ({"radii": torch.zeros(2, 3, dtype=torch.int32)}, "ids and radii must have one axis"),
        ({"negatives": torch.zeros(5, 2, dtype=torch.int32)}, r"negatives must have the shape \[6, n\]"),
        ({"outputs": torch.zeros(9, 5)}, "outputs must be as inputs"),
        ({"outputs": torch.zeros(9, 4, dtype=torch.float64)}, "outputs must be as inputs"),
        ({"inputs": torch.zeros(4, 9).T}, "inputs must be contiguous"),
        ({"inputs": torch.zeros(0, 4)}, "inputs must have a row and a number"),
        ({"inputs": torch.zeros(9, 4, requires_grad=True)}, "inputs must not require a gradient"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change: dict[str, Any], says: str) -> None:
    step = getattr(ops.word2vec_step, "__wrapped__", ops.word2vec_step)  # past the shape types
    with pytest.raises(InputError, match=says):
        step(**{**draw(9, 4, 6, 2), **change})


@needs_native
def test_rows_that_share_memory_are_refused() -> None:
    given = draw(9, 4, 6, 2)
    memory = torch.zeros(13, 4)
    for inputs, outputs in ((memory[:9], memory[4:]), (memory[4:], memory[:9]), (memory[:9], memory[:9])):
        with pytest.raises(RuntimeError, match="must share no memory"):
            ops.word2vec_step(**{**given, "inputs": inputs, "outputs": outputs})
    with pytest.raises(RuntimeError, match="with what is read"):
        ops.word2vec_step(**{**given, "ids": given["inputs"].view(torch.int32).flatten()[:6]})


@needs_native
@pytest.mark.parametrize("cbow", [False, True])
def test_word2vec_step_opcheck(cbow: bool) -> None:
    given = draw(9, 4, 6, 2)
    tensors = [given[name] for name in ("inputs", "outputs", "ids", "radii", "negatives")]
    torch.library.opcheck(torch.ops.seqkit.word2vec_step.default, (*tensors, 0, 3, 0.1, 0.5, cbow, 64))


@needs_native
@pytest.mark.compile
@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")  # torch's own modules use it
def test_word2vec_step_compiles() -> None:
    given = draw(9, 4, 6, 2)

    def step(inputs: Tensor, outputs: Tensor, ids: Tensor, radii: Tensor, negatives: Tensor) -> Tensor:
        losses, _ = ops.word2vec_step(inputs, outputs, ids, radii, negatives, window=3, rate=0.2, negative_weight=0.75)
        return losses.sum() + inputs.sum()

    tensors = [given[name].clone() for name in ("inputs", "outputs", "ids", "radii", "negatives")]
    total = torch.compile(step, fullgraph=True)(*tensors)
    inputs, outputs, losses, _ = moved(given)
    torch.testing.assert_close(tensors[0], inputs)
    torch.testing.assert_close(tensors[1], outputs)
    torch.testing.assert_close(total, losses.sum() + inputs.sum())
