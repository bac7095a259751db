"""A trained language model: scores that can be added up by hand, and samples."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from seqkit.decode.options import SampleOptions
from seqkit.errors import InputError
from seqkit.tasks.language_model import LanguageModel, TextScore, read_lines
from seqkit.tasks.language_model_config import LanguageModelConfig, build_model
from seqkit.text.tokenizer import CharTokenizer

LINES = ["abc", "", "cab bac", "b" * 30, "a c b a c b"]


def made(*, lines: bool, kind: str = "rnn", window: int = 128, context: int = 128) -> LanguageModel:
    shape: dict[str, Any] = {"embedding_dim": 5, "hidden_dim": 7} if kind == "rnn" else {"model_dim": 8, "n_heads": 2}
    tables = {
        "data": {"train": ["a"], "valid": ["b"], "lines": lines, "window": window, "context": context},
        "tokenizer": {"kind": "char"},
        "model": {"kind": kind, **shape},
    }
    torch.manual_seed(0)
    config = LanguageModelConfig.from_tables(tables, where="c")
    tokenizer = CharTokenizer.train(["abc "])
    return LanguageModel(config, build_model(config.model, tokenizer.vocab_size), tokenizer, Path())


def by_hand(model: LanguageModel, before: int, tokens: list[int]) -> list[float]:
    with torch.no_grad():
        inputs = torch.tensor([[before, *tokens[:-1]]])
        logp = model.model.logits(model.model(inputs, model.model.initial_state(1))[0]).log_softmax(-1)
    return [logp[0, t, token].item() for t, token in enumerate(tokens)]


@pytest.mark.parametrize("kind", ["rnn", "transformer"])
def test_lines_are_scored_each_for_itself(kind: str) -> None:
    model = made(lines=True, kind=kind)
    encoded = [model.encode(line) for line in LINES]
    found = model.token_logprobs(encoded)
    for tokens, logp in zip(encoded, found, strict=True):
        assert logp == pytest.approx(by_hand(model, model.tokenizer.bos_id, tokens), abs=1e-5)
    score = model.score(LINES)
    assert score.nats == pytest.approx(-sum(map(sum, found)))
    assert (score.tokens, score.characters, score.unknown) == (56, 56, 0)


@pytest.mark.parametrize("kind", ["rnn", "transformer"])
def test_running_text_is_scored_behind_all_that_stands_before_it(kind: str) -> None:
    model = made(lines=False, kind=kind)
    encoded = [model.encode(line) for line in LINES]
    flat = [token for tokens in encoded for token in tokens]
    found = model.token_logprobs(encoded)
    assert [len(row) for row in found] == [len(tokens) for tokens in encoded]
    assert [x for row in found for x in row] == pytest.approx(by_hand(model, model.tokenizer.eos_id, flat), abs=1e-5)
    assert model.token_logprobs([]) == []


@pytest.mark.parametrize("kind", ["rnn", "transformer"])
@pytest.mark.parametrize("n", [1, 5, 16, 17, 300, 2000])
def test_each_token_of_a_long_text_has_its_context(kind: str, n: int) -> None:
    """Every log-probability is that of a model that reads some 4 or more tokens before it, or all."""
    model = made(lines=False, kind=kind, window=16, context=4)
    torch.manual_seed(n)
    tokens = torch.randint(3, model.tokenizer.vocab_size, (n,)).tolist()
    (found,) = model.token_logprobs([tokens])
    assert len(found) == n
    with torch.no_grad():
        for t in [*range(min(n, 20)), *range(20, n, 97)]:
            possible = []
            # The model may have begun anywhere that leaves 4 tokens before this one.
            for begin in range(max(0, t - 60), max(1, t - 3)):
                inputs = torch.tensor([[model.tokenizer.eos_id, *tokens][begin : t + 1]])
                logits = model.model.logits(model.model(inputs, model.model.initial_state(1))[0])[0, -1]
                possible.append(logits.log_softmax(-1)[tokens[t]].item())
            assert min(abs(p - found[t]) for p in possible) < 1e-4


def test_a_model_that_adapts_scores_each_piece_before_it_learns_from_it() -> None:
    model = made(lines=False)
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    encoded = [model.encode("abcabc") for _ in range(200)]
    still, moved = ([x for row in model.token_logprobs(encoded, adapt=rate) for x in row] for rate in (0.0, 0.5))
    assert moved[:128] == pytest.approx(still[:128], abs=1e-5)
    by_sgd = torch.optim.SGD(model.model.parameters(), lr=0.5)  # the second piece, written out
    flat = torch.tensor([[model.tokenizer.eos_id, *(token for tokens in encoded for token in tokens)]])
    hidden, state = model.model(flat[:, :128], model.model.initial_state(1))
    torch.nn.functional.cross_entropy(model.model.logits(hidden)[0], flat[0, 1:129]).backward()
    by_sgd.step()
    with torch.no_grad():
        hidden, _ = model.model(flat[:, 128:256], state.detach())
        logp = model.model.logits(hidden)[0].log_softmax(-1).gather(1, flat[0, 129:257, None])[:, 0]
    assert moved[128:256] == pytest.approx(logp.tolist(), abs=1e-5)
    assert sum(moved[-128:]) > sum(still[-128:]) + 50
    model.model.load_state_dict(before)
    model.score(["abc"] * 99, adapt=0.5)
    assert all(value.equal(before[name]) for name, value in model.model.state_dict().items())


def test_only_a_model_with_a_carried_state_adapts() -> None:
    for model in (made(lines=True), made(lines=False, kind="transformer")):
        with pytest.raises(InputError, match="`adapt` must be 0 for a model that carries no state along a text, got 1"):
            model.score(LINES, adapt=1.0)
    with pytest.raises(InputError, match="`adapt` must be 0 or more, got nan"):
        made(lines=False).score(LINES, adapt=math.nan)


def test_figures_of_a_score() -> None:
    score = TextScore(nats=10 * math.log(2), tokens=5, characters=10, words=2, unknown=0)
    assert score.loss == pytest.approx(2 * math.log(2))
    assert score.perplexity == pytest.approx(4)
    assert score.word_perplexity == pytest.approx(32)
    assert score.bits_per_character == pytest.approx(1)


def test_samples_begin_with_their_prompts_and_are_seeded() -> None:
    running, lines = made(lines=False), made(lines=True)
    options = SampleOptions(max_length=12, n_samples=3, seed=4)
    for model in (running, lines):
        found = model.sample(["ab", "c"], options)
        assert found == model.sample(["ab", "c"], options)
        assert found != model.sample(["ab", "c"], SampleOptions(max_length=12, n_samples=3, seed=5))
        for prompt, texts in zip(("ab", "c"), found, strict=True):
            assert len(texts) == 3
            assert all(text.startswith(prompt) and len(text) <= len(prompt) + 12 for text in texts)
        assert all("⁇" not in text for several in found for text in several)
    assert all(len(text) == 14 for text in running.sample(["ab"], options)[0])
    assert "\n" not in "".join(lines.sample([""], options)[0])
    assert running.sample(["a\nb"], options)[0][0].startswith("a\nb")
    assert running.sample([], options) == []


def test_a_missing_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    with pytest.raises(InputError, match="empty: `train` must have at least one line, got none"):
        read_lines([str(tmp_path / "empty")], name="train")
