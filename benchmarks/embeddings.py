"""Claim: our word-vector trainer gives gensim's quality at a multiple of its speed.

    python benchmarks/embeddings.py CORPUS DATA [--tasks skipgram cbow hierarchical subword glove] [--dim 100]
                                    [--epochs 2] [--rounds 3] [--peer-rounds 1] [--first-seed 1] [--threads 1]
                                    [--stanford FOLDER] [--x-max 10] [--eta 0.05]

CORPUS is a plain text, such as shared/data/text/wiki17.txt.xz unpacked; DATA the folder of questions-words.txt,
wordsim353.tsv, simlex999.txt and men3k.txt. gensim (4.4; --peer-python names an interpreter that has it with numpy and
safetensors) and ours train in turn with the same options and threads: window 5, negative 5, min-count 5, sample 1e-4,
learning rate 0.025 (0.05 for CBOW and subwords) to 1e-4. The peer of `glove` is Stanford's C code: FOLDER has its
vocab_count, cooccur, shuffle and glove, and without one ours runs alone; both count a symmetric window of 10. Each run
is a process with a seed and a peak memory of its own. Prints thousand words times epochs per CPU second from the file
to the vectors, the analogies that are right, Spearman's rho of each similarity set, and the ratio of the medians.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

TASKS = ("skipgram", "cbow", "hierarchical", "subword", "glove")


def train_ours(arguments: argparse.Namespace) -> tuple[list[str], object]:
    from seqkit.embeddings import FastText, GloVe, Word2Vec

    options = {
        "dim": arguments.dim, "epochs": arguments.epochs, "threads": arguments.threads, "seed": arguments.seed,
    }  # fmt: skip
    if arguments.task == "glove":
        trainer = GloVe(**options, x_max=arguments.x_max, eta=arguments.eta)
    elif arguments.task == "subword":
        trainer = FastText(**options)
    else:
        architecture = "cbow" if arguments.task == "cbow" else "skipgram"
        trainer = Word2Vec(**options, architecture=architecture, hierarchical=arguments.task == "hierarchical")
    vectors = trainer.train(arguments.corpus)
    return vectors.words, vectors.matrix


def train_gensim(arguments: argparse.Namespace) -> tuple[list[str], object]:
    from gensim.models import FastText, Word2Vec

    hierarchical = arguments.task == "hierarchical"
    trainer = FastText if arguments.task == "subword" else Word2Vec
    model = trainer(
        corpus_file=str(arguments.corpus), vector_size=arguments.dim, window=5, min_count=5, sample=1e-4,
        negative=0 if hierarchical else 5, hs=int(hierarchical), sg=int(arguments.task != "cbow"),
        epochs=arguments.epochs, workers=arguments.threads, seed=arguments.seed,
        alpha=0.05 if arguments.task in ("cbow", "subword") else 0.025,
    )  # fmt: skip
    return model.wv.index_to_key, model.wv.vectors


def train_stanford(arguments: argparse.Namespace) -> tuple[list[str], object]:
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)

        def run(program: str, options: str, source: Path | None, to: Path | None) -> None:
            command = [str((arguments.stanford / program).resolve()), *options.split(), "-verbose", "0"]
            with open(source or "/dev/null", "rb") as given, open(to or "/dev/null", "wb") as out:
                subprocess.run(command, stdin=given, stdout=out, cwd=folder, check=True)

        run("vocab_count", "-min-count 5", arguments.corpus, at / "vocab.txt")
        window = "-vocab-file vocab.txt -window-size 10 -symmetric 1 -memory 4.0"
        run("cooccur", window, arguments.corpus, at / "counts")
        run("shuffle", f"-memory 4.0 -seed {arguments.seed}", at / "counts", at / "shuffled")
        options = (
            f"-input-file shuffled -vocab-file vocab.txt -save-file vectors -vector-size {arguments.dim} -binary 0"
            f" -iter {arguments.epochs} -threads {arguments.threads} -x-max {arguments.x_max} -seed {arguments.seed}"
            f" -eta {arguments.eta}"
        )
        run("glove", options, None, None)
        rows = [line.rstrip().split(" ") for line in (at / "vectors.txt").read_text().splitlines()]
    rows = [row for row in rows if row[0] != "<unk>"]
    return [row[0] for row in rows], np.array([row[1:] for row in rows], np.float32)


def one_run(arguments: argparse.Namespace) -> None:
    """Trains once and prints what it took, as JSON, before it prints the quality."""
    train = {"seqkit": train_ours, "gensim": train_gensim, "stanford": train_stanford}[arguments.one]
    who = resource.RUSAGE_CHILDREN if arguments.one == "stanford" else resource.RUSAGE_SELF
    before = resource.getrusage(who)
    words, matrix = train(arguments)
    after = resource.getrusage(who)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    peak = after.ru_maxrss / 1024
    import numpy as np

    from seqkit.embeddings import WordVectors
    from seqkit.embeddings.evaluate import analogies, similarity

    vectors = WordVectors(words, np.asarray(matrix, np.float32))
    known = set(words)
    with open(arguments.corpus, encoding="utf-8") as file:
        n_words = sum(word in known for line in file for word in line.split())
    whole = analogies(vectors, arguments.data / "questions-words.txt")[-1]
    found = {
        "speed": n_words * arguments.epochs / seconds / 1000,
        "memory": peak,
        "analogies": 100 * whole.accuracy,
        "asked": whole.asked,
        **{name: similarity(vectors, arguments.data / file).rho for name, file in SETS.items()},
    }
    print(json.dumps(found))


SETS = {"WS353": "wordsim353.tsv", "SimLex": "simlex999.txt", "MEN": "men3k.txt"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=["skipgram", "cbow"])
    parser.add_argument("--dim", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer-rounds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=1, help="of a round; the next round has the next")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peer-python", default=sys.executable, help="an interpreter that has gensim and numpy")
    parser.add_argument("--stanford", type=Path, help="the folder of Stanford's programs")
    parser.add_argument("--x-max", type=float, default=10.0, help="what suits a text of wiki17's size")
    parser.add_argument("--eta", type=float, default=0.05)
    parser.add_argument("--one", choices=("seqkit", "gensim", "stanford"), help=argparse.SUPPRESS)
    parser.add_argument("--task", choices=TASKS, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=1, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        one_run(arguments)
        return
    for task in arguments.tasks:
        peer = "stanford" if task == "glove" else "gensim"
        runs: dict[str, list[dict[str, float]]] = {"seqkit": [], peer: []}
        peer_rounds = 0 if task == "glove" and arguments.stanford is None else arguments.peer_rounds
        for round in range(arguments.rounds):
            seed = arguments.first_seed + round
            for name, results in runs.items():
                if name == peer and round >= peer_rounds:
                    continue
                python = sys.executable if name != "gensim" else arguments.peer_python
                command = [
                    python, __file__, str(arguments.corpus), str(arguments.data), "--one", name, "--task", task,
                    "--seed", str(seed), "--dim", str(arguments.dim), "--epochs", str(arguments.epochs),
                    "--threads", str(arguments.threads), "--x-max", str(arguments.x_max),
                    "--eta", str(arguments.eta),
                ]  # fmt: skip
                if name == "stanford":
                    command += ["--stanford", str(arguments.stanford)]
                with tempfile.TemporaryFile("w+") as out:
                    subprocess.run(command, stdout=out, check=True)
                    out.seek(0)
                    found = json.loads(out.read().splitlines()[-1])
                results.append(found)
                sets = "  ".join(f"{key} {found[key]:.3f}" for key in SETS)
                print(
                    f"{task:<12} {name:<8} seed {seed}  {found['speed']:6.0f} k words / CPU s  "
                    f"{found['analogies']:5.2f} % of {found['asked']} analogies  {sets}  {found['memory']:4.0f} MB",
                    flush=True,
                )
        if runs[peer]:
            ours, theirs = (statistics.median(run["speed"] for run in each) for each in runs.values())
            ours_right, theirs_right = (statistics.mean(run["analogies"] for run in each) for each in runs.values())
            print(
                f"{task:<12} {ours / theirs:.1f} times {peer}'s speed; analogies {ours_right:.2f} against "
                f"{theirs_right:.2f} % (means)"
            )


if __name__ == "__main__":
    main()
