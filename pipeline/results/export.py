"""A finished run as a folder of plain transformers files, or of ONNX graphs, with a README whose code needs nothing of
this project.

A run of one view is that view's files. Of two, each has a folder, and the README mixes them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError

from listflow.data.errors import InputError
from listflow.data.files import at_home
from listflow.data.task import Task
from listflow.pipeline.backbone.backbone import Backbone
from listflow.pipeline.backbone.prompt import Prompt
from listflow.pipeline.backbone.text_face import TextFace
from listflow.pipeline.model.committee import Committee, View
from listflow.pipeline.model.merge import check_mergeable, label_tokens, merge
from listflow.pipeline.model.plain import (
    AS_PROMPT,
    AS_TEXT,
    CARD,
    VECTORS,
    prompt_card,
    prompt_readme,
    readme_of_both,
    text_card,
    text_readme,
)
from listflow.pipeline.model.prototypes import Prototypes
from listflow.pipeline.onnx import folder as graphs
from listflow.pipeline.onnx.installed import check_installed
from listflow.pipeline.onnx.readme import readme_of_both as readme_of_both_graphs
from listflow.pipeline.results.finished import Finished
from listflow.pipeline.storage.checkpoint import save_tensors, write_json

README = "README.md"
Form = Literal["transformers", "onnx"]


def export(run_dir: str | Path, out: str | Path, form: Form = "transformers") -> None:
    """Writes the fp32 models of a run, with tokenizer, listflow.json and README.md, to the new folder ``out``.

    Of the prompt view a merged masked LM, whose logits of the label words at the mask are the class logits; of the text
    view the plain encoder and the label vectors. In the form ``onnx`` each is a graph with class logits, which needs
    the extra ``onnx``. InputError where a trained part has no such form, where ``out`` holds something already, where
    the extra is not installed, and as ``Finished.open``.
    """
    out = Path(at_home(out))
    _check_new(out)
    if form == "onnx":
        check_installed()
    run = Finished.open(run_dir)
    _check_plain(run, str(run_dir))
    backbone = run.load_backbone("fp32", "cpu")
    committee = run.committee(backbone)
    with _aside(out) as folder:
        if len(committee.views) == 1:
            _write(run, committee.views[0], backbone, folder, form, committee.temperature)
        else:
            _write_both(run, committee, backbone, folder, form)


def _check_plain(run: Finished, name: str) -> None:
    """Returns when every view of ``run`` has a plain form; else an InputError that names what stands in the way."""
    for view in run.views:
        if view.face == "prompt":
            check_mergeable(view.stage, view.head, name)
        elif view.head.kind != "prototypes":
            raise InputError(
                f"{name} has no form as a plain sentence encoder: head {view.head.kind} is no vector for every class "
                "(head prototypes is). Use the run as it is with `listflow predict`."
            )


def _write_both(run: Finished, committee: Committee, backbone: Backbone, folder: Path, form: Form) -> None:
    """Of a pool of log-probabilities, less weight of every view is a higher temperature of the whole."""
    mixed: list[dict[str, Any]] = []
    for view in committee.views:
        name = AS_PROMPT if isinstance(view.encoder, Prompt) else AS_TEXT
        (folder / name).mkdir()
        _write(run, view, backbone, folder / name, form)
        weight = view.weight / committee.temperature
        mixed.append({"folder": name, "weight": weight, "temperature": view.temperature})
    prompt, face = (view.encoder for view in committee.views)
    assert isinstance(prompt, Prompt)
    assert isinstance(face, TextFace)
    labels = [{"label": label} for label in run.task.labels]
    write_json(folder / CARD, {"format": 1, "task": run.task.name, "labels": labels, "views": mixed})
    readme = readme_of_both if form == "transformers" else readme_of_both_graphs
    (folder / README).write_text(readme(prompt, face), "utf-8")


def _write(run: Finished, view: View, backbone: Backbone, folder: Path, form: Form, temperature: float = 1.0) -> None:
    if isinstance(view.encoder, Prompt):
        words = run.word_ids(backbone)
        merged, tokens = merge(view.model, backbone, words), label_tokens(words, backbone)
        write = _write_prompt if form == "transformers" else graphs.write_prompt
        write(view, view.encoder, merged, tokens, folder, temperature)
    else:
        write_text = _write_text if form == "transformers" else graphs.write_text
        write_text(view, view.encoder, run.task, folder, temperature)


def _write_prompt(
    view: View, prompt: Prompt, merged: Backbone, tokens: Sequence[int], folder: Path, temperature: float
) -> None:
    merged.model.save_pretrained(folder)
    merged.tokenizer.save_pretrained(folder)
    write_json(folder / CARD, prompt_card(prompt, tokens, temperature))
    (folder / README).write_text(prompt_readme(prompt, temperature), "utf-8")


def _write_text(view: View, face: TextFace, task: Task, folder: Path, temperature: float) -> None:
    head = view.model.head
    assert isinstance(head, Prototypes)
    face.encoder.save_pretrained(folder)  # type: ignore[operator]
    face.tokenizer.save_pretrained(folder)
    scale, bias = torch.tensor(head.scale / temperature), head.out.bias / temperature
    own = {"centre": head.centre, "weight": head.out.weight, "bias": bias, "scale": scale}
    if face.middle:
        own["middle"] = torch.tensor(head.config.middle)
    save_tensors(folder / VECTORS, {name: value.detach() for name, value in own.items()})
    write_json(folder / CARD, text_card(task, face))
    (folder / README).write_text(text_readme(task, face), "utf-8")


def _check_new(out: Path) -> None:
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"{out} exists and is not an empty folder; choose another --output, or move it away.")


@contextmanager
def _aside(out: Path) -> Iterator[Path]:
    """A folder to fill, which appears at ``out`` at the end of the block: never half of it."""
    whole = out.resolve()
    aside = whole.with_name(f".{whole.name}.part")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        yield aside
        os.replace(aside, whole)
    except InputError:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    except (OSError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise InputError(f"cannot write {out} ({error}); make room for it or choose another --output.") from error
