"""`ops.decode_attention` and `ops.cross_attention_decode` against what a search does without them: CPU time of a step.

    python benchmarks/decode_attention.py [--threads 1] [--rounds 15]

The peer of the self-attention copies both caches by the parents, `index_select`, and calls torch's
`scaled_dot_product_attention` on [B K, H, 1, Dh]; that of the cross attention calls it on a copy of the source's keys
and values for each beam, made once and not counted. Ours moves the ancestry by random parents before it attends, and
both times are counted; the caches hold the keys beside the values. All run in turns in one process; a time is the
median over the rounds of the process's CPU time a call, a ratio is theirs over ours. An error is the largest
difference from float64.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from seqkit.ops import cross_attention_decode, decode_attention, extend_ancestry, library

H, Dh, S = 8, 64, 30
SHAPES = [(16, 4, 30), (16, 4, 100), (1, 4, 100), (64, 5, 30)]  # B, K, T


def clock(run: Callable[[], object], repeats: int) -> float:
    """CPU microseconds a call."""
    begin = time.process_time()
    for _ in range(repeats):
        run()
    return (time.process_time() - begin) / repeats * 1e6


def exact(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """In float64, of [R, H, 1, Dh]."""
    return F.scaled_dot_product_attention(q.double(), k.double(), v.double())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    backend = library.backend("decode_attention")
    print(f"torch {torch.__version__}, {arguments.threads} thread(s), backend {backend}; H {H}, Dh {Dh}, S {S}")
    print("             |      self-attention      |      cross attention     |  both | error of ours, theirs")
    print("  B  K    T  |  ours  theirs us   ratio |  ours  theirs us   ratio | ratio | self        cross")
    for B, K, T in SHAPES:
        cache = torch.randn(B, K, T, 2, H, Dh)
        k_cache, v_cache = cache[:, :, :, 0], cache[:, :, :, 1]
        before = torch.arange(K).repeat(B, T, 1).transpose(1, 2).contiguous()  # B K T
        for step in range(T - 2):
            before = extend_ancestry(before, torch.randint(0, K, (B, K)), step)
        parents = torch.randint(0, K, (B, K))
        q = torch.randn(B, K, H, Dh)
        memory = torch.randn(2, B, H, S, Dh)
        lengths = torch.full((B,), S)
        # Theirs: each hypothesis owns its cache [B K, H, T, Dh], where its past stands already in its own order.
        sentences, positions = torch.arange(B)[:, None, None], torch.arange(T)
        own = [x[sentences, before, positions].flatten(0, 1).transpose(1, 2).contiguous() for x in (k_cache, v_cache)]
        rows = (parents + torch.arange(B)[:, None] * K).flatten()
        copies = [x.repeat_interleave(K, 0) for x in memory]
        queries = q.view(B * K, H, 1, Dh)

        def ours(
            q: Tensor = q, cache: Tensor = cache, before: Tensor = before, parents: Tensor = parents, T: int = T
        ) -> Tensor:
            return decode_attention(
                q, cache[:, :, :, 0], cache[:, :, :, 1], extend_ancestry(before, parents, T - 1), T - 1
            )

        def theirs(queries: Tensor = queries, own: list[Tensor] = own, rows: Tensor = rows) -> Tensor:
            return F.scaled_dot_product_attention(queries, own[0].index_select(0, rows), own[1].index_select(0, rows))

        def our_cross(q: Tensor = q, memory: Tensor = memory, lengths: Tensor = lengths) -> Tensor:
            return cross_attention_decode(q, memory[0], memory[1], lengths)

        def their_cross(queries: Tensor = queries, copies: list[Tensor] = copies) -> Tensor:
            return F.scaled_dot_product_attention(queries, copies[0], copies[1])

        runs = (ours, theirs, our_cross, their_cross)
        with torch.no_grad():
            repeats = [max(1, int(10_000 / max(clock(run, 2), 1.0))) for run in runs]
            rounds = [
                [clock(run, count) for run, count in zip(runs, repeats, strict=True)] for _ in range(arguments.rounds)
            ]
            mine, peer, my_cross, peer_cross = (statistics.median(column) for column in zip(*rounds, strict=True))
            wanted = exact(queries, *(x.index_select(0, rows) for x in own)), exact(queries, *copies)
            errors = [
                float((run().reshape(B * K, H, 1, Dh) - truth).abs().max())
                for run, truth in zip(runs, (wanted[0], wanted[0], wanted[1], wanted[1]), strict=True)
            ]
        both = (peer + peer_cross) / (mine + my_cross)
        print(
            f"{B:3d} {K:2d} {T:4d}  | {mine:5.0f} {peer:10.0f} {peer / mine:7.1f} | {my_cross:5.0f} {peer_cross:10.0f} "
            f"{peer_cross / my_cross:7.1f} | {both:5.1f} | {' '.join(f'{error:.0e}' for error in errors)}"
        )


if __name__ == "__main__":
    main()
