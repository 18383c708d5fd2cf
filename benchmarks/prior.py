"""What moving the round-0 teacher's class shares does: not at all, where the labels allow it, always to equal.

    python benchmarks/prior.py DATA [--tasks sst2 subj mpqa agnews sms_spam] [--draws 1 2 3]

For each draw: accuracy on 500 unlabelled rows (their labels are used here only) and on 500 test rows, with the
teacher's logits as they are, shifted to equal shares where that is within one standard error of the labelled log
odds, and always shifted to equal shares; and the zero-shot accuracy with and without ``head.centre``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from real import SHOTS, TASKS, labelled_file
from torch import Tensor

from listflow.data.task import Task, load_task
from listflow.pipeline.backbone.backbone import Backbone, load_backbone
from listflow.pipeline.backbone.batch import Encoded
from listflow.pipeline.backbone.prompt import Prompt
from listflow.pipeline.method.soft_labels import shift_to, standard_errors
from listflow.pipeline.model.classifier import Classifier, logits_of
from listflow.pipeline.model.config import VerbalizerHead
from listflow.pipeline.model.verbalizer import label_word_ids
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.training.trainer import Material, Recipe, Trainer

ROWS = 500


def read(path: Path, task: Task, prompt: Prompt, seed: int | None) -> tuple[Encoded, Tensor]:
    """(texts, gold classes) of a file, or of ``ROWS`` of its rows."""
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    if seed is not None:
        rows = [rows[i] for i in np.random.default_rng(seed).permutation(len(rows))[:ROWS]]
    gold = torch.tensor([list(task.labels).index(row["label"]) for row in rows])
    return prompt.encode([(row["text"], None) for row in rows]), gold


def shifts(logits: Tensor, gold: Tensor) -> dict[str, Tensor]:
    """(C,) shifts of the teacher's logits towards equal class shares."""
    classes = logits.shape[1]
    equal = shift_to(logits, torch.full((classes,), 1 / classes))
    equal = equal - equal.mean()
    within = bool((equal.abs() <= standard_errors(gold, classes)).all())
    return {"as is": torch.zeros(classes), "within": equal if within else torch.zeros(classes), "equal": equal}


def compare(data: Path, name: str, draw: int, backbone: Backbone) -> None:
    """Prints one line for one draw of a task."""
    task, config = load_task(name), build_config("fast").teacher
    prompt = Prompt(task, backbone.tokenizer, 128)
    labelled, gold = read(labelled_file(data, name, draw), task, prompt, None)
    pool, pool_gold = read(data / name / "train.jsonl", task, prompt, 0)
    test, test_gold = read(data / name / "test.jsonl", task, prompt, 0)
    words = label_word_ids(task, backbone.tokenizer)
    model = Classifier(backbone, build_config("fast").stage, VerbalizerHead(), words, draw)
    raw, offset = logits_of(model, test), logits_of(model, pool).mean(0)
    steps = config.epochs * -(-SHOTS // config.batch)
    recipe = Recipe((("labelled", steps),), config.learning_rate, 1, config.batch, seed=draw)
    Trainer(model, recipe, Material(labelled, gold)).run()
    on_pool, on_test = logits_of(model, pool), logits_of(model, test)

    def right(logits: Tensor, wanted: Tensor) -> str:
        return f"{100 * (logits.argmax(-1) == wanted).float().mean():5.1f}"

    cells = [f"zero-shot {right(raw, test_gold)}, centred {right(raw - offset, test_gold)}"]
    for kind, shift in shifts(on_pool, gold).items():
        cells.append(f"{kind}: pool {right(on_pool + shift, pool_gold)} test {right(on_test + shift, test_gold)}")
    print(f"{name:9s} {draw}  " + " | ".join(cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--draws", nargs="+", type=int, default=[1, 2, 3])
    options = parser.parse_args()
    backbone = load_backbone("minilm")
    for name in options.tasks:
        for draw in options.draws:
            compare(options.data, name, draw, backbone)


if __name__ == "__main__":
    main()
