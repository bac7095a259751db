r"""Claim: `seqkit translate` gives N lines for N lines, in order, whatever is in them.

    python benchmarks/hostile_lines.py MODEL [--lines 5000] [--seed 1]

Every third line is an ordinary one; between them stand empty lines, random bytes, NUL, carriage returns, U+2028 and
other separators, lone surrogates in UTF-8, combining marks, and a few lines of up to 10 MB. The ordinary lines are
translated once more by themselves and must come out the same at their places.
"""

import argparse
import random
import subprocess
import sys

ORDINARY = ["4 February 1999", "jeudi 4 février 1999", "16. November 1972", "2014年2月1日", "a man rides a bicycle"]


def hostile(generator: random.Random) -> bytes:
    kind = generator.randrange(12)
    if kind == 0:
        return b""
    if kind == 1:
        return bytes(generator.choice([x for x in range(256) if x != 10]) for _ in range(generator.randrange(1, 200)))
    if kind == 2:
        return b"\x00" * generator.randrange(1, 50)
    if kind == 3:
        return b"4 February 1999\r"
    if kind == 4:
        return "4 February\u20281999\u2029\u0085\x0b\x0c\x1c 1999".encode()
    if kind == 5:
        return b"\xed\xa0\x80\xed\xb0\x80"
    if kind == 6:
        return ("e" + "\u0301" * generator.randrange(1, 300)).encode()
    if kind == 7:
        return b" \t\xc2\xa0\xe3\x80\x80 "
    if kind == 8:
        return "".join(chr(generator.randrange(0x10000, 0x1F000)) for _ in range(30)).encode()
    if kind == 9:
        return b"\xef\xbb\xbf4 February 1999"
    if kind == 10:
        return b"\ra\rb\r"
    return b"|||\t||| \\ \" ' </s> <pad> <unk> <s>"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--lines", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    generator = random.Random(arguments.seed)
    lines, ordinary = [], {}
    for index in range(arguments.lines):
        if index % 3 == 0:
            ordinary[index] = generator.choice(ORDINARY)
            lines.append(ordinary[index].encode())
        else:
            lines.append(hostile(generator))
    for index, size in ((1, 10 << 20), (arguments.lines // 2 // 3 * 3 + 1, 1 << 20), (arguments.lines - 1, 10 << 20)):
        if index not in ordinary:
            lines[index] = b"a" * size if size > 1 << 20 else b"1999 " * (size // 5)
    command = [sys.executable, "-m", "seqkit", "translate", arguments.model]
    result = subprocess.run(command, input=b"\n".join(lines) + b"\n", capture_output=True)
    outputs = result.stdout.split(b"\n")[:-1]
    alone = subprocess.run(
        command, input="\n".join(ordinary.values()).encode() + b"\n", capture_output=True, check=True
    ).stdout.split(b"\n")[:-1]
    in_place = sum(outputs[index] == text for index, text in zip(ordinary, alone, strict=True)) if outputs else 0
    warnings = result.stderr.count(b"warning: line")
    print(f"exit code {result.returncode}; {len(lines)} lines in, {len(outputs)} lines out; {warnings} warnings; "
          f"{in_place} of {len(ordinary)} ordinary lines as when alone")  # fmt: skip
    return 0 if (result.returncode, len(outputs), in_place) == (0, len(lines), len(ordinary)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
