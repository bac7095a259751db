"""Small models of every encoder-decoder family, and a toy task to learn."""

import torch
from torch import Tensor, nn

from seqkit.models.plain_seq2seq import PlainSeq2Seq, PlainSeq2SeqConfig
from seqkit.models.seq2seq import Seq2Seq, Seq2SeqConfig
from seqkit.models.transformer import Transformer, TransformerConfig
from seqkit.nn.losses import cross_entropy

VOCAB = 13
SMALL = {"model_dim": 16, "ffn_dim": 24, "n_heads": 2, "encoder_layers": 2, "decoder_layers": 2, "dropout": 0.0}
RECURRENT = {"embedding_dim": 10, "hidden_dim": 12, "dropout": 0.0}

TRANSFORMERS = {
    "pre-norm": TransformerConfig(**SMALL),
    "post-norm": TransformerConfig(**SMALL, pre_norm=False, activation="gelu"),
    "learned": TransformerConfig(
        **SMALL, positions="learned", max_positions=40, tied_embeddings="none", output_bias=True
    ),
    "eight-heads": TransformerConfig(**(SMALL | {"n_heads": 8})),
    "untied": TransformerConfig(**(SMALL | {"encoder_layers": 1}), tied_embeddings="decoder", scale_embeddings=False),
}
RECURRENTS = {
    "bahdanau": Seq2SeqConfig(**RECURRENT),
    "luong-dot": Seq2SeqConfig(**RECURRENT, attention="luong_dot", cell="gru", decoder_layers=2, encoder_layers=2),
    "luong-general": Seq2SeqConfig(**RECURRENT, attention="luong_general", input_feeding=True, tied_embeddings="all"),
    "one-way": Seq2SeqConfig(**RECURRENT, bidirectional=False, tied_embeddings="none", input_feeding=True),
}
PLAIN = {
    "plain-lstm": PlainSeq2SeqConfig(**RECURRENT, n_layers=2),
    "plain-gru": PlainSeq2SeqConfig(**RECURRENT, cell="gru"),
    "plain-hard": PlainSeq2SeqConfig(**RECURRENT, n_layers=2, gates="hard_sigmoid", padded_source=5),
}
FAMILIES: dict[type, type[nn.Module]] = {
    TransformerConfig: Transformer,
    Seq2SeqConfig: Seq2Seq,
    PlainSeq2SeqConfig: PlainSeq2Seq,
}
Config = TransformerConfig | Seq2SeqConfig | PlainSeq2SeqConfig


def build(config: Config, vocab: int = VOCAB) -> Transformer | Seq2Seq | PlainSeq2Seq:
    torch.manual_seed(0)
    family = FAMILIES[type(config)]
    return family(config, source_vocab_size=vocab, target_vocab_size=vocab).eval()  # type: ignore[arg-type]


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Source, its lengths, and target: three sentences of different lengths."""
    generator = torch.Generator().manual_seed(1)
    source = torch.randint(4, VOCAB, (3, 7), generator=generator)
    return source, torch.tensor([7, 1, 4]), torch.randint(4, VOCAB, (3, 6), generator=generator)


def learn(model: nn.Module, *, task: str, steps: int, rate: float) -> float:
    """Trains to copy or to sort six symbols; gives the share of right symbols on new ones, teacher-forced."""
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)

    def data(count: int) -> tuple[Tensor, Tensor, Tensor]:
        source = torch.randint(4, VOCAB, (count, 6))
        target = source if task == "copy" else source.sort(dim=1).values
        return source, torch.full((count,), 6), target

    begin = torch.full((1, 1), 2)
    for _ in range(steps):
        source, lengths, target = data(64)
        logits = model(source, lengths, torch.cat((begin.expand(64, 1), target[:, :-1]), dim=1))
        optimizer.zero_grad()
        (cross_entropy(logits, target, pad_id=0) / target.numel()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    source, lengths, target = data(200)
    with torch.no_grad():
        logits = model(source, lengths, torch.cat((begin.expand(200, 1), target[:, :-1]), dim=1))
    return (logits.argmax(-1) == target).float().mean().item()
