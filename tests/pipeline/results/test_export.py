"""An exported model is plain transformers, and scores label words as the run scores classes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from finished_views import PAIRS, code_of, committee_run, finished, saved_backbone, sentence_files
from merged_models import LEARNED, TASK, VERBALIZER, backbone_of, of
from tiny import CONFIGS
from transformers import AutoModelForMaskedLM

from listflow.data.errors import InputError
from listflow.data.task import Task
from listflow.pipeline.results import export as plain_model
from listflow.pipeline.results.export import export
from listflow.pipeline.results.predictor import Predictor
from listflow.pipeline.stages.config import AnyStage
from listflow.pipeline.stages.presets import stages
from listflow.pipeline.storage.checkpoint import new_folder, write_json

TEXTS: list[Any] = ["w1 w2 good", "w3 [MASK] w5 w6 poor w7 w8 w9 w10 ", "w9", "w1 " * 70]
TWO = [("w1 w2 good .", "W3 w4"), ("w9 ", "w1 " * 70), ("w1 " * 70, "w2 " * 70), ("w1 " * 70, "W2"), ("", "w1")]


def check(run: Path, out: Path, monkeypatch: pytest.MonkeyPatch, texts: list[Any], tolerance: float = 1e-5) -> None:
    """The README's own code gives the logits and labels of the run."""
    export(run, out)
    monkeypatch.chdir(out)
    used, predictor = code_of(out), Predictor.open(run)
    rows = [(text,) if isinstance(text, str) else text for text in texts]
    batch = used["tokenizer"].pad({"input_ids": [used["encode"](*row) for row in rows]}, return_tensors="pt")
    with torch.no_grad():
        logits = used["model"](**batch).logits[batch["input_ids"] == used["tokenizer"].mask_token_id]
    found = logits[:, [label["token_id"] for label in used["card"]["labels"]]]
    expected = torch.from_numpy(predictor.logits(texts))
    assert expected.std(0).min() > 1e-3
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    assert used["classify"](rows) == predictor.predict(texts)
    torch.testing.assert_close(used["probabilities"](rows), torch.from_numpy(predictor.probabilities(texts)))


EVERYWHERE = ["list", {"kind": "list", "layers": "top:1"}, {"kind": "list", "bias": True, **LEARNED}, "none"]
BIASED = ["bitfit", {"kind": "bitfit", "layers": "top:1"}]
MAPS = ["attention_query", "attention_key", "attention_value", "ffn_intermediate"]
UNSHARED = [family for family in [*CONFIGS, "deberta-v3"] if family != "albert"]  # ALBERT's layers are one
CASES: list[tuple[str, Any]] = [
    *(
        (family, [case])
        for family in UNSHARED
        for case in EVERYWHERE
        if (family, case) != ("modernbert", EVERYWHERE[2])
    ),
    *((family, [case]) for family in UNSHARED for case in BIASED if family != "modernbert"),
    *((family, ["list", "bitfit"]) for family in UNSHARED if family != "modernbert"),
    *((family, [{"kind": "lora", "place": MAPS}]) for family in ("bert", "roberta", "distilbert", "electra", "mpnet")),
    *((family, [{"kind": "lora", "place": ["attention_value"]}]) for family in ("deberta-v2", "deberta-v3")),
    ("albert", ["none"]),
    ("bert", ["lora"]),
    ("bert", ["bitfit", "list"]),
    ("bert", ["list", "list"]),
    (
        "bert",
        [
            {"kind": "lora", "place": MAPS, "bias": True, **LEARNED},
            "bitfit",
            {"kind": "list", "place": ["attention_query"]},
        ],
    ),
]


@pytest.mark.parametrize(("family", "names"), CASES, ids=str)
def test_label_words_score_as_the_classes_did(
    family: str, names: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(finished(tmp_path, family, of(*names)), tmp_path / "out", monkeypatch, TEXTS)
    _, info = AutoModelForMaskedLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values())


def test_a_pair_is_read_cut_and_lowered_as_in_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(finished(tmp_path, "bert", of("list"), task=PAIRS), tmp_path / "out", monkeypatch, TWO)


LONG = {"no": "a bad film", "yes": "good", "so": None, "zzz": None, "yyy": None, "fine good": None}


@pytest.mark.parametrize("family", [*CONFIGS, "deberta-v3"])
def test_labels_without_a_token_of_their_own_get_one_behind_the_vocabulary(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Words of several tokens, unknown ones, and a word whose known part is another label's."""
    task = TASK.model_copy(update={"labels": LONG | {"good zzz": None}})
    stage = of("list" if family in UNSHARED else "none")
    check(finished(tmp_path, family, stage, task=task), tmp_path / "out", monkeypatch, TEXTS, tolerance=1e-4)
    size = len(backbone_of(family).word_rows)
    card = json.loads((tmp_path / "out" / "listflow.json").read_text())
    assert [label["token_id"] for label in card["labels"]] == [size, 5, *range(size + 1, size + 6)]
    assert [label["word"] for label in card["labels"]][:3] == ["a bad film", "good", "so"]
    model, info = AutoModelForMaskedLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values())
    assert model.config.vocab_size == len(model.get_input_embeddings().weight) == size + 6
    start = backbone_of(family).word_rows
    assert torch.equal(model.get_input_embeddings().weight[:size], start)
    torch.testing.assert_close(model.get_input_embeddings().weight[size], start[[13, 6, 9]].mean(0))


def test_the_folder_is_small_talk_and_plain_files(tmp_path: Path) -> None:
    export(finished(tmp_path, "bert", of("list")), tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "listflow.json", "README.md"} <= names
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backbone", "out", "run"]
    assert all(str(tmp_path) not in path.read_text() for path in (tmp_path / "out").glob("*.json"))
    card = json.loads((tmp_path / "out" / "listflow.json").read_text())
    assert card["labels"][0] == {"label": "no", "word": "bad", "token_id": 6}
    assert (card["task"], card["template"], card["max_length"]) == ("mood", TASK.template, 48)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["tie_word_embeddings"], config["dtype"]) == (False, "float32")


@pytest.mark.parametrize(
    ("chosen", "head", "said"),
    [
        (of("houlsby"), VERBALIZER, r"a relu bottleneck at attention_output and ffn_output is no linear map"),
        (of({"kind": "list", "form": "gelu"}), VERBALIZER, "a gelu bottleneck"),
        (of("prefix"), VERBALIZER, "a prefix"),
        (of("mam"), VERBALIZER, "a prefix .*; a relu bottleneck at ffn_output"),
        (of({"kind": "multihead_parallel", "form": "linear"}), VERBALIZER, "place attention_heads"),
        (of({"kind": "list", "place": ["embeddings"]}), VERBALIZER, "place embeddings"),
        (of({"kind": "lora", "place": ["attention_query", "ffn_output"]}), VERBALIZER, "change at ffn_output reads"),
        (stages("soft_prompt", tokens=3), VERBALIZER, "3 pseudo tokens"),
        (of("none"), {"kind": "linear"}, "head linear"),
        (of("list"), {"kind": "ytuning", "width": 16}, "head ytuning"),
    ],
)
def test_what_cannot_be_merged_says_so(
    chosen: tuple[AnyStage, ...], head: dict[str, Any], said: str, tmp_path: Path
) -> None:
    run = finished(tmp_path, "bert", chosen, head)
    with pytest.raises(InputError, match=rf"{said}.*`listflow predict`\.$"):
        export(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_bias_for_a_map_without_one_is_refused(tmp_path: Path) -> None:
    run = finished(tmp_path, "modernbert", of({"kind": "list", "bias": True}))
    with pytest.raises(InputError, match="has none, so they cannot be merged"):
        export(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten_and_nothing_left_by_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, out = finished(tmp_path, "bert", of("list")), tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="is not an empty folder"):
        export(run, out)
    (out / "mine.txt").unlink()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(plain_model, "write_json", full)
        with pytest.raises(InputError, match="No space left"):
            export(run, out)
    assert not any(out.iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backbone", "out", "run"]
    export(run, out)
    assert (out / "README.md").exists()


POOLINGS: list[dict[str, Any]] = [
    {},
    {"pooling": {"pooling_mode_cls_token": True}, "normalised": False, "prompts": {"prompts": {"clustering": "w7 "}}},
    {"pooling": {"pooling_mode_max_tokens": True}, "limits": {"max_seq_length": 9, "do_lower_case": True}},
    *({"pooling": {"pooling_mode": mode}} for mode in ("mean_sqrt_len_tokens", "weightedmean", "lasttoken")),
]


def read_by(folder: Path, rows: list[Any], monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """What the README's own code makes of rows."""
    monkeypatch.chdir(folder)
    given = [(row,) if isinstance(row, str) else row for row in rows]
    found: torch.Tensor = code_of(folder)["probabilities"](given)
    assert code_of(folder)["classify"](given) == [
        json.loads((folder / "listflow.json").read_text())["labels"][best]["label"] for best in found.argmax(-1)
    ]
    return found


@pytest.mark.parametrize("views", [("prompt", "text"), ("text",)], ids="+".join)
@pytest.mark.parametrize("files", POOLINGS, ids=["mean", "first", "max", "mean_sqrt", "weighted", "last"])
@pytest.mark.parametrize(("task", "rows"), [(TASK, TEXTS), (PAIRS, TWO)], ids=["texts", "pairs"])
def test_two_views_and_the_text_view_alone_are_read_as_in_the_run(
    task: Task, rows: list[Any], files: dict[str, Any], views: tuple[str, ...], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    backbone = saved_backbone(tmp_path / "backbone")
    if files:
        sentence_files(backbone, **files)
    run, out = committee_run(tmp_path / "run", backbone, views, task), tmp_path / "out"
    export(run, out)
    expected = torch.from_numpy(Predictor.open(run).probabilities(rows))
    assert expected.std(0).max() > 1e-3
    torch.testing.assert_close(read_by(out, rows, monkeypatch), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("views", [("prompt", "text"), ("prompt",), ("text",)], ids="+".join)
def test_a_cooled_model_is_exported_as_cool(
    views: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = saved_backbone(tmp_path / "backbone")
    found = {}
    for temperature in (1.0, 2.5):
        run, out = tmp_path / f"run {temperature}", tmp_path / f"out {temperature}"
        export(committee_run(run, backbone, views, temperature=temperature), out)
        found[temperature] = torch.from_numpy(Predictor.open(run).probabilities(TEXTS))
        torch.testing.assert_close(read_by(out, TEXTS, monkeypatch), found[temperature], rtol=0, atol=1e-5)
    torch.testing.assert_close((found[1.0].log() / 2.5).softmax(-1), found[2.5], rtol=0, atol=1e-5)


@pytest.mark.parametrize("middle", [0.0, 0.7])
@pytest.mark.parametrize("family", [*CONFIGS, "deberta-v3"])
def test_every_family_has_a_plain_committee(
    family: str, middle: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    backbone, out = saved_backbone(tmp_path / "backbone", family), tmp_path / "out"
    run = committee_run(tmp_path / "run", backbone, family=family, middle=middle)
    export(run, out)
    expected = torch.from_numpy(Predictor.open(run).probabilities(TEXTS))
    capfd.readouterr()
    torch.testing.assert_close(read_by(out, TEXTS, monkeypatch), expected, rtol=0, atol=1e-4)
    assert "newly initialized" not in "".join(capfd.readouterr())


def test_a_committee_is_a_folder_for_each_view(tmp_path: Path) -> None:
    backbone, out = saved_backbone(tmp_path / "backbone"), tmp_path / "out"
    run = committee_run(tmp_path / "run", backbone)
    export(run, out)
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "listflow.json", "prompt", "text"]
    assert json.loads((out / "listflow.json").read_text()) == {
        "format": 1, "task": "mood", "labels": [{"label": label} for label in TASK.labels],
        "views": [
            {"folder": "prompt", "weight": 0.6, "temperature": 1.3},
            {"folder": "text", "weight": 0.4, "temperature": 0.7},
        ],
    }  # fmt: skip
    own = {"config.json", "model.safetensors", "tokenizer.json", "label_vectors.safetensors", "listflow.json"}
    assert own | {"README.md"} <= {path.name for path in (out / "text").iterdir()}
    assert all(str(tmp_path) not in path.read_text() for path in out.rglob("*.json"))
    for view in ("prompt", "text"):
        alone = committee_run(tmp_path / f"{view}-run", backbone, (view,))
        export(alone, tmp_path / view)
        files = {path.name: path.read_bytes() for path in (tmp_path / view).iterdir()}
        assert files == {path.name: path.read_bytes() for path in (out / view).iterdir()}


def test_the_code_needs_no_more_than_it_says(tmp_path: Path) -> None:
    """In a process of its own, which cannot import this project."""
    backbone, out = saved_backbone(tmp_path / "backbone"), tmp_path / "out"
    export(committee_run(tmp_path / "run", backbone), out)
    found = re.search(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)
    assert found is not None
    script = "import sys\nsys.modules['listflow'] = None\n" + found[1]
    done = subprocess.run([sys.executable, "-I", "-c", script], cwd=out, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in {f"['{label}']" for label in TASK.labels}


def test_a_committee_whose_prompt_cannot_be_merged_says_so(tmp_path: Path) -> None:
    backbone = saved_backbone(tmp_path / "backbone")
    run = committee_run(tmp_path / "run", backbone)
    with new_folder(tmp_path / "other" / "final", {}) as aside:
        shutil.copy(run / "final" / "weights.safetensors", aside)
        card = json.loads((run / "final" / "model.json").read_text())
        card["views"][0]["stage"][0]["form"] = "gelu"
        write_json(aside / "model.json", card)
    with pytest.raises(InputError, match=r"a gelu bottleneck.*`listflow predict`\.$"):
        export(tmp_path / "other", tmp_path / "out")


def test_a_head_on_the_text_face_that_has_no_vectors_says_so(tmp_path: Path) -> None:
    run = committee_run(tmp_path / "run", saved_backbone(tmp_path / "backbone"), ("text",))
    with new_folder(tmp_path / "other" / "final", {}) as aside:
        shutil.copy(run / "final" / "weights.safetensors", aside)
        card = json.loads((run / "final" / "model.json").read_text())
        card["views"][0]["head"] = {"kind": "linear"}
        write_json(aside / "model.json", card)
    with pytest.raises(InputError, match=r"head linear is no vector for every class.*`listflow predict`\.$"):
        export(tmp_path / "other", tmp_path / "out")
    assert not (tmp_path / "out").exists()
