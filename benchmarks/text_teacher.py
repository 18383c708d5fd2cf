"""What the text teacher is worth without each of its parts, before any round: accuracy on draws for choosing.

    python benchmarks/text_teacher.py DATA [--tasks sst2 subj ...] [--draws 11 12 13] [--layers 2 3 4 5]

One text a row. `whole` is the teacher as a run makes it; `labels` without the pool, `pool` of refined candidates
alone, `no names`, `embedding` without the middle layer; `layer N` with that layer in its place. `lr` is logistic
regression (C = 10) on the same features. Embeddings are kept by the digest of their file.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from peer_data import Draw, draw_of, lines_of
from peers import task_of
from real import OUT
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from listflow.data.files import file_digest
from listflow.data.task import Task, load_task
from listflow.pipeline.backbone.backbone import load_backbone
from listflow.pipeline.backbone.batch import Batch
from listflow.pipeline.backbone.pooling import Pooling
from listflow.pipeline.backbone.text_face import TextFace, text_face_of
from listflow.pipeline.method import label_vectors
from listflow.pipeline.method.gate import stratified
from listflow.pipeline.method.information import SCALE
from listflow.pipeline.method.label_vectors import Known, centre_of, teach
from listflow.pipeline.method.sampling import generator_for
from listflow.pipeline.model.config import PrototypesHead
from listflow.pipeline.model.label_names import label_sentences
from listflow.pipeline.model.prototypes import around, at_length

TASKS = ("sst2", "subj", "mpqa", "agnews", "sms_spam", "trec", "tweet_emotion", "banking77")


class Faces:
    """Vectors of the texts of draws, by layer: 0 is the sentence embedding, N the mean of the tokens of layer N."""

    def __init__(self) -> None:
        self.backbone = load_backbone("minilm")
        own = text_face_of(self.backbone, 128)
        self.face = EveryLayer(own.encoder, own.tokenizer, own.pooling, own.max_length)

    def of(self, texts: list[str], layer: int) -> Tensor:
        return self._all(texts)[:, layer]

    def of_file(self, path: Path, layer: int) -> Tensor:
        kept = OUT / "layers" / f"{file_digest(path)[:16]}.npy"
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            np.save(kept, self._all([line["text"] for line in lines_of(path)]).numpy())
        return torch.from_numpy(np.array(np.load(kept, mmap_mode="r", allow_pickle=False)[:, layer]))

    def _all(self, texts: list[str]) -> Tensor:
        found = self.face.vectors([(text, None) for text in texts])
        return found.view(len(texts), -1, self.face.hidden_size)


class EveryLayer(TextFace):
    """A text face that gives its embedding, and beside it the unit mean of the tokens of each layer."""

    def width(self, is_pair: bool) -> int:
        return self.hidden_size * (1 + self.encoder.config.num_hidden_layers)

    def _embed(self, batch: Batch) -> Tensor:
        said = self.encoder(input_ids=batch.ids, attention_mask=batch.attention, output_hidden_states=True)
        layers = [Pooling().pool(hidden, batch.attention) for hidden in said.hidden_states[1:]]
        return torch.cat([self.pooling.pool(said.last_hidden_state, batch.attention), *layers], dim=-1)


def taught(rows: Draw, faces: Faces, layer: int | None, kind: str) -> float:
    """Accuracy of one teacher on the rows of the draw that are measured, in percent."""
    labelled, test = lines_of(rows.labelled), lines_of(rows.test)
    task = _task(rows.task, sorted({line["label"] for line in labelled}))
    labels = list(task.labels)
    gold, wanted = (torch.tensor([labels.index(str(line["label"])) for line in lines]) for lines in (labelled, test))
    head = PrototypesHead(middle=0.0 if layer is None else 0.5)
    e, pool, x = (_joined([faces.of_file(path, n) for n in _layers(layer)], head) for path in _files(rows))
    centre = centre_of(e, gold)
    e, pool, x = (around(part, centre, head) for part in (e, pool, x))
    if kind == "lr":
        model = LogisticRegression(C=10, max_iter=1000).fit(e.numpy(), gold.numpy())
        return 100 * float((model.predict(x.numpy()) == wanted.numpy()).mean())
    names = None if kind == "no names" else _names(task, faces, layer, head)
    drawn = np.sort(generator_for(rows.number, "information").permutation(len(pool))[:2000])
    known = Known(e, gold, pool[drawn], names, len(labels))
    folds = [part.tolist() for part in stratified(gold.numpy(), 5, generator_for(rows.number, "folds"))]
    recipes = tuple(recipe for recipe in label_vectors.RECIPES if recipe.rate or kind != "pool")
    with patch.object(label_vectors, "RECIPES", recipes):
        made = teach(known, folds, with_pool=kind != "labels")
    return 100 * float(((SCALE * x @ made.weight.T + made.bias).argmax(-1) == wanted).float().mean())


def _names(task: Task, faces: Faces, layer: int | None, head: PrototypesHead) -> Tensor:
    ways = list(zip(*label_sentences(task, faces.backbone.tokenizer), strict=True))
    said = [_joined([faces.of(list(way), n) for n in _layers(layer)], head) for way in ways]
    return F.normalize(torch.stack([around(way, way.mean(0), head) for way in said]).mean(0), dim=-1)


def _task(name: str, labels: list[str]) -> Task:
    known = task_of(name)
    return load_task(known) if known else Task(name=name, template="{mask} {text}", labels=dict.fromkeys(labels))


def _layers(layer: int | None) -> list[int]:
    return [0] if layer is None else [0, layer]


def _joined(parts: list[Tensor], head: PrototypesHead) -> Tensor:
    return at_length(torch.cat(parts, dim=-1), head)


def _files(rows: Draw) -> tuple[Path, Path, Path]:
    return rows.labelled, rows.pool, rows.test


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--draws", nargs="+", type=int, default=[11, 12, 13])
    parser.add_argument("--layers", nargs="*", type=int, default=[2, 3, 4, 5])
    options = parser.parse_args()
    faces = Faces()
    middle = (1 + faces.backbone.n_layers) // 2
    ways = {kind: (middle, kind) for kind in ("whole", "labels", "pool", "no names", "lr")}
    ways |= {"embedding": (None, "whole"), "lr on embedding": (None, "lr")}
    ways |= {f"layer {layer}": (layer, "whole") for layer in options.layers if layer != middle}
    print("| | " + " | ".join(options.tasks) + " | mean |")
    print("|---" * (len(options.tasks) + 2) + "|")
    for name, (layer, kind) in ways.items():
        found = [
            mean(taught(draw_of(options.data, task, number), faces, layer, kind) for number in options.draws)
            for task in options.tasks
        ]
        print(f"| {name} | " + " | ".join(f"{value:.1f}" for value in (*found, mean(found))) + " |", flush=True)


if __name__ == "__main__":
    main()
