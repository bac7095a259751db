import math
import pickle
import random
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sentencepiece

from seqkit.errors import InputError
from seqkit.text.tokenizer import (
    CharTokenizer,
    SentencePieceTokenizer,
    Tokenizer,
    WordTokenizer,
    join_words,
    load_tokenizer,
    split_words,
    train_tokenizer,
)

KINDS = ["char", "word", "unigram", "bpe"]
HOSTILE = [
    "",
    " ",
    "\0",
    "a\0b",
    "a\u2028b",
    "a\rb",
    "\ud800",
    "\uffff",
    "\x01",
    "\t",
    "▁",
    "￭",
    "</s>",
    "😀\u200d",
    "x" * 99_999,
]


def corpus() -> list[str]:
    """Lines of a small grammar, the same everywhere."""
    generator = random.Random(1)
    stems = ["walk", "talk", "light", "night", "paint", "count", "river", "mount"]
    ends = ["", "s", "ed", "ing", "er", "ers", "able"]
    return [
        " ".join(generator.choice(stems) + generator.choice(ends) for _ in range(generator.randint(3, 9))) + "."
        for _ in range(300)
    ]


def trained(kind: str) -> CharTokenizer | WordTokenizer | SentencePieceTokenizer:
    return train_tokenizer(kind, corpus(), vocab_size=60 if kind in ("unigram", "bpe") else None)


@pytest.fixture(scope="module", params=["unigram", "bpe"])
def subwords(request: pytest.FixtureRequest) -> SentencePieceTokenizer:
    return SentencePieceTokenizer.train(corpus(), vocab_size=60, model_type=request.param)


@pytest.mark.parametrize("kind", KINDS)
def test_tokenizer_round_trip_and_protocol(kind: str, tmp_path: Path) -> None:
    tokenizer = trained(kind)
    assert isinstance(tokenizer, Tokenizer)
    assert (tokenizer.pad_id, tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id) == (0, 1, 2, 3)
    tokenizer.save(tmp_path / "source")
    again = load_tokenizer(tmp_path / "source")
    assert type(again) is type(tokenizer)
    assert again.vocab_size == tokenizer.vocab_size
    for line in corpus()[:50]:
        ids = tokenizer.encode(line)
        assert min(ids) >= 4
        assert max(ids) < tokenizer.vocab_size
        assert tokenizer.decode(ids) == line
        assert tokenizer.decode([2, *ids, 3, 0, 0]) == line
        assert again.encode(line) == ids
        assert len(tokenizer.pieces(ids)) == len(ids)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", HOSTILE)
def test_tokenizer_encodes_any_text(kind: str, text: str) -> None:
    tokenizer = trained(kind)
    ids = tokenizer.encode(text)
    assert all(index == 1 or 4 <= index < tokenizer.vocab_size for index in ids)
    assert isinstance(tokenizer.decode(ids), str)
    if isinstance(tokenizer, SentencePieceTokenizer):
        assert isinstance(tokenizer.encode_sampled(text[:300], alpha=0.2, seed=1), list)


@pytest.mark.parametrize("kind", KINDS)
def test_tokenizer_training_repeats_to_the_byte_in_another_process(kind: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        trained(kind).save(tmp_path / name)
    script = (
        "import sys; from seqkit.text import train_tokenizer; lines = sys.stdin.read().split('\\n'); "
        f"train_tokenizer({kind!r}, lines, vocab_size={60 if kind in ('unigram', 'bpe') else None}).save(sys.argv[1])"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "three")]
    subprocess.run(command, input="\n".join(corpus()), text=True, check=True)
    contents = [next(tmp_path.glob(f"{name}.*")).read_bytes() for name in ("one", "two", "three")]
    assert contents[0] == contents[1] == contents[2]


@pytest.mark.parametrize("kind", KINDS)
def test_tokenizer_shows_the_unknown(kind: str) -> None:
    tokenizer = trained(kind)
    assert tokenizer.decode([1]) == "⁇"
    assert tokenizer.decode([0, 2, 3]) == ""
    assert "⁇" in tokenizer.decode(tokenizer.encode("walk 葉"))


def test_char_tokenizer_keeps_control_characters(tmp_path: Path) -> None:
    text = "a\tb\rc\u2028 \0d\x85"
    CharTokenizer.train([text]).save(tmp_path / "c")
    tokenizer = CharTokenizer.load(tmp_path / "c")
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ('Well, "yes".', ["Well", "￭,", '"￭', "yes", '￭"', "￭."]),
        ("don't l’eau rock'n'roll 'tis", ["don't", "l’eau", "rock'n'roll", "'￭", "tis"]),
        ("a-b", ["a", "￭-￭", "b"]),
        ("a - b", ["a", "-", "b"]),
        ("wait... (what?!)", ["wait", "￭.", "￭.", "￭.", "(￭", "what", "￭?", "￭!", "￭)"]),
        ("3.14 €5 a_b", ["3", "￭.￭", "14", "€￭", "5", "a_b"]),
        ("हिन्दी में।", ["हिन्दी", "में", "￭।"]),
        ("e\u0301te\u0301!", ["e\u0301te\u0301", "￭!"]),
        ("", []),
        ("  a\u2028b\rc ", ["a", "b", "c"]),
        ("a￭b", ["a", "￭■￭", "b"]),
    ],
)
def test_split_words_follows_its_rule_and_join_words_undoes_it(text: str, tokens: list[str]) -> None:
    assert split_words(text) == tokens
    assert join_words(tokens) == " ".join(text.replace("￭", "■").split())


def test_word_tokenizer_restores_texts_it_knows() -> None:
    lines = ["\"A man -- in a 'red' hat --\" (said he), didn't; go: to/from $5.00!", "x,y . z"]
    tokenizer = WordTokenizer.train(lines)
    assert [tokenizer.decode(tokenizer.encode(line)) for line in lines] == lines


def test_sentencepiece_training_names_the_sizes_that_fit(capfd: pytest.CaptureFixture[str]) -> None:
    for kind in ("unigram", "bpe"):
        with pytest.raises(InputError, match=r"vocab_size must be at most (\d+) for this corpus, got 5000") as error:
            train_tokenizer(kind, corpus(), vocab_size=5000)
        largest = int(str(error.value).split("at most ")[1].split()[0])
        assert train_tokenizer(kind, corpus(), vocab_size=largest).vocab_size == largest
        with pytest.raises(InputError, match=r"vocab_size must be at least \d+ for the characters .*, got 6"):
            train_tokenizer(kind, corpus(), vocab_size=6)
        for empty in ([], ["", "  "], ["\n"]):
            with pytest.raises(InputError, match="corpus must have text, got none"):
                train_tokenizer(kind, empty, vocab_size=100)
    assert capfd.readouterr().err == ""


def test_train_tokenizer_rejects_what_it_cannot_do() -> None:
    with pytest.raises(InputError, match="kind must be char, word, unigram or bpe, got 'words'"):
        train_tokenizer("words", ["a"])
    with pytest.raises(InputError, match="vocab_size must be given for bpe"):
        train_tokenizer("bpe", ["a"])
    with pytest.raises(InputError, match="character_coverage must be above 0"):
        SentencePieceTokenizer.train(["a"], vocab_size=9, character_coverage=0.0)
    with pytest.raises(InputError, match="normalization must be a rule"):
        SentencePieceTokenizer.train(["a"], vocab_size=9, normalization="none")


def test_sentencepiece_training_passes_on_the_error_of_its_reader() -> None:
    def lines():  # type: ignore[no-untyped-def]
        yield "a b"
        raise InputError("file:2: line must be UTF-8, got byte 0xff at 0")

    with pytest.raises(InputError, match="file:2"):
        SentencePieceTokenizer.train(lines(), vocab_size=10)


def test_sentencepiece_keeps_lines_longer_than_its_default_bound() -> None:
    tokenizer = SentencePieceTokenizer.train(["ab " * 3000 + "q"], vocab_size=8)
    assert tokenizer.unk_id not in tokenizer.encode("q")


def test_sentencepiece_survives_pickling(subwords: SentencePieceTokenizer) -> None:
    again = pickle.loads(pickle.dumps(subwords))
    assert again.encode("walking nights.") == subwords.encode("walking nights.")


def test_sentencepiece_rejects_other_models(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be a sentencepiece model"):
        SentencePieceTokenizer(b"nothing of the kind")
    prefix = tmp_path / "foreign"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()), model_prefix=str(prefix), vocab_size=60, minloglevel=2
    )
    prefix.with_suffix(".model").rename(tmp_path / "foreign.spm")
    with pytest.raises(InputError, match=r"foreign.spm: ids of pad, unk, bos and eos must be 0, 1, 2 and 3"):
        load_tokenizer(prefix)


def test_sentencepiece_names_a_wrong_id(subwords: SentencePieceTokenizer) -> None:
    for wrong in (-1, 60):
        with pytest.raises(InputError, match=f"id must be from 0 to 59, got {wrong}"):
            subwords.decode([4, wrong])


def test_load_tokenizer_wants_exactly_one_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got 0 of them"):
        load_tokenizer(tmp_path / "t")
    trained("char").save(tmp_path / "t")
    trained("word").save(tmp_path / "t")
    with pytest.raises(InputError, match="got 2 of them"):
        load_tokenizer(tmp_path / "t")


def test_encode_sampled_depends_on_text_alpha_and_seed_alone(subwords: SentencePieceTokenizer, tmp_path: Path) -> None:
    text = "walking lights painted rivers." * 4

    def draw(seed: int) -> list[int]:
        return subwords.encode_sampled(text, alpha=0.1, seed=seed)

    first = [draw(seed) for seed in range(40)]
    assert len({tuple(ids) for ids in first}) > 10
    assert all(subwords.decode(ids) == text for ids in first)
    assert [draw(seed) for seed in reversed(range(40))] == first[::-1]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(draw, range(40))) == first
    subwords.save(tmp_path / "t")
    script = (
        "import sys; from seqkit.text import load_tokenizer; t = load_tokenizer(sys.argv[1]); "
        "print([t.encode_sampled(sys.argv[2], alpha=0.1, seed=seed) for seed in range(40)])"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "t"), text]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == str(first)


def test_encode_sampled_without_noise_is_encode(subwords: SentencePieceTokenizer) -> None:
    alpha = 1e4 if subwords._processor.get_score(10) % 1 else 0.0  # BPE scores are whole numbers
    for text in [*corpus()[:60], "walk 葉葉 \0 talk", "x y"]:
        assert subwords.encode_sampled(text, alpha=alpha, seed=5) == subwords.encode(text)


def test_encode_sampled_bpe_takes_the_left_of_equal_merges() -> None:
    tokenizer = SentencePieceTokenizer.train(["aa aaa aaaaa aab baa"] * 9, vocab_size=9, model_type="bpe")
    for text in ("aaa", "aaaaa", "baaab aaaaaaa"):
        assert tokenizer.encode_sampled(text, alpha=0.0, seed=1) == tokenizer.encode(text)


def test_encode_sampled_unigram_has_the_distribution_of_kudo() -> None:
    tokenizer = SentencePieceTokenizer.train(corpus(), vocab_size=60)
    text = "walkers painting q"  # with an unknown character
    processor, alpha, n = tokenizer._processor, 0.1, 20_000
    every = [tuple(ids) for ids in processor.nbest_encode_as_ids(text, 512)]
    assert 3 < len(every) < 512
    weights = [math.exp(alpha * sum(processor.get_score(index) for index in ids)) for ids in every]
    drawn = Counter(tuple(tokenizer.encode_sampled(text, alpha=alpha, seed=seed)) for seed in range(n))
    assert set(drawn) <= set(every)
    for ids, weight in zip(every, weights, strict=True):
        share = weight / sum(weights)
        assert abs(drawn[ids] / n - share) < 5 * math.sqrt(share / n) + 1e-4


def test_encode_sampled_bpe_drops_each_merge_with_its_probability() -> None:
    # one merge is possible, "▁" + "a": it is dropped with probability alpha, and then there is no second round
    tokenizer = SentencePieceTokenizer.train(["a"] * 20 + ["b a"], vocab_size=9, model_type="bpe")
    n = 4000
    drawn = Counter(len(tokenizer.encode_sampled("a", alpha=0.25, seed=seed)) for seed in range(n))
    assert abs(drawn[2] / n - 0.25) < 5 * math.sqrt(0.25 * 0.75 / n)
    assert len(tokenizer.encode_sampled("a b a", alpha=1.0, seed=1)) == 6


@pytest.mark.parametrize("alpha", [-0.1, math.nan, math.inf])
def test_encode_sampled_rejects_a_wrong_alpha(subwords: SentencePieceTokenizer, alpha: float) -> None:
    with pytest.raises(InputError, match="alpha must be"):
        subwords.encode_sampled("walk", alpha=alpha, seed=1)
