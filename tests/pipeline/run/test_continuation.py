"""A run that goes on from a finished one: its model, new rows first, the gate, nothing done twice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tiny import sentences, tiny_overlay, write_jsonl

from listflow.data.corpora.ingest import ingest
from listflow.data.errors import InputError
from listflow.data.task import Columns
from listflow.pipeline.results.outcome import report_of
from listflow.pipeline.run.config import RunConfig
from listflow.pipeline.run.continuation import Parent
from listflow.pipeline.run.opening import open_run
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.run.record import load_config
from listflow.pipeline.run.run import Progress
from listflow.pipeline.self_training import self_train
from listflow.pipeline.storage.checkpoint import load_tensors, read_json
from listflow.pipeline.training.rounds import prompt_tune, pseudo_label


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return tmp_path / "tickets"


def grow(corpus: Path, count: int, seed: int) -> None:
    source = write_jsonl(corpus.parent / "more.jsonl", sentences(count, seed, labelled=False))
    ingest(corpus, [str(source)], Columns())


def first_run(files: dict[str, Path], corpus: Path, folder: Path, **overlay: object) -> RunConfig:
    grow(corpus, 60, 2)
    config = build_config("fast", tiny_overlay(files | {"unlabelled": corpus}, folder), overlay)
    self_train(config)
    return load_config(folder)


def next_run(config: RunConfig, folder: Path, **update: object) -> RunConfig:
    own = {"continues": config.run_dir, "continues_model": "", "run_dir": str(folder)}
    return config.model_copy(update=own | update)


def test_the_teacher_is_the_last_promoted_model(tiny_files: dict[str, Path], corpus: Path, tmp_path: Path) -> None:
    before = first_run(tiny_files, corpus, tmp_path / "one")
    grow(corpus, 30, 7)
    with open_run(next_run(before, tmp_path / "two")) as run:
        facts = prompt_tune(run)
        assert any("30 of 90 unlabelled rows are new since one" in notice for notice in run.notices)
        rows = pseudo_label(run, 1)["rows"]
    last = read_json(tmp_path / "one" / "final" / "manifest.json")["round"]
    kept = load_tensors(tmp_path / "one" / f"round-{last:02d}" / "student" / "weights.safetensors")
    taken = load_tensors(tmp_path / "two" / "round-00" / "teacher" / "weights.safetensors")
    assert kept.keys() == taken.keys()
    assert all(bool((kept[name] == taken[name]).all()) for name in kept)
    assert facts["zero_shot"] is None
    assert rows == 48


def test_new_rows_come_first(tiny_files: dict[str, Path], corpus: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    before = first_run(tiny_files, corpus, tmp_path / "one")
    grow(corpus, 30, 7)
    for steps, old in ((8, 18), (3, 0)):
        folder = tmp_path / f"two-{steps}"
        student = before.student.model_copy(update={"steps": steps})
        with open_run(next_run(before, folder, student=student)) as run:
            prompt_tune(run)
            pseudo_label(run, 1)
            assert run.fresh_rows().tolist() == list(range(60, 90))
        rows = pq.read_table(folder / "round-01" / "pseudo" / "labels.parquet")["row"].to_pylist()
        assert sum(row < 60 for row in rows) == old


def test_it_ends_like_any_run_and_can_be_continued_itself(
    tiny_files: dict[str, Path], corpus: Path, tmp_path: Path
) -> None:
    before = first_run(tiny_files, corpus, tmp_path / "one")
    grow(corpus, 30, 7)
    report = self_train(next_run(before, tmp_path / "two"))
    assert report.data.unlabelled == 90
    earlier = json.loads((tmp_path / "one" / "report.json").read_text())["final"]
    assert (report.parent, report.labelled_only) == ("one", None)
    assert report.adopted is not None
    assert report.adopted.accuracy == earlier["accuracy"]
    grow(corpus, 10, 8)
    third = self_train(next_run(load_config(tmp_path / "two"), tmp_path / "three"))
    assert third.data.unlabelled == 100
    assert json.loads((tmp_path / "three" / "config.json").read_text())["config"]["continues"] == str(tmp_path / "two")


def test_an_interrupted_continuation_goes_on_with_the_same_bytes(
    tiny_files: dict[str, Path], corpus: Path, tmp_path: Path
) -> None:
    before = first_run(tiny_files, corpus, tmp_path / "one")
    grow(corpus, 30, 7)
    self_train(next_run(before, tmp_path / "whole"))
    with open_run(next_run(before, tmp_path / "halves")) as run:
        prompt_tune(run)
    self_train(load_config(tmp_path / "halves"))
    for name in ("round-02/student/weights.safetensors", "final/weights.safetensors", "predictions.parquet"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "halves" / name).read_bytes()


def test_an_interrupted_run_goes_on_with_the_rows_it_began_with(
    tiny_files: dict[str, Path], corpus: Path, tmp_path: Path
) -> None:
    whole = first_run(tiny_files, corpus, tmp_path / "whole")

    def stop(now: Progress) -> None:
        if (now.round, now.phase) == (1, "warmup"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        self_train(whole.model_copy(update={"run_dir": str(tmp_path / "halves")}), stop)
    grow(corpus, 30, 7)
    # The run's own copy of the rows may have been lost too.
    (tmp_path / "halves" / "inputs" / "unlabelled.json").unlink()
    assert self_train(load_config(tmp_path / "halves")).data.unlabelled == 60
    for name in ("round-02/student/weights.safetensors", "final/weights.safetensors", "predictions.parquet"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "halves" / name).read_bytes()
    with open_run(next_run(load_config(tmp_path / "halves"), tmp_path / "next")) as run:
        assert run.fresh_rows().tolist() == list(range(60, 90))


def test_a_run_does_not_go_on_with_other_rows(tiny_files: dict[str, Path], corpus: Path, tmp_path: Path) -> None:
    grow(corpus, 60, 2)
    config = build_config("fast", tiny_overlay(tiny_files | {"unlabelled": corpus}, tmp_path / "run"))
    with open_run(config):
        pass
    shutil.rmtree(corpus)
    grow(corpus, 60, 3)
    with pytest.raises(InputError, match=r"other input files \(unlabelled/tickets changed since"), open_run(config):
        pass


def test_nothing_new_is_said(tiny_files: dict[str, Path], corpus: Path, tmp_path: Path) -> None:
    before = first_run(tiny_files, corpus, tmp_path / "one")
    with (
        pytest.raises(InputError, match="no unlabelled row is new since"),
        open_run(next_run(before, tmp_path / "two")),
    ):
        pass


def test_another_file_under_an_old_name_is_new_and_one_that_grew_is_not(
    tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    first, grown, other = (tmp_path / folder / "pool.jsonl" for folder in ("first", "grown", "other"))
    for path, rows in (
        (first, sentences(40, 2, labelled=False)),
        (grown, sentences(40, 2, labelled=False) + sentences(8, 3, labelled=False)),
        (other, sentences(30, 5, labelled=False)),
    ):
        path.parent.mkdir()
        write_jsonl(path, rows)
    config = build_config("fast", tiny_overlay(tiny_files | {"unlabelled": first}, tmp_path / "one"))
    self_train(config)
    before = load_config(tmp_path / "one")

    def onto(path: Path) -> RunConfig:
        data = before.data.model_copy(update={"unlabelled": (str(path),)})
        return next_run(before, tmp_path / path.parent.name / "run", data=data)

    with open_run(onto(grown)) as run:
        assert run.fresh_rows().tolist() == list(range(40, 48))
    with open_run(onto(other)) as run:
        assert run.fresh_rows().tolist() == list(range(30))
    # No old row is there to compare the new ones with.
    self_train(onto(other))
    assert report_of(tmp_path / "other" / "run").drift is None


def test_what_is_known_of_other_labelled_rows_is_not_taken_over(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    overlay = tiny_overlay(tiny_files, tmp_path / "one")
    overlay["data"] = {**dict(overlay["data"]), "shots": 6}  # type: ignore[call-overload]
    config = build_config("fast", overlay)
    self_train(config)
    parent, digest = Parent.open(tmp_path / "one"), read_json(tmp_path / "one" / "inputs.json")["digests"]["labelled"]
    config = load_config(tmp_path / "one")
    assert parent.unfitted(config, digest, 6, "prompt") is not None
    assert parent.unfitted(config.model_copy(update={"seed": 2}), digest, 6, "prompt") is None
    data = config.data.model_copy(update={"balanced": not config.data.balanced})
    assert parent.unfitted(config.model_copy(update={"data": data}), digest, 6, "prompt") is None


def test_an_unfinished_or_changed_parent_is_refused(tiny_files: dict[str, Path], corpus: Path, tmp_path: Path) -> None:
    before = first_run(tiny_files, corpus, tmp_path / "one")
    grow(corpus, 30, 7)
    with open_run(next_run(before, tmp_path / "two")):
        pass
    held = load_config(tmp_path / "two").model_copy(update={"continues_model": "0" * 64})
    with pytest.raises(InputError, match="holds another model"), open_run(held):
        pass
    (tmp_path / "one" / "final" / "manifest.json").unlink()
    with (
        pytest.raises(InputError, match="is no finished run to continue"),
        open_run(next_run(before, tmp_path / "three")),
    ):
        pass


def test_another_stage_or_task_cannot_go_on(tiny_files: dict[str, Path], corpus: Path, tmp_path: Path) -> None:
    before = first_run(tiny_files, corpus, tmp_path / "one")
    grow(corpus, 30, 7)
    other = build_config("fast", tiny_overlay(tiny_files, tmp_path / "x"), {"stage": {"kind": "lora"}}).stage
    with (
        pytest.raises(InputError, match="has another stage"),
        open_run(next_run(before, tmp_path / "two", stage=other)),
    ):
        pass
    task = tmp_path / "other.yaml"
    task.write_text('name: tiny\ntemplate: "{text} it was {mask} ."\nlabels: {positive: good, negative: bad}\n')
    with (
        pytest.raises(InputError, match="the same labels in the same order"),
        open_run(next_run(before, tmp_path / "two", task=str(task))),
    ):
        pass


def test_drift_is_told_where_there_is_some(tiny_files: dict[str, Path], corpus: Path, tmp_path: Path) -> None:
    before = first_run(tiny_files, corpus, tmp_path / "one")
    grow(corpus, 60, 7)
    self_train(next_run(before, tmp_path / "same"))
    usual = read_json(tmp_path / "same" / "drift.json")
    # Every made-up text ends with two numbers of its own, so some words are always new.
    assert not [warning for warning in usual["warnings"] if "other words" in warning]
    assert [shard["shard"] for shard in usual["shards"]] == ["tickets/000001", "tickets/000002"]
    assert [shard["rows"] for shard in usual["shards"]] == [60, 60]
    strange = [{"text": " ".join(f"zig{i}{j}" for j in range(9))} for i in range(60)]
    ingest(corpus, [str(write_jsonl(tmp_path / "strange.jsonl", strange))], Columns())
    before = load_config(tmp_path / "same")
    asked = before.rounds.model_copy(update={"foreign": "train"})
    report = self_train(next_run(before, tmp_path / "other", rounds=asked))
    assert any("The new text has other words" in notice for notice in report.notices)
    assert sum(usual["new"]["labels"].values()) == pytest.approx(1)
    assert report.drift is not None
    assert report_of(tmp_path / "other").drift == report.drift
    page = (tmp_path / "other" / "report.html").read_text()
    assert "New text beside the old" in page
    assert "tickets/000003" in page
    assert "New text beside the old" not in (tmp_path / "one" / "report.html").read_text()
