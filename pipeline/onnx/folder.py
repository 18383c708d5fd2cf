"""The folder of a view as ONNX: model.onnx, the tokenizer, listflow.json and a README.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from listflow.data.task import Task
from listflow.pipeline.backbone.backbone import Backbone
from listflow.pipeline.backbone.prompt import Prompt
from listflow.pipeline.backbone.text_face import TextFace
from listflow.pipeline.model.committee import View
from listflow.pipeline.model.plain import CARD
from listflow.pipeline.model.prototypes import Prototypes
from listflow.pipeline.onnx.graphs import PromptGraph, TextGraph
from listflow.pipeline.onnx.readme import GRAPH, prompt_card, prompt_readme, text_card, text_readme
from listflow.pipeline.onnx.written import write_graph
from listflow.pipeline.storage.checkpoint import write_json


def write_prompt(
    view: View, prompt: Prompt, merged: Backbone, tokens: Sequence[int], folder: Path, temperature: float
) -> None:
    """The merged masked LM of ``view``, which scores ``tokens`` alone, at a ``temperature``; see ``write_graph``."""
    graph = PromptGraph(merged, tokens, temperature)
    write_graph(graph, view, folder / GRAPH, prompt.task, temperature)
    merged.tokenizer.save_pretrained(folder)
    write_json(folder / CARD, prompt_card(prompt))
    (folder / "README.md").write_text(prompt_readme(prompt), "utf-8")


def write_text(view: View, face: TextFace, task: Task, folder: Path, temperature: float) -> None:
    """The encoder and the label vectors of ``view``, at a ``temperature``; see ``write_graph``."""
    head = view.model.head
    assert isinstance(head, Prototypes)
    write_graph(TextGraph(face, head, temperature), view, folder / GRAPH, task, temperature)
    face.tokenizer.save_pretrained(folder)
    write_json(folder / CARD, text_card(task, face))
    (folder / "README.md").write_text(text_readme(task, face), "utf-8")
