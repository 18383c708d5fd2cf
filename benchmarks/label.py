"""Labelling a corpus: what a second worker brings, and what a million rows cost.

    python benchmarks/label.py speed [--rows 8000] [--repeats 3]     2 dask workers x 1 thread beside 1 x 1
    python benchmarks/label.py memory [--rows 100000 1000000] [--backbone tiny|minilm]     peaks side by side
    python benchmarks/label.py step ingest|label FOLDER ...          one step of `memory`, in a process of its own

`speed` labels one corpus again and again on the embedded backbone, with a dask cluster of one worker process and one
of two, by turns, so that whatever else the machine does falls on both; it prints every time and the medians. There is
one cluster at a time, as an idle one takes some of the two cores. `memory`
makes short rows, ingests and labels them, each step in a new process, and prints the peak of its resident memory for
every number of rows, with rows a second of CPU time (one thread works: the rate of a core that is free) and bytes a
row of what it wrote.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import dask
import torch
from distributed import Client, LocalCluster
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import AutoModelForMaskedLM, BertConfig, PreTrainedTokenizerFast

from listflow.data.corpora.ingest import ingest
from listflow.data.task import Columns
from listflow.flows.labelling.runners import SILENT_DASK, local_cluster
from listflow.pipeline.results.label_worker import label_range
from listflow.pipeline.results.labelling import Labelling
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.self_training import self_train

SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]"]
WORDS = [a + b for a in ("ba", "de", "ki", "lo", "mu", "na", "po", "ri", "su", "ta") for b in "aeiounrst"]
LENGTHS = (4, 12)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    speed = parts.add_parser("speed")
    speed.add_argument("--rows", type=int, default=8000)
    speed.add_argument("--repeats", type=int, default=3)
    memory = parts.add_parser("memory")
    memory.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    memory.add_argument("--backbone", choices=["tiny", "minilm"], default="tiny")
    step = parts.add_parser("step")
    step.add_argument("name", choices=["ingest", "label"])
    step.add_argument("folder", type=Path)
    options = parser.parse_args()
    if options.part == "speed":
        compare_workers(options.rows, options.repeats)
    elif options.part == "memory":
        compare_sizes(options.rows, options.backbone)
    else:
        take_step(options.name, options.folder)


def compare_workers(rows: int, repeats: int) -> None:
    """Prints rows a second of one and of two worker processes, and their ratio."""
    dask.config.set(SILENT_DASK)
    with TemporaryDirectory() as name:
        folder = Path(name)
        run = finished_run(folder, "minilm")
        corpus = folder / "corpus"
        ingest(corpus, [str(rows_file(folder, rows))], Columns(), rows_a_shard=-(-rows // 8))
        taken: dict[int, list[float]] = {1: [], 2: []}
        for repeat in range(repeats):
            for workers, seconds in taken.items():
                out = folder / f"{repeat}-{workers}"
                with LocalCluster(**local_cluster(workers)) as cluster, Client(cluster) as client:
                    load_models(client, run, corpus, out / "warm")
                    seconds.append(labelled(client, run, corpus, out / "labels", range(1, 9)))
    medians = {workers: statistics.median(seconds) for workers, seconds in taken.items()}
    for workers, median in medians.items():
        each = " ".join(f"{seconds:.1f}" for seconds in taken[workers])
        name = f"{workers} worker{'s' * (workers - 1)} x 1 thread"
        print(f"{name:20} {median:7.1f} s  {rows / median:7.0f} rows/s  ({each})")
    what = f"median of {repeats}, {rows:,} rows, minilm fp32, load {os.getloadavg()[0]:.1f}"
    print(f"ratio {medians[1] / medians[2]:.2f} ({what})")


def load_models(client: Client, run: Path, corpus: Path, out: Path) -> None:
    with Labelling.open(run, corpus, out).begun():
        client.run(label_range, run, corpus, out, 1, 1, 1)


def labelled(client: Client, run: Path, corpus: Path, out: Path, shards: Sequence[int]) -> float:
    """Seconds that the workers of ``client`` take for these shards; every one has the model loaded before."""
    with Labelling.open(run, corpus, out).begun():
        began = time.perf_counter()
        futures = [client.submit(label_range, run, corpus, out, n, n, 1, pure=False) for n in shards]
        assert sum(client.gather(futures)) == len(futures)
        return time.perf_counter() - began


def compare_sizes(sizes: Sequence[int], backbone: str) -> None:
    """Prints what each step takes for each number of rows."""
    print("      rows step     peak MB  above start   seconds   CPU s  rows/CPU s bytes a row")
    for rows in sizes:
        with TemporaryDirectory() as name:
            folder = Path(name)
            finished_run(folder, backbone)
            rows_file(folder, rows)
            for step in ("ingest", "label"):
                told = subprocess.run(
                    [sys.executable, __file__, "step", step, name], check=True, stdout=subprocess.PIPE, text=True
                ).stdout
                found = json.loads(told.splitlines()[-1])
                words = (
                    f"{rows:>10,} {step:7} {found['peak']:>8.0f} {found['peak'] - found['start']:>12.0f}",
                    f"{found['seconds']:>9.1f} {found['cpu']:>7.1f} {rows / found['cpu']:>11.0f}",
                    f"{found['bytes'] / rows:>11.1f}",
                )
                print(*words, flush=True)


def take_step(name: str, folder: Path) -> None:
    """Takes one step on the files of ``folder``; prints what it took as JSON, ``start`` being before the first row."""
    run, corpus, out = folder / "run", folder / "corpus", folder / "out"
    if name == "ingest":
        start, began, cpu = peak(), time.perf_counter(), time.process_time()
        ingest(corpus, [str(folder / "rows.jsonl")], Columns())
        made = corpus / "shards"
    else:
        work = Labelling.open(run, corpus, out)
        warm_up(run, folder)
        start, began, cpu = peak(), time.perf_counter(), time.process_time()
        with work.begun():
            label_range(run, corpus, out, 1, work.manifest.last)
        made = out
    size = sum(path.stat().st_size for path in made.glob("*.parquet"))
    taken = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}
    print(json.dumps({"start": start, "peak": peak(), "bytes": size, **taken}))


def warm_up(run: Path, folder: Path) -> None:
    """Loads the model and labels a few rows, so that what comes after is what rows cost."""
    few = folder / "few"
    ingest(few, [str(rows_file(folder, 64, "few.jsonl"))], Columns())
    with Labelling.open(run, few, folder / "few-out").begun():
        label_range(run, few, folder / "few-out", 1, 1)


def peak() -> float:
    """The most resident memory that this process has had, in MB; getrusage would count its parent's as well."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def rows_file(folder: Path, rows: int, name: str = "rows.jsonl") -> Path:
    """A file of short texts, hardly two alike."""
    with (folder / name).open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in texts(rows))
    return folder / name


def texts(rows: int) -> Iterator[str]:
    drawn = random.Random(1)
    for number in range(rows):
        yield " ".join([*drawn.choices(WORDS, k=drawn.randint(*LENGTHS)), str(number)])


def finished_run(folder: Path, backbone: str) -> Path:
    """A run that was trained for a moment: what it says is of no use, what it costs is what any costs."""
    labelled = folder / "labelled.jsonl"
    rows = [{"text": text, "label": ("no", "yes")[i % 2]} for i, text in enumerate(texts(8))]
    labelled.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    name = str(tiny_backbone(folder / "tiny")) if backbone == "tiny" else "minilm"
    task = folder / "task.yaml"
    task.write_text('name: label\ntemplate: "{text} it was {mask}"\nlabels: {"no": bad, "yes": good}\n', "utf-8")
    overlay = {
        "task": str(task), "run_dir": str(folder / "run"),
        "data": {"labelled": str(labelled), "unlabelled": [str(rows_file(folder, 50, "pool.jsonl"))]},
        "backbone": {"name": name, "precision": "fp32", "device": "cpu"},
        "teacher": {"epochs": 1}, "student": {"steps": 5, "tail_epochs": 1}, "rounds": {"count": 1, "sample": 20},
    }  # fmt: skip
    self_train(build_config("fast", overlay))
    return folder / "run"


def tiny_backbone(folder: Path) -> Path:
    """A random masked LM of two layers with a word for a token."""
    torch.manual_seed(0)
    words = [*SPECIAL, "it", "was", "good", "bad", *WORDS]
    raw = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    raw.pre_tokenizer = Whitespace()
    names = ("pad_token", "cls_token", "sep_token", "mask_token", "unk_token")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, **dict(zip(names, SPECIAL, strict=True)))
    size = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 32, "intermediate_size": 64}
    config = BertConfig(**size, max_position_embeddings=64, vocab_size=len(words))
    AutoModelForMaskedLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
