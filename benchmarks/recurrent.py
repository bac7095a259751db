"""Recurrent layers over whole sequences, forward and backward, against torch: seconds of CPU time and their ratio.

The layer-normed LSTM against the same cell written in torch (a loop over steps, torch.nn.functional.layer_norm), and
the plain LSTM against torch.nn.LSTM. Sizes as in word language models: 2 layers of 650, 35 steps of 20 sentences. With
`--precision bf16` both run under autocast, with float32 weights.

    python benchmarks/recurrent.py [--threads 1] [--rounds 9] [--precision fp32|bf16] [--sentences 20] [--steps 35]
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from seqkit import ops
from seqkit.training.allocator import keep_freed_memory

LAYERS, H = 2, 650


def normed_weights() -> list[ops.RecurrentWeights]:
    """Random weights of every layer, with gains near one."""

    def random(*shape: int) -> Tensor:
        return torch.empty(*shape).uniform_(-(H**-0.5), H**-0.5).requires_grad_()

    def gain(width: int) -> Tensor:
        return torch.empty(width).uniform_(0.8, 1.2).requires_grad_()

    return [
        ops.RecurrentWeights(
            random(4 * H, H),
            random(4 * H, H),
            random(4 * H),
            random(4 * H),
            None,
            gain(4 * H),
            gain(4 * H),
            gain(H),
            random(H),
        )
        for _ in range(LAYERS)
    ]


def plain(layer: ops.RecurrentWeights) -> ops.RecurrentWeights:
    """The weights of a layer without norm."""
    return ops.RecurrentWeights(*layer[:4])


def by_ops(x: Tensor, layers: list[ops.RecurrentWeights], layer_norm: bool) -> Tensor:
    """The stack by our operator."""
    for layer in layers:
        x, _ = ops.lstm(x, None, layer if layer_norm else plain(layer), layer_norm=layer_norm)
    return x


def by_cells(x: Tensor, layers: list[ops.RecurrentWeights]) -> Tensor:
    """The layer-normed stack as it is written in torch: the inputs' products at once, the rest step by step."""
    norm = torch.nn.functional.layer_norm
    for layer in layers:
        hidden = state = x.new_zeros(x.shape[0], H)
        from_input = norm(x @ layer.weight_input.t(), (4 * H,), layer.gain_input, layer.bias_input)
        outputs = []
        for t in range(x.shape[1]):
            from_hidden = norm(hidden @ layer.weight_hidden.t(), (4 * H,), layer.gain_hidden, layer.bias_hidden)
            i, f, g, o = (from_input[:, t] + from_hidden).chunk(4, -1)
            state = torch.sigmoid(f) * state + torch.sigmoid(i) * torch.tanh(g)
            hidden = torch.sigmoid(o) * torch.tanh(norm(state, (H,), layer.gain_state, layer.bias_state))
            outputs.append(hidden)
        x = torch.stack(outputs, 1)
    return x


def torch_stack(layers: list[ops.RecurrentWeights]) -> torch.nn.LSTM:
    """torch.nn.LSTM with the same weights."""
    stack = torch.nn.LSTM(H, H, LAYERS, batch_first=True)
    with torch.no_grad():
        for index, layer in enumerate(layers):
            for name, value in zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), layer[:4], strict=True):
                getattr(stack, f"{name}_l{index}").copy_(value)
    return stack


def race(
    name: str, ours: Callable[[], Tensor], theirs: Callable[[], Tensor], exact: Tensor, arguments: argparse.Namespace
) -> None:
    """Prints the medians of interleaved rounds, and both errors against float64."""
    times: tuple[list[float], list[float]] = ([], [])
    errors = []

    def called(run: Callable[[], Tensor]) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=arguments.precision == "bf16"):
            out = run()
        return out

    for run in (ours, theirs):
        out = called(run)
        errors.append((out.detach().double() - exact).abs().max().item())
        out.float().sum().backward()
    for _ in range(arguments.rounds):
        for run, seconds in zip((ours, theirs), times, strict=True):
            start = time.process_time()
            called(run).float().square().sum().backward()
            seconds.append(time.process_time() - start)
    a, b = statistics.median(times[0]), statistics.median(times[1])
    print(f"{name}: {a:.3f} s, torch {b:.3f} s, {b / a:.2f} times; errors {errors[0]:.1e} and {errors[1]:.1e}")


def main() -> None:
    """Runs both races."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--sentences", type=int, default=20)
    parser.add_argument("--steps", type=int, default=35)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()  # as in training; for both sides
    torch.manual_seed(0)
    layers = normed_weights()
    x = torch.randn(arguments.sentences, arguments.steps, H, requires_grad=True)
    exact_layers = [
        ops.RecurrentWeights(*(None if w is None else w.detach().double() for w in layer)) for layer in layers
    ]
    with torch.no_grad(), ops.use_backend("reference"):
        exact_norm, exact_plain = (by_ops(x.double(), exact_layers, layer_norm) for layer_norm in (True, False))
    stack = torch_stack(layers)
    print(
        f"{LAYERS} layers of {H}, {arguments.steps} steps of {arguments.sentences} sentences, {arguments.precision}, "
        f"forward and backward, {arguments.threads} thread(s)"
    )
    race(
        "LSTM with layer norm",
        lambda: by_ops(x, layers, True),
        lambda: by_cells(x, layers),
        exact_norm,
        arguments,
    )
    race("plain LSTM", lambda: by_ops(x, layers, False), lambda: stack(x)[0], exact_plain, arguments)


if __name__ == "__main__":
    main()
