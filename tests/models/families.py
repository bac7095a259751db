"""Small models of every encoder-decoder family, and what each of them must be able to do."""

import torch
from torch import Tensor, nn

from seqkit.models.encoder_decoder import Source
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
    "untied": TransformerConfig(**(SMALL | {"encoder_layers": 1}), tied_embeddings="decoder", scale_embeddings=False),
}
RECURRENTS = {
    "bahdanau": Seq2SeqConfig(**RECURRENT),
    "luong-dot": Seq2SeqConfig(**RECURRENT, attention="luong_dot", cell="gru", decoder_layers=2, encoder_layers=2),
    "luong-general": Seq2SeqConfig(**RECURRENT, attention="luong_general", input_feeding=True, tied_embeddings="all"),
    "one-way": Seq2SeqConfig(**RECURRENT, bidirectional=False, tied_embeddings="none", input_feeding=True),
}


def build(config: TransformerConfig | Seq2SeqConfig, vocab: int = VOCAB) -> Transformer | Seq2Seq:
    torch.manual_seed(0)
    family = Transformer if isinstance(config, TransformerConfig) else Seq2Seq
    return family(config, source_vocab_size=vocab, target_vocab_size=vocab).eval()  # type: ignore[arg-type]


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Source, its lengths, and target: three sentences of different lengths."""
    generator = torch.Generator().manual_seed(1)
    source = torch.randint(4, VOCAB, (3, 7), generator=generator)
    return source, torch.tensor([7, 1, 4]), torch.randint(4, VOCAB, (3, 6), generator=generator)


@torch.no_grad()
def assert_steps_equal_teacher_forcing(model: Transformer | Seq2Seq) -> None:
    source, lengths, target = batch()
    whole = model(source, lengths, target)
    state = model.start(Source(source, lengths, want_attention=True))
    for position in range(target.shape[1]):
        output = model.step(target[:, position, None], state)
        state = output.state
        torch.testing.assert_close(output.logits[:, 0], whole[:, position], rtol=1e-4, atol=1e-5)
        assert output.attention is not None
        torch.testing.assert_close(output.attention.sum(-1), torch.ones(3, 1))
        assert output.attention[1, 0, 1:].abs().sum() == 0


@torch.no_grad()
def assert_reorder_and_keep_follow_the_hypotheses(model: Transformer | Seq2Seq) -> None:
    source, lengths, target = batch()
    state = model.start(Source(source, lengths))
    state = model.step(target[:, :1], state).state
    state = model.reorder(state, torch.zeros(3, 2, dtype=torch.long))
    state = model.step(target[:, 1:3], state).state  # beam 0 continues with target 1, beam 1 with target 2
    state = model.reorder(state, torch.tensor([[1, 0, 1], [0, 0, 1], [1, 1, 0]]))
    state = model.keep(state, torch.tensor([2, 0]))
    logits = model.step(torch.full((2, 3), 5), state).logits
    for row, (sentence, parents) in enumerate([(2, [1, 1, 0]), (0, [1, 0, 1])]):
        for beam, parent in enumerate(parents):
            prefix = torch.tensor([[target[sentence, 0], target[sentence, 1 + parent], 5]])
            alone = model(source[sentence, None, : lengths[sentence]], lengths[sentence, None], prefix)
            torch.testing.assert_close(logits[row, beam], alone[0, -1], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def assert_bits_do_not_depend_on_the_batch(model: Transformer | Seq2Seq) -> None:
    source, lengths, target = batch()
    together = model(source, lengths, target)
    for row, length in enumerate(lengths.tolist()):
        alone = model(source[row, None, :length], lengths[row, None], target[row, None])
        assert torch.equal(alone[0], together[row])
    state = model.start(Source(source, lengths))
    steps = model.step(target[:, :1], state).logits
    for row, length in enumerate(lengths.tolist()):
        single = model.start(Source(source[row, None, :length], lengths[row, None]))
        assert torch.equal(model.step(target[row, None, :1], single).logits[0], steps[row])


def assert_every_parameter_learns(model: Transformer | Seq2Seq) -> None:
    source, lengths, target = batch()
    cross_entropy(model(source, lengths, target), target, pad_id=0).backward()  # type: ignore[no-untyped-call]
    still = [name for name, value in model.named_parameters() if value.grad is None or value.grad.abs().max() == 0]
    assert still == []


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
