"""The text view's teacher on disk gives the logits that its label vectors were made for, whatever the face gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from committees import committee_config, more_labels
from tiny import sentences, write_jsonl

from listflow.pipeline.backbone.batch import one_vector_each
from listflow.pipeline.method.information import SCALE
from listflow.pipeline.model.classifier import logits_of
from listflow.pipeline.run.opening import open_run
from listflow.pipeline.run.run import Run
from listflow.pipeline.training import label_vectors
from listflow.pipeline.training.committee import mixture_of, weigh_views
from listflow.pipeline.training.label_vectors import classifier_of
from listflow.pipeline.training.rounds import prompt_tune


def longer(run: Run, factor: float) -> Run:
    """A text view whose face leaves its vectors longer than one, as encoders without a normalising module do."""
    parts = {}
    for name in ("labelled", "corpus"):
        kept = getattr(run, name).features
        parts[name] = one_vector_each(factor * kept.values[kept.starts])
    return replace(run, **parts)


@pytest.mark.parametrize("factor", [1.0, 12.0])
@pytest.mark.parametrize("scale", [10.0, 25.0])
def test_the_classifier_is_what_was_held_out(
    factor: float, scale: float, tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    files = more_labels(tiny_files, tmp_path)
    config = committee_config(files, tmp_path / "run", {"second": {"head": {"scale": scale}}})
    with open_run(config) as run:
        view = longer(run.others[0], factor)
        centre, known = label_vectors._known(view)
        taught = label_vectors.teach(known, [rows.tolist() for rows in label_vectors.folds_of(view)])
        wanted = SCALE * known.labelled @ taught.weight.T + taught.bias
        found = logits_of(classifier_of(view, centre, taught), view.labelled)
    assert torch.allclose(found, wanted, atol=1e-4)


def test_a_view_without_an_opinion_is_not_silenced_for_it(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    rows = [row | {"label": {"negative": "A", "positive": "B"}[row["label"]]} for row in sentences(4, 1)]
    task = tmp_path / "codes.yaml"
    task.write_text('name: codes\ntemplate: "{text} it was {mask} ."\nlabels: {A: good, B: bad}\n', "utf-8")
    files = tiny_files | {"labelled": write_jsonl(tmp_path / "four.jsonl", rows), "task": task}
    config = committee_config(files, tmp_path / "run", {"data": {"test": None}, "mixture": {"smallest": 0.1}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_vectors, "_names", lambda run, head: None)
        with open_run(config) as run:
            for view in run.views:
                prompt_tune(view)
            weigh_views(run)
            prompt, text = mixture_of(run).voices
    assert prompt.weight == pytest.approx(prompt.belief)
    assert text.weight == pytest.approx(text.belief)
    assert text.temperature == 1.0
