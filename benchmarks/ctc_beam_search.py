"""`ops.ctc_beam_search` against fast-ctc-decode, ctc-beam-decoder, pyctcdecode, flashlight-text: CPU time, results.

    pip install --no-deps --target PEERS fast-ctc-decode ctc-beam-decoder pyctcdecode pygtrie flashlight-text
    python benchmarks/ctc_beam_search.py --peers PEERS [--threads 1] [--rounds 5]

All run in turns in one process on the same frames, T 500, C 32, beam 100, one sentence a call; peers that are missing
are left out. A time is the median over the rounds of the process's CPU time; the ratio is a peer's over ours, so above
1 we are faster. Ours is given the peer's own pruning, and none of it where the peer prunes nothing:

    fast-ctc-decode   labels below a probability, 0 or 0.001
    pyctcdecode       token_min_logp -5 and beam_prune_logp -10, its defaults; ctc-beam-decoder copies it
    flashlight-text   lexicon-free, log-add; beamThreshold as large as there are numbers, every token

"Same" counts the sentences whose best label sequence is that of the peer. pyctcdecode, ctc-beam-decoder and flashlight
count a prefix twice in their beams, once for each way to end, so that on flat frames their beams hold fewer prefixes;
`better` counts those of the others for which `ctc_loss` says that our sequence is the more probable one.
"""

import argparse
import math
import statistics
import string
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from seqkit import ops

T, C, BEAM = 500, 32, 100
ALPHABET = string.ascii_letters[:C]  # of which the first stands for the blank


def peaky(generator: torch.Generator) -> Tensor:
    """As a trained model gives them: three frames of four surely blank, the others surely a label, nearly always."""
    labels = torch.randint(1, C, (T,), generator=generator)
    labels[torch.rand(T, generator=generator) < 0.75] = 0
    logits = torch.randn(T, C, generator=generator)
    logits[torch.arange(T), labels] += 9.0
    return logits.log_softmax(dim=-1)


def flat(generator: torch.Generator) -> Tensor:
    """As one gives them that has learned nothing."""
    return torch.randn(T, C, generator=generator).log_softmax(dim=-1)


Decoder = Callable[[Tensor], list[int]]


def ours(token_min_logp: float = -math.inf, beam_prune_logp: float = -math.inf) -> Decoder:
    def decode(log_probs: Tensor) -> list[int]:
        found = ops.ctc_beam_search(
            log_probs[None], beam_size=BEAM, token_min_logp=token_min_logp, beam_prune_logp=beam_prune_logp
        )
        return found.sequences(0)[0]

    return decode


def numbers(text: str) -> list[int]:
    return [ALPHABET.index(c) for c in text]


def fast_ctc_decode(threshold: float) -> Decoder:
    from fast_ctc_decode import beam_search

    def decode(log_probs: Tensor) -> list[int]:
        text, _ = beam_search(log_probs.exp().numpy(), ALPHABET, BEAM, threshold)
        return numbers(text)

    return decode


def pyctcdecode() -> Decoder:
    from pyctcdecode import build_ctcdecoder

    decoder = build_ctcdecoder(["", *ALPHABET[1:]])
    return lambda log_probs: numbers(decoder.decode_beams(log_probs.numpy(), beam_width=BEAM)[0][0])


def ctc_beam_decoder() -> Decoder:
    from ctc_beam_decoder import BeamSearchDecoder

    decoder = BeamSearchDecoder(["", *ALPHABET[1:]])
    return lambda log_probs: numbers(decoder.decode_beams(log_probs.numpy(), beam_width=BEAM)[0][0])


def flashlight() -> Decoder:
    from flashlight.lib.text.decoder import CriterionType, LexiconFreeDecoder, LexiconFreeDecoderOptions, ZeroLM

    options = LexiconFreeDecoderOptions(BEAM, C, 1e30, 0.0, 0.0, True, CriterionType.CTC)
    decoder = LexiconFreeDecoder(options, ZeroLM(), C, 0, [])  # no silence: the number of no token

    def decode(log_probs: Tensor) -> list[int]:
        path = decoder.decode(log_probs.data_ptr(), T, C)[0].tokens
        return [label for label, before in zip(path[1:], path[:-1], strict=True) if 0 < label < C and label != before]

    return decode


PEERS: dict[str, tuple[Callable[[], Decoder], dict[str, float]]] = {
    "fast-ctc-decode": (lambda: fast_ctc_decode(0.0), {}),
    "fast-ctc-decode, 0.001": (lambda: fast_ctc_decode(0.001), {"token_min_logp": math.log(0.001)}),
    "ctc-beam-decoder": (ctc_beam_decoder, {"token_min_logp": -5.0, "beam_prune_logp": -10.0}),
    "pyctcdecode": (pyctcdecode, {"token_min_logp": -5.0, "beam_prune_logp": -10.0}),
    "flashlight-text": (flashlight, {}),
}


def clock(decode: Decoder, log_probs: Tensor, repeats: int) -> float:
    """CPU seconds a call."""
    begin = time.process_time()
    for _ in range(repeats):
        decode(log_probs)
    return (time.process_time() - begin) / repeats


def logp(log_probs: Tensor, labels: list[int]) -> float:
    """The exact log-probability of a label sequence."""
    target = torch.tensor([labels], dtype=torch.int64)
    return -float(ops.ctc_loss(log_probs[:, None].double(), target, (T,), (len(labels),), reduction="sum"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", help="the folder that they are installed in")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sentences", type=int, default=10, help="whose results are compared")
    arguments = parser.parse_args()
    if arguments.peers:
        sys.path.append(arguments.peers)
    torch.set_num_threads(arguments.threads)
    print(f"T{T} C{C} beam {BEAM}, {arguments.threads} thread(s), backend {ops.backend('ctc_beam_search')}")
    decoders: dict[str, tuple[Decoder, Decoder]] = {}
    for name, (make, options) in PEERS.items():
        try:
            decoders[name] = make(), ours(**options)
        except ImportError as error:
            print(f"{name} is left out: {error}")
    kinds: dict[str, Any] = {"peaky": peaky, "flat": flat}
    for kind, draw in kinds.items():
        generator = torch.Generator().manual_seed(0)
        sentences = [draw(generator) for _ in range(max(arguments.sentences, arguments.rounds))]
        for name, (peer, mine) in decoders.items():
            pairs = []
            for log_probs in sentences[: arguments.rounds]:
                mine(log_probs)
                pairs.append((clock(mine, log_probs, 5), clock(peer, log_probs, 1)))
            us, them = (statistics.median(pair[n] for pair in pairs) for n in range(2))
            results = [(mine(x), peer(x), x) for x in sentences[: arguments.sentences]]
            same = sum(a == b for a, b, _ in results)
            better = sum(a != b and logp(x, a) > logp(x, b) for a, b, x in results)
            print(
                f"{kind:6} {name:23} {1 / us:7.1f} sentences/s, peer {1 / them:6.1f}, ratio {them / us:6.1f}; "
                f"same {same} of {len(results)}, better {better}",
                flush=True,
            )


if __name__ == "__main__":
    main()
