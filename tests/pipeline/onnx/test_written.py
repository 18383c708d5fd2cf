"""A graph that is not what the view says is refused in one sentence, and nothing of it is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from finished_views import committee_run, finished, saved_backbone
from merged_models import VERBALIZER, of
from torch import Tensor

from listflow.data.errors import InputError
from listflow.pipeline.onnx.graphs import PromptGraph, TextGraph
from listflow.pipeline.results.export import export

pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")


@pytest.mark.parametrize(
    ("names", "head", "said"),
    [
        (["houlsby"], VERBALIZER, "a relu bottleneck"),
        (["prefix"], VERBALIZER, "a prefix"),
        (["none"], {"kind": "linear"}, "head linear"),
    ],
)
def test_what_does_not_merge_has_no_graph(names: list[str], head: dict[str, Any], said: str, tmp_path: Path) -> None:
    run = finished(tmp_path, "bert", of(*names), head)
    with pytest.raises(InputError, match=rf"{said}.*`listflow predict`\.$"):
        export(run, tmp_path / "out", "onnx")
    assert not (tmp_path / "out").exists()


def untraceable(graph: Any, *given: Tensor) -> Tensor:
    return torch.fft.fft(given[1].float()).real


def off_by_a_little(graph: Any, *given: Tensor) -> Tensor:
    right: Tensor = RIGHT[type(graph)](graph, *given)
    return right + torch.arange(right.shape[1]) * 2e-3


def fixed_in_length(graph: Any, *given: Tensor) -> Tensor:
    ids, attention = given[0][:, :8], given[1][:, :8]
    found: Tensor = RIGHT[type(graph)](graph, ids, attention, *given[2:])
    return found


def fixed_in_number(graph: Any, *given: Tensor) -> Tensor:
    rows = torch.arange(len(given[0]))
    found: Tensor = RIGHT[type(graph)](graph, *given)
    return found[rows]


RIGHT: dict[Any, Any] = {kind: kind.forward for kind in (PromptGraph, TextGraph)}


@pytest.mark.parametrize("kind", [PromptGraph, TextGraph])
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (untraceable, "torch .*"),
        (off_by_a_little, "onnxruntime finds other probabilities, by up to"),
        (fixed_in_number, "onnxruntime: .*"),
        (fixed_in_length, "onnxruntime finds other probabilities, by up to"),
    ],
)
def test_a_graph_that_is_not_the_view_is_refused(
    wrong: Any, said: str, kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kind, "forward", wrong)
    view = {PromptGraph: "prompt", TextGraph: "text"}[kind]
    run = committee_run(tmp_path / "run", saved_backbone(tmp_path / "backbone"))
    with pytest.raises(InputError, match=rf"the {view} view has no form as ONNX here \({said}.*--format transformers"):
        export(run, tmp_path / "out", "onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backbone", "run"]
    monkeypatch.undo()
    export(run, tmp_path / "out", "onnx")


def test_nothing_is_left_by_half_where_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    run = finished(tmp_path, "bert", of("list"))
    with monkeypatch.context() as patch:
        patch.setattr(torch.onnx, "export", full)
        with pytest.raises(InputError, match=r"cannot write .*No space left"):
            export(run, tmp_path / "out", "onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backbone", "run"]
