"""A picture of where the decoder looked: one row a target token, one column a source token."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from seqkit.atomic import write_atomically
from seqkit.errors import InputError

SPACE = "␣"


def save_attention_map(
    path: str | Path, weights: Float[Tensor, "T S"], *, source: Sequence[str], target: Sequence[str], title: str = ""
) -> None:
    """Writes the heat map of attention weights (0 to 1) as a PNG file.

    Reference: Bahdanau et al. 2015, figure 3, arXiv:1409.0473.

    Raises:
        InputError: the tokens are not as many as the weights, a side has none, or matplotlib is not installed.
    """
    if weights.shape != (len(target), len(source)):
        raise InputError(
            f"attention_map: weights must be target by source tokens ({len(target)} x {len(source)}), "
            f"got {tuple(weights.shape)}"
        )
    if not source or not target:
        raise InputError(
            f"attention_map: source and target must have at least one token, got {len(source)} and {len(target)}"
        )
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError(
            "attention_map: matplotlib must be installed to draw, got no such package (pip install 'seqkit[demo]')"
        ) from None
    figure = Figure(figsize=(1.6 + 0.27 * len(source), 1.4 + 0.27 * len(target)), dpi=160, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(weights.float().cpu().numpy(), cmap="Blues", vmin=0.0, vmax=1.0, aspect="equal")
    axes.set_xticks(range(len(source)), [token.replace(" ", SPACE) for token in source])
    axes.set_yticks(range(len(target)), [token.replace(" ", SPACE) for token in target])
    axes.set_xlabel("source")
    axes.set_ylabel("target")
    axes.set_title(title)
    figure.colorbar(image, ax=axes, label="attention weight", shrink=0.9)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    write_atomically(path, content.getvalue())
