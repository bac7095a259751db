"""A `StepModel` whose next-token logits are a random function of the sentence and of all tokens so far.

The function is integer arithmetic, so every logit is exact: the same for any batch, beam or device.
"""

from dataclasses import dataclass

import torch

from seqkit.decode.step import StepOutput

PRIME = 2147483647


@dataclass
class HashState:
    hashes: torch.Tensor  # B K


class HashModel:
    """Inputs are one integer a sentence. Tokens: 0 ends, V - 1 begins."""

    def __init__(self, vocab_size, *, spread=4.0, source_size=0, salt=0):
        self.vocab_size = vocab_size
        self.spread = spread
        self.source_size = source_size
        self.salt = salt
        self.rows = []  # sentences and beams of each step

    def start(self, inputs):
        return HashState((inputs[:, None] * 48271 + 7 + self.salt) % PRIME)

    def step(self, tokens, state):
        self.rows.append(tuple(tokens.shape))
        hashes = (state.hashes * 48271 + tokens * 7919 + 12345) % PRIME
        attention = None
        if self.source_size:
            weights = self._draw(hashes, self.source_size, 31) + 0.01
            attention = weights / weights.cumsum(-1)[..., -1:]
        return StepOutput(self._draw(hashes, self.vocab_size, 17) * self.spread, HashState(hashes), attention)

    def _draw(self, hashes, n, salt):
        index = torch.arange(1, n + 1) * 69621 + salt
        mixed = (hashes[..., None] % 46337 * index + hashes[..., None] // 46337) % PRIME
        return (mixed * 16807 % PRIME % 65536).float() / 65536

    def reorder(self, state, parents):
        return HashState(state.hashes.gather(1, parents))

    def keep(self, state, sentences):
        return HashState(state.hashes[sentences])

    def token_logprobs(self, sentence, tokens):
        """The log-probability of each token, by hand."""
        state = self.start(torch.tensor([sentence]))
        values, previous = [], self.vocab_size - 1
        for token in tokens:
            output = self.step(torch.tensor([[previous]]), state)
            state, previous = output.state, token
            values.append(float(output.logits[0, 0].double().log_softmax(0)[token]))
        return values

    def all_outputs(self, sentence, *, max_length, min_length=0):
        """Every output that a search may give: (tokens, ended, log-probability)."""
        found = []
        begin = self.start(torch.tensor([sentence]))
        frontier = [((), 0.0, begin, self.vocab_size - 1)]
        for length in range(max_length):
            following = []
            for tokens, logp, state, previous in frontier:
                output = self.step(torch.tensor([[previous]]), state)
                step = output.logits[0, 0].double().log_softmax(0).tolist()
                if length >= min_length:
                    found.append((tokens, True, logp + step[0]))
                words = range(1, self.vocab_size)
                following += [((*tokens, word), logp + step[word], output.state, word) for word in words]
            frontier = following
        return found + [(tokens, False, logp) for tokens, logp, _, _ in frontier]


def penalty(kind, alpha, length):
    return {"none": 1.0, "power": max(length, 1) ** alpha, "gnmt": ((5 + length) / 6) ** alpha}[kind]


def best_outputs(model, sentence, *, n, kind, alpha, count_eos, max_length, min_length=0):
    """The n best of all outputs: (score, tokens, ended, log-probability)."""
    scored = []
    for tokens, ended, logp in model.all_outputs(sentence, max_length=max_length, min_length=min_length):
        length = len(tokens) + (ended and count_eos)
        scored.append((logp / penalty(kind, alpha, length), list(tokens), ended, logp))
    return sorted(scored, key=lambda output: -output[0])[:n]


def has_repeat(tokens, n):
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return len(grams) != len(set(grams))
