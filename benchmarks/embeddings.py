"""Claim: our word-vector trainers give their peers' quality at a multiple of their speed.

    python benchmarks/embeddings.py CORPUS DATA [--tasks skipgram cbow hierarchical subword glove] [--peers gensim …]
                                    [--peer-python PYTHON] [--programs FOLDER] [--dim 100] [--epochs 2] [--rounds 3]
                                    [--peer-rounds 1] [--first-seed 1] [--threads 1] [--alpha X] [--peer-alpha X]
                                    [--x-max 10] [--eta 0.05]

CORPUS is a plain text, such as shared/data/text/wiki17.txt.xz unpacked; DATA the folder of questions-words.txt,
wordsim353.tsv, simlex999.txt and men3k.txt. The peers gensim and fasttext are packages of the interpreter
--peer-python (which also needs numpy and safetensors); word2vec, pWord2Vec and Stanford's four programs of GloVe
(`stanford`) lie in --programs. Ours and each
peer that has the task train in turn with the same options and threads: window 5, negative 5, min-count 5, sample 1e-4,
and our default learning rate if no other is given; `glove` counts a symmetric window of 10. Each run is a process with
a seed and a peak memory of its own. Prints thousand words times epochs per CPU second from the file to the vectors, the
analogies that are right, Spearman's rho of each similarity set, and the ratio of the medians.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

TASKS = {  # and our default learning rate
    "skipgram": 0.05,
    "cbow": 0.075,
    "hierarchical": 0.025,
    "subword": 0.05,
    "glove": 0.05,
}
SETS = {"WS353": "wordsim353.tsv", "SimLex": "simlex999.txt", "MEN": "men3k.txt"}


def train_ours(arguments: argparse.Namespace) -> tuple[list[str], object]:
    from seqkit.embeddings import FastText, GloVe, Word2Vec

    options = {
        "dim": arguments.dim, "epochs": arguments.epochs, "threads": arguments.threads, "seed": arguments.seed,
    }  # fmt: skip
    if arguments.task == "glove":
        trainer = GloVe(**options, x_max=arguments.x_max, eta=arguments.eta)
    elif arguments.task == "subword":
        trainer = FastText(**options, alpha=arguments.alpha)
    else:
        architecture = "cbow" if arguments.task == "cbow" else "skipgram"
        hierarchical = arguments.task == "hierarchical"
        trainer = Word2Vec(**options, architecture=architecture, hierarchical=hierarchical, alpha=arguments.alpha)
    vectors = trainer.train(arguments.corpus)
    return vectors.words, vectors.matrix


def train_gensim(arguments: argparse.Namespace) -> tuple[list[str], object]:
    from gensim.models import FastText, Word2Vec

    hierarchical = arguments.task == "hierarchical"
    trainer = FastText if arguments.task == "subword" else Word2Vec
    model = trainer(
        corpus_file=str(arguments.corpus), vector_size=arguments.dim, window=5, min_count=5, sample=1e-4,
        negative=0 if hierarchical else 5, hs=int(hierarchical), sg=int(arguments.task != "cbow"),
        epochs=arguments.epochs, workers=arguments.threads, seed=arguments.seed, alpha=arguments.alpha,
    )  # fmt: skip
    return model.wv.index_to_key, model.wv.vectors


def train_fasttext(arguments: argparse.Namespace) -> tuple[list[str], object]:
    import fasttext
    import numpy as np

    subword = arguments.task == "subword"
    model = fasttext.train_unsupervised(
        str(arguments.corpus), model="cbow" if arguments.task == "cbow" else "skipgram", dim=arguments.dim, ws=5,
        neg=5, minCount=5, t=1e-4, epoch=arguments.epochs, lr=arguments.alpha, thread=arguments.threads, verbose=0,
        loss="hs" if arguments.task == "hierarchical" else "ns", minn=3 if subword else 0, maxn=6 if subword else 0,
    )  # fmt: skip
    words = [word for word in model.get_words() if word != "</s>"]
    return words, np.array([model.get_word_vector(word) for word in words])


def train_word2vec(arguments: argparse.Namespace) -> tuple[list[str], object]:
    hierarchical = arguments.task == "hierarchical"
    return _read_text(
        arguments, "word2vec",
        f"-hs {int(hierarchical)} -negative {0 if hierarchical else 5} -cbow {int(arguments.task == 'cbow')}",
    )  # fmt: skip


def train_pword2vec(arguments: argparse.Namespace) -> tuple[list[str], object]:
    return _read_text(arguments, "pWord2Vec", "-negative 5 -batch-size 11")


def _read_text(arguments: argparse.Namespace, program: str, options: str) -> tuple[list[str], object]:
    with tempfile.TemporaryDirectory() as folder:
        command = [
            str(arguments.programs / program), "-train", str(arguments.corpus), "-output", f"{folder}/vectors",
            *f"-size {arguments.dim} -window 5 -sample 1e-4 -min-count 5 -binary 0 -iter {arguments.epochs}".split(),
            *f"-alpha {arguments.alpha} -threads {arguments.threads}".split(), *options.split(),
        ]  # fmt: skip
        environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
        subprocess.run(command, stdout=subprocess.DEVNULL, env=environment, check=True)
        return _rows(Path(folder) / "vectors", header=True)


def train_stanford(arguments: argparse.Namespace) -> tuple[list[str], object]:
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)

        def run(program: str, options: str, source: Path | None, to: Path | None) -> None:
            command = [str((arguments.programs / program).resolve()), *options.split(), "-verbose", "0"]
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
        return _rows(at / "vectors.txt", header=False)


def _rows(path: Path, *, header: bool) -> tuple[list[str], object]:
    import numpy as np

    lines = path.read_text().splitlines()[int(header) :]
    rows = [row for row in (line.rstrip().split(" ") for line in lines) if row[0] not in ("<unk>", "</s>")]
    return [row[0] for row in rows], np.array([row[1:] for row in rows], np.float32)


TRAINERS = {  # and the tasks that each has
    "seqkit": (train_ours, {*TASKS}),
    "gensim": (train_gensim, {*TASKS} - {"glove"}),
    "fasttext": (train_fasttext, {*TASKS} - {"glove"}),
    "word2vec": (train_word2vec, {"skipgram", "cbow", "hierarchical"}),
    "pWord2Vec": (train_pword2vec, {"skipgram"}),
    "stanford": (train_stanford, {"glove"}),
}


def one_run(arguments: argparse.Namespace) -> None:
    """Trains once and prints what it took and the quality, as JSON."""
    train, _ = TRAINERS[arguments.one]
    before = _cpu_seconds()
    words, matrix = train(arguments)
    seconds = _cpu_seconds() - before
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024
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


def _cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def run_apart(arguments: argparse.Namespace, name: str, task: str, seed: int) -> dict[str, float]:
    """`one_run` in a process of its own."""
    python = arguments.peer_python if name in ("gensim", "fasttext") else sys.executable
    rate = arguments.alpha if name == "seqkit" or arguments.peer_alpha is None else arguments.peer_alpha
    command = [
        python, __file__, str(arguments.corpus), str(arguments.data), "--one", name, "--task", task,
        "--seed", str(seed), "--dim", str(arguments.dim), "--epochs", str(arguments.epochs),
        "--threads", str(arguments.threads), "--x-max", str(arguments.x_max), "--eta", str(arguments.eta),
        "--alpha", str(rate or TASKS[task]), "--programs", str(arguments.programs),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}  # a peer's Python lacks seqkit
    with tempfile.TemporaryFile("w+") as out:
        subprocess.run(command, stdout=out, env=environment, check=True)
        out.seek(0)
        found: dict[str, float] = json.loads(out.read().splitlines()[-1])
    sets = "  ".join(f"{key} {found[key]:.3f}" for key in SETS)
    print(
        f"{task:<12} {name:<9} seed {seed}  {found['speed']:6.0f} k words / CPU s  "
        f"{found['analogies']:5.2f} % of {found['asked']} analogies  {sets}  {found['memory']:4.0f} MB",
        flush=True,
    )
    return found


def compare(arguments: argparse.Namespace, task: str) -> None:
    peers = [name for name in arguments.peers if task in TRAINERS[name][1]]
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in ("seqkit", *peers)}
    for round in range(arguments.rounds):
        for name, results in runs.items():
            if name == "seqkit" or round < arguments.peer_rounds:
                results.append(run_apart(arguments, name, task, arguments.first_seed + round))
    speed = {name: statistics.median(run["speed"] for run in results) for name, results in runs.items() if results}
    for name in speed:
        means = [statistics.mean(run[key] for run in runs[name]) for key in ("analogies", *SETS)]
        print(
            f"{task:<12} {name:<9} {speed['seqkit'] / speed[name]:5.1f} times slower than ours  means of "
            f"{len(runs[name])}: {means[0]:.2f} %  {'  '.join(f'{mean:.3f}' for mean in means[1:])}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=["skipgram", "cbow"])
    parser.add_argument("--peers", nargs="*", choices=[name for name in TRAINERS if name != "seqkit"], default=[])
    parser.add_argument("--peer-python", default=sys.executable, help="an interpreter that has gensim and fasttext")
    parser.add_argument("--programs", type=Path, default=Path(), help="the folder of the peers that are programs")
    parser.add_argument("--dim", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer-rounds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=1, help="of a round; the next round has the next")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--alpha", type=float, help="the learning rate of all")
    parser.add_argument("--peer-alpha", type=float, help="the learning rate of the peers")
    parser.add_argument("--x-max", type=float, default=10.0, help="what suits a text of wiki17's size")
    parser.add_argument("--eta", type=float, default=0.05)
    parser.add_argument("--one", choices=TRAINERS, help=argparse.SUPPRESS)
    parser.add_argument("--task", choices=TASKS, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=1, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        one_run(arguments)
        return
    for task in arguments.tasks:
        compare(arguments, task)


if __name__ == "__main__":
    main()
