"""A layer of an RNN, a GRU or an LSTM over whole sequences, in one direction; stacks are `nn`'s.

The kernels (csrc/rnn) run forward and backward over all steps: layer norm, zoneout and peepholes cost little more than
the plain layer, which torch's own layers lack or run as a loop in Python. The products of all steps at once (with the
inputs, and the gradients of both weights) are torch's.

The kernels take float32, on the CPU float64 too; 16-bit tensors are converted to float32 before and back after. Where
the CPU has AMX, all products of a bfloat16 layer are products of bfloat16 with float32 sums; the rest stays float32. On
CUDA the plain layer without lengths runs torch's (cuDNN) under `auto`, and float64 the reference, step by step.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from seqkit.errors import InputError
from seqkit.ops import library
from seqkit.ops.arguments import check_range, check_tensors, indices

_TANH, _RELU, _LSTM, _GRU = range(4)  # rnn.h's numbers of the cells
_GATES = (1, 1, 4, 3)
_GROUP = 8


class RecurrentWeights(NamedTuple):
    """The weights of a layer with G gates (1 RNN, 4 LSTM: i f g o, 3 GRU: r z n; torch's order) of H units.

    `weight_input` is [G H, D], `weight_hidden` [G H, H], the biases [G H]. With layer norm `gain_input` and
    `gain_hidden` [G H] scale the normed products, and an LSTM has `gain_state` and `bias_state` [H] for its cell state
    (None is one, and zero). `peepholes` [3, H] go from an LSTM's cell state to the gates i, f and o.
    """

    weight_input: Tensor
    weight_hidden: Tensor
    bias_input: Tensor | None = None
    bias_hidden: Tensor | None = None
    peepholes: Tensor | None = None
    gain_input: Tensor | None = None
    gain_hidden: Tensor | None = None
    gain_state: Tensor | None = None
    bias_state: Tensor | None = None


class _Options(NamedTuple):
    cell: int
    reverse: bool
    layer_norm: bool
    zoneout_hidden: float
    zoneout_state: float


def _norm(x: Tensor, gain: Tensor | None, bias: Tensor | None) -> Tensor:
    return torch.nn.functional.layer_norm(x, x.shape[-1:], gain, bias)


def _add(x: Tensor, bias: Tensor | None) -> Tensor:
    return x if bias is None else x + bias


def _cell(
    options: _Options, from_input: Tensor, hidden: Tensor, state: Tensor, weights: RecurrentWeights
) -> tuple[Tensor, Tensor]:
    """The new hidden state and cell state of one step, before zoneout; `from_input` is W x, normed, with its bias."""
    from_hidden = hidden @ weights.weight_hidden.t()
    if options.layer_norm:
        from_hidden = _norm(from_hidden, weights.gain_hidden, None)
    from_hidden = _add(from_hidden, weights.bias_hidden)
    if options.cell == _GRU:
        x_r, x_z, x_n = from_input.chunk(3, -1)
        h_r, h_z, h_n = from_hidden.chunk(3, -1)
        new = torch.tanh(x_n + torch.sigmoid(x_r + h_r) * h_n)
        return new + torch.sigmoid(x_z + h_z) * (hidden - new), state
    if options.cell != _LSTM:
        total = from_input + from_hidden
        return (torch.tanh(total) if options.cell == _TANH else torch.relu(total)), state
    i, f, g, o = (from_input + from_hidden).chunk(4, -1)
    peepholes = weights.peepholes
    if peepholes is not None:
        i, f = i + peepholes[0] * state, f + peepholes[1] * state
    after = torch.sigmoid(f) * state + torch.sigmoid(i) * torch.tanh(g)
    if peepholes is not None:
        o = o + peepholes[2] * after
    shown = _norm(after, weights.gain_state, weights.bias_state) if options.layer_norm else after
    return torch.sigmoid(o) * torch.tanh(shown), after


def _keep(share: float, old: Tensor, new: Tensor, training: bool) -> Tensor:
    if share == 0.0:
        return new
    if training:
        return torch.where(torch.rand_like(new) < share, old, new)
    return new + share * (old - new)


def _reference(
    x: Tensor, h0: Tensor, c0: Tensor, weights: RecurrentWeights, lengths: Tensor | None, options: _Options, drawn: bool
) -> tuple[Tensor, Tensor, Tensor]:
    B, T, _ = x.shape
    counts = None if lengths is None else torch.arange(T, device=x.device) < lengths[:, None]  # B T
    if counts is not None:
        x = x.masked_fill(~counts[:, :, None], 0.0)  # what stands in the padding may be NaN
    from_input = x @ weights.weight_input.t()
    if options.layer_norm:
        from_input = _norm(from_input, weights.gain_input, None)
    from_input = _add(from_input, weights.bias_input)
    hidden, state = h0, c0
    outputs = [hidden.new_zeros(hidden.shape)] * T
    for t in reversed(range(T)) if options.reverse else range(T):
        new_hidden, new_state = _cell(options, from_input[:, t], hidden, state, weights)
        new_hidden = _keep(options.zoneout_hidden, hidden, new_hidden, drawn)
        if options.cell == _LSTM:
            new_state = _keep(options.zoneout_state, state, new_state, drawn)
        if counts is None:
            hidden, state, outputs[t] = new_hidden, new_state, new_hidden
        else:
            count = counts[:, t, None]
            hidden, state = torch.where(count, new_hidden, hidden), torch.where(count, new_state, state)
            outputs[t] = hidden.masked_fill(~count, 0.0)
    stacked = torch.stack(outputs, 1) if T else x.new_zeros(B, 0, h0.shape[1])
    return stacked, hidden, state


class _Layer(torch.autograd.Function):
    """The native kernels under autograd; `weights` in the order of RecurrentWeights.

    With x and both matrices in bfloat16 so are all products, their gradients too.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        h0: Tensor,
        c0: Tensor | None,
        lengths: Tensor | None,
        seed: Tensor | None,
        options: _Options,
        *weights: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        given = _native_arguments(x, h0, c0, lengths, seed, options, RecurrentWeights(*weights))  # type: ignore[arg-type]
        outputs, hidden, state, *saved = torch.ops.seqkit.rnn.default(*given, True)
        ctx.save_for_backward(x, weights[0], *(y for y in given if not isinstance(y, (int, float))), outputs, *saved)
        ctx.options = options
        ctx.set_materialize_grads(False)
        return outputs, hidden, state

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_outputs: Tensor | None, grad_hidden: Tensor | None, grad_state: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        options: _Options = ctx.options
        x, weight_input, *rest = ctx.saved_tensors
        given, saved = rest[:13], rest[13:]
        h0, weight_hidden = given[1], given[3]
        grads = [None if g is None else g.contiguous() for g in (grad_outputs, grad_hidden, grad_state)]
        if options.cell != _LSTM:
            grads[2] = None
        to_input, to_products, to_h0, to_c0, before, sums = torch.ops.seqkit.rnn_backward.default(
            *grads, *given, *options[:2], *options[2:], *saved
        )
        H = h0.shape[1]
        width = weight_hidden.shape[0]
        plain = not options.layer_norm and options.cell != _GRU  # both products have one gradient then
        flat_input = to_input.flatten(0, 1).to(x.dtype)
        flat_products = flat_input if plain else to_products.flatten(0, 1).to(x.dtype)
        wants = ctx.needs_input_grad
        to_x = (flat_input @ weight_input).view(x.shape) if wants[0] else None
        flat_x = x.flatten(0, 1)
        if given[11] is not None and wants[6]:  # what stands in the padding may be NaN
            counts = torch.arange(x.shape[1], device=x.device) < given[11][:, None]
            flat_x = x.masked_fill(~counts[:, :, None], 0.0).flatten(0, 1)
        to_weight_input = flat_input.t() @ flat_x if wants[6] else None
        to_weight_hidden = flat_products.t() @ before.flatten(0, 1).to(x.dtype) if wants[7] else None
        parts = sums.sum(0).split([width] * 4 + [H, H, 3 * H])
        bias_hidden = parts[1] if options.layer_norm or options.cell == _GRU else parts[0]
        of_weights = (
            to_weight_input,
            to_weight_hidden,
            parts[0] if wants[8] else None,
            bias_hidden if wants[9] else None,
            parts[6].view(3, H) if wants[10] else None,
            parts[2] if wants[11] else None,
            parts[3] if wants[12] else None,
            parts[4] if wants[13] else None,
            parts[5] if wants[14] else None,
        )
        return (to_x, to_h0, to_c0 if options.cell == _LSTM else None, None, None, None, *of_weights)


def _native_arguments(
    x: Tensor,
    h0: Tensor,
    c0: Tensor | None,
    lengths: Tensor | None,
    seed: Tensor | None,
    options: _Options,
    weights: RecurrentWeights,
) -> list[Any]:
    from_input = (x @ weights.weight_input.t()).to(h0.dtype)
    norms = (weights.gain_input, weights.gain_hidden, weights.gain_state, weights.bias_state)
    return [
        from_input,
        h0,
        c0,
        weights.weight_hidden,
        weights.bias_input,
        weights.bias_hidden,
        *norms,
        weights.peepholes,
        lengths,
        seed,
        *options,
    ]


def _check(where: str, cell: int, x: Tensor, weights: RecurrentWeights, states: dict[str, Tensor | None]) -> None:
    if not isinstance(weights, RecurrentWeights):
        raise InputError(f"{where}: weights must be RecurrentWeights, got {type(weights).__name__}")
    given = {"x": x, "weight_input": weights.weight_input, "weight_hidden": weights.weight_hidden}
    optional = {name: getattr(weights, name) for name in RecurrentWeights._fields[2:]}
    check_tensors(where, given, {**optional, **states})
    if x.ndim != 3:
        raise InputError(f"{where}: x must have the shape [B, T, D], got {list(x.shape)}")
    if weights.weight_hidden.ndim != 2:
        raise InputError(f"{where}: weight_hidden must have two axes, got {list(weights.weight_hidden.shape)}")
    B, _, D = x.shape
    H = weights.weight_hidden.shape[1]
    width = _GATES[cell] * H
    shapes = dict.fromkeys(("bias_input", "bias_hidden", "gain_input", "gain_hidden"), (width,))
    wanted: dict[str, tuple[int, ...]] = {**shapes, "gain_state": (H,), "bias_state": (H,), "peepholes": (3, H)}
    wanted |= {"weight_input": (width, D), "weight_hidden": (width, H), **dict.fromkeys(states, (B, H))}
    for name, tensor in {**given, **optional, **states}.items():
        if tensor is None or name == "x":
            continue
        if tuple(tensor.shape) != wanted[name]:
            raise InputError(f"{where}: {name} must have the shape {list(wanted[name])}, got {list(tensor.shape)}")
        if tensor.dtype != x.dtype and not torch.is_autocast_enabled(x.device.type):
            raise InputError(f"{where}: {name} must have the dtype of x, {x.dtype}, got {tensor.dtype}")
    if not x.is_floating_point():
        raise InputError(f"{where}: x must be real numbers, got {x.dtype}")
    for name in ("peepholes", "gain_state", "bias_state"):
        if cell != _LSTM and getattr(weights, name) is not None:
            raise InputError(f"{where}: {name} must be None, since only an LSTM has a cell state, got a tensor")


def _is_plain(weights: RecurrentWeights, options: _Options) -> bool:
    varied = options.layer_norm or options.zoneout_hidden or options.zoneout_state or weights.peepholes is not None
    return not varied and not options.reverse


def _by_torch(x: Tensor, h0: Tensor, c0: Tensor, weights: RecurrentWeights, cell: int) -> tuple[Tensor, Tensor, Tensor]:
    """The plain layer by torch's own kernels."""
    flat = [weights.weight_input, weights.weight_hidden]
    width = weights.weight_hidden.shape[0]
    biased = weights.bias_input is not None or weights.bias_hidden is not None
    if biased:
        flat += [x.new_zeros(width) if b is None else b for b in (weights.bias_input, weights.bias_hidden)]
    settings = (biased, 1, 0.0, torch.is_grad_enabled(), False, True)
    if cell == _LSTM:
        outputs, hidden, state = torch.lstm(x, (h0[None], c0[None]), flat, *settings)
        return outputs, hidden[0], state[0]
    layer = {_GRU: torch.gru, _TANH: torch.rnn_tanh, _RELU: torch.rnn_relu}[cell]
    outputs, hidden = layer(x, h0[None], flat, *settings)
    return outputs, hidden[0], c0


def _layer(
    name: str,
    cell: int,
    x: Tensor,
    h0: Tensor | None,
    c0: Tensor | None,
    weights: RecurrentWeights,
    lengths: Tensor | None,
    *,
    layer_norm: bool,
    zoneout: tuple[float, float],
    training: bool,
    reverse: bool,
    reference: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    where = f"ops.{name}"
    _check(where, cell, x, weights, {"h0": h0, "c0": c0} if cell == _LSTM else {"h0": h0})
    B, T, _ = x.shape
    for share in zoneout:
        if not 0.0 <= share <= 1.0:
            raise InputError(f"{where}: zoneout must be from 0 to 1, got {share}")
    counts = None
    if lengths is not None:
        check_tensors(where, {"x": x, "lengths": lengths})
        if lengths.shape != (B,):
            raise InputError(f"{where}: lengths must have the shape [{B}], got {list(lengths.shape)}")
        counts = indices(where, "lengths", lengths)
    options = _Options(cell, reverse, layer_norm, float(zoneout[0]), float(zoneout[1]))
    drawn = training and (options.zoneout_hidden > 0.0 or options.zoneout_state > 0.0)
    device = x.device.type
    autocast = torch.is_autocast_enabled(device) and x.dtype != torch.float64
    dtype = torch.get_autocast_dtype(device) if autocast else x.dtype
    real = torch.promote_types(dtype, torch.float32)
    H = weights.weight_hidden.shape[1]
    zeros = x.new_zeros(B, H, dtype=real)
    on_gpu = device == "cuda"
    native = not (reference or (on_gpu and real == torch.float64)) and library.backend(name, x.device) == "native"
    in_halves = native and not on_gpu and dtype == torch.bfloat16 and library.HAS_AMX
    products = dtype if in_halves else real  # the dtype of what is multiplied
    with torch.autocast(device, enabled=False):
        x, first = x.to(products), zeros if h0 is None else h0.to(real)
        state = zeros if c0 is None else c0.to(real)
        matrices = (weights.weight_input.to(products), weights.weight_hidden.to(products))
        taken = RecurrentWeights(*matrices, *(None if w is None else w.to(real) for w in weights[2:]))
        plain = counts is None and _is_plain(weights, options) and T > 0
        if on_gpu and plain and not reference and library.may_choose():
            outputs, hidden, last = _by_torch(x, first, state, taken, cell)
        elif not native:
            if counts is not None:
                check_range(where, "lengths", counts, 0, T)
            outputs, hidden, last = _reference(x, first, state, taken, counts, options, drawn)
        else:
            seed = torch.randint(2**63 - 1, (1,), device=x.device) if drawn else None
            x, first = x.contiguous(), first.contiguous()
            taken = RecurrentWeights(*(None if w is None else w.contiguous() for w in taken))  # type: ignore[arg-type]
            given_state = state.contiguous() if cell == _LSTM else None
            needed = (x, first, given_state, *taken)
            if torch.is_grad_enabled() and any(y is not None and y.requires_grad for y in needed):
                outputs, hidden, last = _Layer.apply(x, first, given_state, counts, seed, options, *taken)  # type: ignore[no-untyped-call]
            else:
                given = _native_arguments(x, first, given_state, counts, seed, options, taken)
                outputs, hidden, last, *_ = torch.ops.seqkit.rnn.default(*given, False)
    if outputs.dtype != dtype:
        outputs, hidden, last = outputs.to(dtype), hidden.to(dtype), last.to(dtype)
    return outputs, hidden, last


def _shares(zoneout: float | tuple[float, float]) -> tuple[float, float]:
    return zoneout if isinstance(zoneout, tuple) else (zoneout, zoneout)


def rnn(
    x: Float[Tensor, "B T D"],
    h0: Float[Tensor, "B H"] | None,
    weights: RecurrentWeights,
    *,
    lengths: Int[Tensor, " B"] | None = None,
    layer_norm: bool = False,
    zoneout: float = 0.0,
    training: bool = False,
    reverse: bool = False,
    activation: str = "tanh",
) -> tuple[Float[Tensor, "B T H"], Float[Tensor, "B H"]]:
    """The hidden state after every step, zero beyond a length, and after the last.

    h(t) = tanh(W x(t) + b + U h(t - 1) + b'); with layer norm both products are normed over their units.

    Reference: Elman 1990; layer norm: Ba et al. 2016, 3.1, arXiv:1607.06450; zoneout: Krueger et al. 2017,
    arXiv:1606.01305. Differs: each product is normed apart.

    Args:
        h0: the state before the first step; None is zero.
        lengths: how many steps of a sentence count, from 0 (its last state is h0) to T; all by default.
        zoneout: the probability that a unit keeps its old value; without `training` that share of it stays.
        reverse: from a sentence's last step that counts to its first.
        activation: "tanh" or "relu".

    Raises:
        InputError: shapes, dtypes or devices do not fit. RuntimeError: a length is outside 0 .. T.
    """
    if activation not in ("tanh", "relu"):
        raise InputError(f"ops.rnn: activation must be tanh or relu, got {activation!r}")
    outputs, hidden, _ = _layer(
        "rnn",
        _TANH if activation == "tanh" else _RELU,
        x,
        h0,
        None,
        weights,
        lengths,
        layer_norm=layer_norm,
        zoneout=(zoneout, 0.0),
        training=training,
        reverse=reverse,
    )
    return outputs, hidden


def gru(
    x: Float[Tensor, "B T D"],
    h0: Float[Tensor, "B H"] | None,
    weights: RecurrentWeights,
    *,
    lengths: Int[Tensor, " B"] | None = None,
    layer_norm: bool = False,
    zoneout: float = 0.0,
    training: bool = False,
    reverse: bool = False,
) -> tuple[Float[Tensor, "B T H"], Float[Tensor, "B H"]]:
    """The hidden state after every step, zero beyond a length, and after the last; arguments as in `rnn`.

    n = tanh(x_n + σ(x_r + h_r) h_n),  z = σ(x_z + h_z),  h(t) = (1 - z) n + z h(t - 1),
    with [x_r, x_z, x_n] = W x(t) + b and [h_r, h_z, h_n] = U h(t - 1) + b'; with layer norm both products are normed.

    Reference: Cho et al. 2014, 2.3, arXiv:1406.1078. Differs: the reset gate follows the product with U, as in torch;
    one norm over the three gates of a product, where Ba et al. 2016 norm the candidate's apart.

    Raises:
        InputError: shapes, dtypes or devices do not fit. RuntimeError: a length is outside 0 .. T.
    """
    outputs, hidden, _ = _layer(
        "gru",
        _GRU,
        x,
        h0,
        None,
        weights,
        lengths,
        layer_norm=layer_norm,
        zoneout=(zoneout, 0.0),
        training=training,
        reverse=reverse,
    )
    return outputs, hidden


def lstm(
    x: Float[Tensor, "B T D"],
    h0: tuple[Float[Tensor, "B H"], Float[Tensor, "B H"]] | None,
    weights: RecurrentWeights,
    *,
    lengths: Int[Tensor, " B"] | None = None,
    layer_norm: bool = False,
    zoneout: float | tuple[float, float] = 0.0,
    training: bool = False,
    reverse: bool = False,
) -> tuple[Float[Tensor, "B T H"], tuple[Float[Tensor, "B H"], Float[Tensor, "B H"]]]:
    """The hidden state after every step, zero beyond a length, and the hidden and cell state after the last.

    [i, f, g, o] = W x(t) + b + U h(t - 1) + b',  c(t) = σ(f) c(t - 1) + σ(i) tanh(g),  h(t) = σ(o) tanh(c(t));
    peepholes add p_i c(t - 1) to i, p_f c(t - 1) to f and p_o c(t) to o; layer norm stands over W x, over U h (each
    over its 4 H units, before its bias) and over c(t) within the last tanh.

    Reference: Hochreiter and Schmidhuber 1997; peepholes: Gers and Schmidhuber 2000; layer norm: Ba et al. 2016,
    supplement, arXiv:1607.06450; zoneout: Krueger et al. 2017, 3.2, arXiv:1606.01305 (h(t) shows the c(t) before
    zoneout).

    Args:
        h0: the hidden and the cell state before the first step; None is zero.
        zoneout: as in `rnn`, for both states, or a pair for the hidden and the cell state.

    Raises:
        InputError: shapes, dtypes or devices do not fit. RuntimeError: a length is outside 0 .. T.
    """
    if h0 is not None and (not isinstance(h0, tuple) or len(h0) != 2):
        raise InputError(f"ops.lstm: h0 must be a pair of tensors or None, got {type(h0).__name__}")
    first, first_state = h0 or (None, None)
    outputs, hidden, state = _layer(
        "lstm",
        _LSTM,
        x,
        first,
        first_state,
        weights,
        lengths,
        layer_norm=layer_norm,
        zoneout=_shares(zoneout),
        training=training,
        reverse=reverse,
    )
    return outputs, (hidden, state)


# The tensors that both kernels take, in their order; behind them come the cell, the direction and three options.
_INPUTS = ("from_input", "h0", "c0", "weight", "bias_input", "bias_hidden", "gain_input", "gain_hidden", "gain_state",
           "bias_state", "peepholes", "lengths", "seed")  # fmt: skip
_REQUIRED = ("from_input", "h0", "weight")


def _check_inputs(where: str, inputs: Sequence[Any], required: dict[str, Any], optional: dict[str, Any]) -> None:
    given = dict(zip(_INPUTS, inputs, strict=True))
    check_tensors(where, {name: given.pop(name) for name in _REQUIRED} | required, given | optional)


def _fake_forward(*arguments: Any) -> tuple[Tensor, ...]:
    inputs, (cell, _, layer_norm, _, _, training) = arguments[:13], arguments[13:]
    _check_inputs("rnn", inputs, {}, {})
    from_input, h0 = inputs[:2]
    B, T, width = from_input.shape
    H = h0.shape[1]
    new, kept = from_input.new_empty, B if training else 0
    return (
        new(B, T, H),
        new(B, H),
        new(B if cell == _LSTM else 0, H),
        new(kept, T, width),
        new(kept if layer_norm or cell == _GRU else 0, T, width),
        new(kept if cell == _LSTM else 0, T, H),
        new(kept if layer_norm else 0, T, 5),
    )


def _fake_backward(*arguments: Any) -> tuple[Tensor, ...]:
    grads, inputs, (cell, *_), saved = arguments[:3], arguments[3:16], arguments[16:21], arguments[21:]
    names = "outputs", "gates", "products", "states", "stats"
    required = dict(zip(names, saved, strict=True))
    optional = dict(zip(("grad_outputs", "grad_hidden", "grad_state"), grads, strict=True))
    _check_inputs("rnn_backward", inputs, required, optional)
    from_input, h0 = inputs[:2]
    B, T, width = from_input.shape
    H = h0.shape[1]
    new = from_input.new_empty
    groups = B if from_input.is_cuda else (B + _GROUP - 1) // _GROUP
    return (
        new(B, T, width),
        new(required["products"].shape),
        new(B, H),
        new(B if cell == _LSTM else 0, H),
        new(B, T, H),
        new(groups, 4 * width + 5 * H),
    )


if library.is_built("lstm"):
    torch.library.register_fake("seqkit::rnn", _fake_forward)
    torch.library.register_fake("seqkit::rnn_backward", _fake_backward)
