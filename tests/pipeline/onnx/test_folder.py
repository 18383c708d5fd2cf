"""A run as ONNX: the README's own code, with onnxruntime and tokenizers, gives the probabilities of the run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finished_views import PAIRS, code_of, committee_run, finished, saved_backbone, sentence_files
from merged_models import TASK, of
from tiny import CONFIGS

from listflow.data.task import Task
from listflow.pipeline.results.export import export
from listflow.pipeline.results.predictor import Predictor

pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

TEXTS: list[Any] = ["w1 w2 good", "w3 [MASK] w5 w6 poor w7 w8 w9 w10 ", "", "w9", "w1 " * 70, "good \U0001f600 été 中"]
TWO = [
    ("w1 w2 good .", "W3 w4"),
    ("w9 ", "w1 " * 70),
    ("w1 " * 70, "w2 " * 70),
    ("w1 " * 70, "W2"),
    ("w2", ""),
    ("", ""),
]


def check(run: Path, out: Path, monkeypatch: pytest.MonkeyPatch, rows: list[Any]) -> None:
    """All rows at once and one by one, which are of other lengths."""
    export(run, out, "onnx")
    monkeypatch.chdir(out)
    used, predictor = code_of(out), Predictor.open(run)
    given = [(row,) if isinstance(row, str) else row for row in rows]
    expected = predictor.probabilities(rows)
    assert expected.std(0).max() > 1e-3
    np.testing.assert_allclose(used["probabilities"](given), expected, rtol=0, atol=1e-4)
    each = np.concatenate([used["probabilities"]([row]) for row in given])
    np.testing.assert_allclose(each, expected, rtol=0, atol=1e-4)
    assert used["classify"](given) == predictor.predict(rows)


STAGES: list[list[Any]] = [["list"], ["lora"], ["bitfit"], ["none"], ["list", "bitfit"]]


@pytest.mark.parametrize("names", STAGES, ids=str)
def test_every_stage_that_merges(names: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(finished(tmp_path, "bert", of(*names)), tmp_path / "out", monkeypatch, TEXTS)


LIKE_ANOTHER = ["xlm-roberta", "camembert", "ernie", "deberta-v3"]  # the graphs of roberta, bert and deberta-v2
FAMILIES = [name for name in CONFIGS if name not in LIKE_ANOTHER]


@pytest.mark.parametrize("family", [*FAMILIES, *(pytest.param(name, marks=pytest.mark.long) for name in LIKE_ANOTHER)])
def test_both_views_on_every_family(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = committee_run(tmp_path / "run", saved_backbone(tmp_path / "backbone", family), family=family, middle=0.7)
    check(run, tmp_path / "out", monkeypatch, TEXTS)


@pytest.mark.parametrize("views", [("prompt", "text"), ("prompt",), ("text",)], ids="+".join)
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_pairs_at_a_temperature(
    views: tuple[str, ...], temperature: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = saved_backbone(tmp_path / "backbone")
    run = committee_run(tmp_path / "run", backbone, views, PAIRS, temperature=temperature)
    check(run, tmp_path / "out", monkeypatch, TWO)


POOLINGS: list[dict[str, Any]] = [
    {"pooling": {"pooling_mode_cls_token": True}, "normalised": False, "prompts": {"prompts": {"clustering": "w7 "}}},
    {"pooling": {"pooling_mode_max_tokens": True}, "limits": {"max_seq_length": 9, "do_lower_case": True}},
    *({"pooling": {"pooling_mode": mode}} for mode in ("mean_sqrt_len_tokens", "weightedmean", "lasttoken")),
]


@pytest.mark.parametrize("files", POOLINGS, ids=["first", "max", "mean_sqrt", "weighted", "last"])
def test_every_way_to_pool(files: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = sentence_files(saved_backbone(tmp_path / "backbone"), **files)
    check(committee_run(tmp_path / "run", backbone, ("text",)), tmp_path / "out", monkeypatch, TEXTS)


LABELS = {"不好": "bad", "好 😀": "good", 'so "so"': "a bad film", "zzz": None}


def test_labels_in_any_letters_and_of_several_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = TASK.model_copy(update={"labels": LABELS, "template": "été \U0001f600 {text} it's {mask} \\ ."})
    run = finished(tmp_path, "bert", of("list"), task=task)
    check(run, tmp_path / "out", monkeypatch, TEXTS)
    card = json.loads((tmp_path / "out" / "listflow.json").read_text("utf-8"))
    assert [label["label"] for label in card["labels"]] == list(LABELS)


def test_a_committee_is_a_graph_for_each_view_and_the_same_bytes_every_time(tmp_path: Path) -> None:
    run = committee_run(tmp_path / "run", saved_backbone(tmp_path / "backbone"), temperature=2.0)
    for name in ("a", "b"):
        export(run, tmp_path / name, "onnx")
    files = {str(path.relative_to(tmp_path / "a")): path for path in (tmp_path / "a").rglob("*") if path.is_file()}
    own = ("model.onnx", "tokenizer.json", "tokenizer_config.json", "listflow.json", "README.md")
    assert sorted(files) == sorted(
        ["README.md", "listflow.json", *(f"{view}/{name}" for view in ("prompt", "text") for name in own)]
    )
    assert all(path.read_bytes() == (tmp_path / "b" / name).read_bytes() for name, path in files.items())
    assert not [name for name, path in files.items() if str(tmp_path).encode() in path.read_bytes()]
    assert json.loads(files["listflow.json"].read_text()) == {
        "format": 1, "task": "mood", "labels": [{"label": label} for label in TASK.labels],
        "views": [
            {"folder": "prompt", "weight": 0.3, "temperature": 1.3},
            {"folder": "text", "weight": 0.2, "temperature": 0.7},
        ],
    }  # fmt: skip


@pytest.mark.parametrize("views", [("prompt", "text"), ("prompt",), ("text",)], ids="+".join)
def test_the_code_needs_no_more_than_it_says(views: tuple[str, ...], tmp_path: Path) -> None:
    """In a process of its own, which can import neither this project nor torch nor transformers."""
    out = tmp_path / "out"
    export(committee_run(tmp_path / "run", saved_backbone(tmp_path / "backbone"), views), out, "onnx")
    found = re.search(r"```python\n(.*?)```", (out / "README.md").read_text("utf-8"), re.DOTALL)
    assert found is not None
    script = "import sys\nfor name in ('listflow', 'torch', 'transformers'):\n    sys.modules[name] = None\n" + found[1]
    done = subprocess.run([sys.executable, "-I", "-c", script], cwd=out, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in {f"['{label}']" for label in TASK.labels}


REAL: list[Any] = [
    "Where is my parcel? It was due on Monday!", "", "  ", "[MASK] [SEP] [CLS] [PAD]", "I WANT my money back.\nNow.\t",
    "\U0001f600\U0001f600 été 中文 \u0000\u200b", "the card was charged twice, " * 200, "a", "ﬁnal Straße İstanbul",
]  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("task", [TASK, PAIRS], ids=["texts", "pairs"])
def test_the_embedded_backbone(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = committee_run(tmp_path / "run", "minilm", task=task, std=0.01)
    rows = list(zip(REAL, reversed(REAL), strict=True)) if task.is_pair else REAL
    check(run, tmp_path / "out", monkeypatch, rows)
