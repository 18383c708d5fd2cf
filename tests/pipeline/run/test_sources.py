"""Which files and labels a configuration means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from listflow.data.errors import InputError
from listflow.pipeline.run.config import RunConfig
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.run.sources import names_of_files, resolve_sources
from listflow.pipeline.storage.checkpoint import write_json


def config_of(folder: Path, labels: list[Any], **changes: Any) -> RunConfig:
    """A run without a task file, on two texts with these labels."""
    pq.write_table(pa.table({"text": [f"t{i}" for i in range(len(labels))], "label": labels}), folder / "few.parquet")
    (folder / "pool.csv").write_text("text\na\nb\n")
    data = {"labelled": str(folder / "few.parquet"), "unlabelled": [str(folder / "pool.csv")]}
    return build_config("fast", {"data": data, "run_dir": str(folder / "run")}, changes)


@pytest.mark.parametrize(
    ("values", "now", "before"),
    [
        ([0.0, 1.0], ["0", "1"], ["0.0", "1.0"]),
        ([False, True], ["false", "true"], ["False", "True"]),
        (["a", "b"], ["a", "b"], ["a", "b"]),
        (["a", "b"], ["a", "b"], ["other", "labels"]),
    ],
)
@pytest.mark.parametrize("key", ["run_dir", "continues"])
def test_labels_are_spelled_as_in_the_run_that_goes_on(
    tmp_path: Path, key: str, values: list[Any], now: list[str], before: list[str]
) -> None:
    """An earlier version wrote some of them otherwise."""
    config = config_of(tmp_path, values)
    assert list(resolve_sources(config).task.labels) == now
    other = tmp_path / "begun"
    other.mkdir()
    write_json(other / "config.json", {})
    write_json(other / "inputs.json", {"task": {"labels": dict.fromkeys(before)}})
    found = resolve_sources(config.model_copy(update={key: str(other)}))
    same = before if before != ["other", "labels"] else now
    assert list(found.task.labels) == same
    assert found.rows is not None
    assert [row.label for row in found.rows.rows] == same


def test_a_file_with_some_labels_may_be_both(tmp_path: Path) -> None:
    both = {"data": {"unlabelled": [str(tmp_path / "few.parquet")]}}
    found = resolve_sources(config_of(tmp_path, ["a", "b", None], **both))
    assert found.rows is not None
    assert (len(found.rows.rows), found.rows.without) == (2, 1)
    with pytest.raises(InputError, match="is the labelled file too; pass a file of unlabelled rows"):
        resolve_sources(config_of(tmp_path, ["a", "b"], **both))
    with pytest.raises(InputError, match=r"or the labelled file again where some of its rows have no label\.$"):
        resolve_sources(config_of(tmp_path, ["a", "b"], data={"unlabelled": []}))


@pytest.mark.parametrize("role", ["labelled", "unlabelled", "test"])
def test_standard_input_is_nothing_for_a_run(tmp_path: Path, role: str) -> None:
    with pytest.raises(InputError, match="standard input, which a run could not read again; save it to a file"):
        resolve_sources(config_of(tmp_path, ["a", "b"], data={role: ["-"] if role == "unlabelled" else "-"}))


def test_files_are_named_without_their_folders_and_ids_of_a_hub_as_a_whole(tmp_path: Path) -> None:
    data = {
        "labelled": str(tmp_path / "few.csv"), "unlabelled": [str(tmp_path / "corpora" / "tickets"), "owner/data"],
        "test": str(tmp_path / "held_out.csv"),
    }  # fmt: skip
    assert names_of_files(build_config("fast", {"data": data})) == {
        "labelled": ("few.csv",), "unlabelled": ("tickets", "owner/data"), "test": ("held_out.csv",),
    }  # fmt: skip
    assert names_of_files(build_config("fast", {"data": {**data, "test": None, "unlabelled": []}})) == {
        "labelled": ("few.csv",)
    }


def test_what_came_from_no_file_says_what_it_is(tmp_path: Path) -> None:
    given = {"labelled": str(tmp_path / "inputs" / "given" / "labelled.jsonl")}
    assert names_of_files(build_config("fast")) == {"labelled": ("the embedded demo",)}
    assert names_of_files(build_config("fast", {"data": given, "run_dir": str(tmp_path)})) == {
        "labelled": ("given in Python",)
    }
