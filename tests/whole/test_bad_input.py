"""What a person may get wrong: one clear sentence, or a run that ends with a notice and with figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from tiny import sentences, tiny_overlay, write_jsonl

from listflow.data.errors import InputError
from listflow.pipeline.run.config import RunConfig
from listflow.pipeline.run.opening import open_run
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.run.status import find_runs
from listflow.pipeline.self_training import self_train
from listflow.pipeline.storage.checkpoint import load_tensors

TASK = 'name: tiny\ntemplate: "{text} it was {mask} ."\n'
SAME = [{"text": "w1 w2 fine w3"}] * 30
THREE = "labels: {negative: bad, positive: good, neither: not very}\n"
HEADS: dict[str, Any] = {
    "verbalizer": {},
    "linear": {"head": {"kind": "linear"}},
    "ytuning": {"head": {"kind": "ytuning", "width": 16}},
    "gated": {"rounds": {"promote": "gated"}},
}


def config_of(files: dict[str, Path], folder: Path, task: str | None = None, **changes: Any) -> RunConfig:
    """``task``: the labels and what follows them of a task file; None: no task file."""
    if task is not None:
        (folder / "task.yaml").write_text(TASK + task, "utf-8")
        files = files | {"task": folder / "task.yaml"}
    overlay = tiny_overlay(files, folder / "run") | ({"task": None} if task is None else {})
    return build_config("fast", overlay, changes)


def trained(config: RunConfig) -> list[str]:
    """The notices of a whole run, of which every weight and every probability is a number."""
    report = self_train(config)
    folder = Path(str(config.run_dir))
    for path in folder.rglob("*.safetensors"):
        for name, value in load_tensors(path).items():
            assert bool(value.isfinite().all()), (path, name)
    table = pq.read_table(folder / "predictions.parquet")
    columns = [name for name in table.column_names if name.startswith("p_")]
    assert len(columns) >= 2
    assert np.isfinite([table[name].to_numpy() for name in columns]).all()
    return list(report.notices)


@pytest.mark.parametrize(("rows", "head"), [(30, "verbalizer"), (30, "linear"), (1, "ytuning"), (1, "gated")])
def test_a_pool_that_teaches_nothing_trains_and_is_said(
    drawn: None, rows: int, head: str, tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    """A label without a row, and of a name of two tokens, beside it."""
    files = tiny_files | {"unlabelled": write_jsonl(tmp_path / "pool.jsonl", SAME[:rows])}
    notices = trained(config_of(files, tmp_path, THREE, **HEADS[head]))
    assert any("fewer than the 3 labels" in notice for notice in notices)
    assert any("No labelled row has the label 'neither'" in notice for notice in notices)


def test_fewer_shots_than_labels_train_and_are_said(drawn: None, tiny_files: dict[str, Path], tmp_path: Path) -> None:
    labels = "labels: [negative, positive, zzz, good, bad]\n"
    notices = trained(config_of(tiny_files, tmp_path, labels, data={"shots": 2}))
    assert "2 rows are not enough for 5 labels, draw at least 5 with --shots." in next(
        notice for notice in notices if "No labelled row" in notice
    )


def test_one_class_alone_is_refused(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    rows = [row | {"label": "good"} for row in sentences(4, 1)]
    files = tiny_files | {"labelled": write_jsonl(tmp_path / "one.jsonl", rows)}
    with pytest.raises(InputError, match=r"all rows have the label 'good'; add rows of another class\.$"):
        self_train(config_of(files, tmp_path))
    with pytest.raises(InputError, match="all have the label 'good'; add rows of another class"):
        self_train(config_of(files, tmp_path, "labels: [good, bad]\n"))


def test_two_labels_of_one_name_are_refused(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    """With or without a task file; and by nobody who does not read names."""
    rows = [row | {"label": ("bad_film", "BadFilm")[i % 2]} for i, row in enumerate(sentences(4, 1))]
    files = tiny_files | {"labelled": write_jsonl(tmp_path / "two.jsonl", rows)}
    told = r"'BadFilm' and 'bad_film' are two labels of one name after tidying, 'bad film'; give one .*task file\.$"
    for task in (None, "labels: [BadFilm, bad_film]\n"):
        with pytest.raises(InputError, match=told), open_run(config_of(files, tmp_path, task, data={"test": None})):
            pass
        assert not (tmp_path / "run").exists()
    linear: dict[str, Any] = {"data": {"test": None}} | HEADS["linear"]
    with open_run(config_of(files, tmp_path, **linear)) as run:
        assert run.labels == ["BadFilm", "bad_film"]


def test_a_run_keeps_the_words_that_it_was_begun_with(
    tiny_files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs without a task file were begun when a name was read as one word of it."""
    rows = [row | {"label": ("bad_film", "good_plot")[i % 2]} for i, row in enumerate(sentences(4, 1))]
    files = tiny_files | {"labelled": write_jsonl(tmp_path / "two.jsonl", rows)}
    config, words = config_of(files, tmp_path, data={"test": None}), {"bad_film": "bad", "good_plot": "plot"}
    with monkeypatch.context() as patch:
        patch.setattr(
            "listflow.pipeline.run.sources.fill_in_words", lambda task: task.model_copy(update={"labels": words})
        )
        with open_run(config) as run:
            begun = run.fingerprint
    with open_run(config) as run:
        assert (run.inputs.task.labels, run.fingerprint) == (words, begun)
    fresh = config.model_copy(update={"run_dir": str(tmp_path / "fresh")})
    with open_run(fresh) as run:
        assert run.inputs.task.labels == {"bad_film": "bad film", "good_plot": "good plot"}


def test_descriptions_and_shares_are_part_of_what_a_run_is(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    labels = "labels: {negative: bad, positive: good}\n"
    found = set()
    for more in ("", "descriptions: {negative: It is bad.}\n", "shares: {negative: 0.3, positive: 0.7}\n"):
        config = config_of(tiny_files, tmp_path, labels + more, data={"test": None})
        folder = tmp_path / str(len(found))
        with open_run(config.model_copy(update={"run_dir": str(folder)})) as run:
            found.add(run.fingerprint)
    assert len(found) == 3


@pytest.mark.parametrize("name", ["support/tickets", "../../up", "/up"])
def test_a_task_name_that_looks_like_a_path_is_no_path(
    name: str, tiny_files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its run lies where ``status`` and ``gc`` look, and nothing lies elsewhere."""
    home = tmp_path / "a" / "b" / "c"
    home.mkdir(parents=True)
    monkeypatch.chdir(home)
    task = f"name: {name}\n{TASK.partition(chr(10))[2]}labels: {{negative: bad, positive: good}}\n"
    (tmp_path / "task.yaml").write_text(task, "utf-8")
    overlay = tiny_overlay(tiny_files | {"task": tmp_path / "task.yaml"}, home / "run") | {"run_dir": None}
    with open_run(build_config("fast", overlay), keep_features=False) as run:
        assert [found.task for found in find_runs(Path("runs"), print)] == [name]
        assert run.folder.parent == home / "runs"
    assert [path.name for path in home.iterdir()] == ["runs"]
    assert {path.name for path in tmp_path.iterdir()} == {"a", "task.yaml"}
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["c"]
