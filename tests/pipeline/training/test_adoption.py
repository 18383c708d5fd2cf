"""A committee that goes on: both views' models, how far each is believed, and what is decided again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from committees import believe, committee_config, more_labels, reached
from reviews import first_round
from tiny import sentences, tiny_overlay, write_jsonl

from listflow.data.errors import InputError
from listflow.data.files import file_digest
from listflow.flows.cli.options import Asked
from listflow.pipeline.backbone.prompt import Text
from listflow.pipeline.backbone.text_face import TextFace
from listflow.pipeline.results.outcome import report_of
from listflow.pipeline.run.config import RunConfig
from listflow.pipeline.run.continuation import Parent
from listflow.pipeline.run.opening import look_up, open_run
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.run.record import load_config
from listflow.pipeline.self_training import self_train
from listflow.pipeline.storage.checkpoint import load_tensors, read_json
from listflow.pipeline.storage.review import answer_review, parse_answers
from listflow.pipeline.training.committee import weigh_views
from listflow.pipeline.training.label_vectors import start_of
from listflow.pipeline.training.rounds import prompt_tune


@pytest.fixture(scope="module")
def files(tiny_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return more_labels(tiny_files, tmp_path_factory.mktemp("labels"))


@pytest.fixture(scope="module")
def first(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of two views."""
    folder = tmp_path_factory.mktemp("first") / "one"
    self_train(committee_config(files, folder))
    return folder


def onward(before: Path, folder: Path, **update: object) -> RunConfig:
    """A gated run that goes on from ``before`` with 20 rows more."""
    more = write_jsonl(folder.parent / f"{folder.name}-new.jsonl", sentences(20, 7, labelled=False))
    config = load_config(before)
    data = config.data.model_copy(update={"unlabelled": (*config.data.unlabelled, str(more))})
    rounds = config.rounds.model_copy(update={"promote": "gated"})
    own = {"continues": str(before), "continues_model": "", "run_dir": str(folder), "data": data, "rounds": rounds}
    return config.model_copy(update=own | update)


def begun(config: RunConfig) -> None:
    """Round 0 of a run."""
    with open_run(config) as run:
        for view in run.views:
            prompt_tune(view)
        weigh_views(run)


def same(one: Path, two: Path) -> bool:
    before, after = load_tensors(one), load_tensors(two)
    return before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_both_views_and_their_mixture_are_taken_over(first: Path, tmp_path: Path) -> None:
    config = onward(first, tmp_path / "two")
    begun(config)
    last = read_json(first / "final" / "manifest.json")["round"]
    for suffix in ("", "-text"):
        kept = first / f"round-{last:02d}" / f"student{suffix}" / "weights.safetensors"
        assert same(kept, tmp_path / "two" / "round-00" / f"teacher{suffix}" / "weights.safetensors")
    before, after = (read_json(run / "round-00" / "committee" / "mixture.json") for run in (first, tmp_path / "two"))
    for one, two in zip(before["voices"], after["voices"], strict=True):
        # Students of both views are of one scale, and weigh as students do.
        assert two == one | {"temperature": 1.0, "belief": one["weight"]}
    assert after["decided_by"] == before["decided_by"] == "rows held out"
    with open_run(load_config(first)) as one, open_run(load_config(tmp_path / "two")) as two:
        starts = [start_of(run.others[0]) for run in (one, two)]
        assert starts[0].keys() == starts[1].keys() == {"head.centre", "head.out.weight", "head.out.bias"}
        assert all(torch.equal(starts[0][name], starts[1][name]) for name in starts[0])


def test_the_command_line_goes_on_with_what_a_run_was(first: Path) -> None:
    asked, before = Asked(continues=first).to_config(), load_config(first)
    assert (asked.second, asked.mixture, asked.head) == (before.second, before.mixture, before.head)
    assert asked.rounds.promote == "gated"


def test_a_first_teacher_that_stayed_keeps_its_temperature(files: dict[str, Path], tmp_path: Path) -> None:
    config = committee_config(files, tmp_path / "one", {"rounds": {"count": 1, "promote": "gated"}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("listflow.pipeline.method.gate.lost_classes", lambda *counts: [0])
        report = self_train(config)
    assert not report.rounds[0].promoted
    begun(onward(tmp_path / "one", tmp_path / "two"))
    before, after = (read_json(tmp_path / run / "round-00" / "committee" / "mixture.json") for run in ("one", "two"))
    assert after == before
    assert [voice["temperature"] for voice in before["voices"]] != [1.0, 1.0]


def test_it_ends_like_any_run_and_goes_on_again(first: Path, tmp_path: Path) -> None:
    report = self_train(onward(first, tmp_path / "two"))
    assert report.adopted is not None
    assert reached(report.adopted) == reached(report_of(first).final)
    assert (report.parent, report.labelled_only, report.start) == ("one", None, None)
    assert [view.view for view in report.views] == ["prompt", "text"]
    assert all(view.labelled_only is None and view.start is not None for view in report.views)
    drift = read_json(tmp_path / "two" / "drift.json")
    assert (drift["old"]["rows"], drift["new"]["rows"]) == (30, 20)
    third = self_train(onward(tmp_path / "two", tmp_path / "three"))
    assert third.data.unlabelled == 100
    assert reached(third.adopted) == reached(report.final)


def test_vectors_of_old_rows_are_copied(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("listflow.pipeline.backbone.sentences.TEXTS_A_PIECE", 20)
    self_train(committee_config(files, tmp_path / "one", {"rounds": {"count": 1}}))
    read: list[int] = []
    vectors = TextFace.vectors

    def counted(face: TextFace, texts: list[Text], *rest: Any) -> torch.Tensor:
        read.append(len(texts))
        return vectors(face, texts, *rest)

    monkeypatch.setattr(TextFace, "vectors", counted)
    found = []
    for config in (onward(tmp_path / "one", tmp_path / "two"), load_config(tmp_path / "one")):
        with open_run(config) as run:
            features = run.others[0].corpus.features
            assert features is not None
            found.append(np.array(features.values[:60]))
    assert read == [20]  # the new ones, and of the old ones, the labelled and the test rows nothing
    np.testing.assert_array_equal(*found)


def test_other_labelled_rows_decide_again(first: Path, files: dict[str, Path], tmp_path: Path) -> None:
    other = write_jsonl(tmp_path / "other.jsonl", sentences(14, 9))
    config = onward(first, tmp_path / "two")
    begun(config.model_copy(update={"data": config.data.model_copy(update={"labelled": str(other)})}))
    self_train(committee_config(files | {"labelled": other}, tmp_path / "fresh", {"rounds": {"count": 1}}))
    again, before, fresh = (
        read_json(run / "round-00" / "committee" / "mixture.json")["voices"]
        for run in (tmp_path / "two", first, tmp_path / "fresh")
    )
    assert [voice["weight"] for voice in again] != [voice["weight"] for voice in before]
    assert [voice["temperature"] for voice in again] == [1.0, 1.0]
    # By teachers that are trained on these rows as a first run's are.
    assert [(voice["nll"], voice["right"]) for voice in again[:1]] == [(fresh[0]["nll"], fresh[0]["right"])]
    held = [load_tensors(run / "round-00" / "committee" / "evidence.safetensors") for run in (tmp_path / "two", first)]
    assert {name: len(logits) for name, logits in held[0].items()} == {"prompt": 14, "text": 14}
    assert {name: len(logits) for name, logits in held[1].items()} == {"prompt": 12, "text": 12}


def test_reviewed_rows_decide_again(files: dict[str, Path], tmp_path: Path) -> None:
    config = committee_config(files, tmp_path / "one", {"review": {"rows": 4}})
    with open_run(config) as run:
        asked = first_round(run)
    lines = [f"{row.row_id},{row.label}" for row in asked.rows]
    answer_review(tmp_path / "one", parse_answers("\n".join(lines)), "ann")
    self_train(load_config(tmp_path / "one"))
    begun(onward(tmp_path / "one", tmp_path / "two"))
    held = load_tensors(tmp_path / "two" / "round-00" / "committee" / "evidence.safetensors")
    assert {name: len(logits) for name, logits in held.items()} == {"prompt": 16, "text": 16}


@pytest.mark.parametrize(("weight", "silent", "face"), [(1.0, "text", "prompt"), (0.0, "prompt", "text")])
def test_a_view_without_a_say_is_not_computed(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weight: float, silent: str, face: str
) -> None:
    believe(weight, monkeypatch)
    self_train(committee_config(files, tmp_path / "one"))
    assert Parent.open(tmp_path / "one").silent == silent
    config = onward(tmp_path / "one", tmp_path / "two")
    report = self_train(config)
    record = load_config(tmp_path / "two")
    assert (record.face, record.second) == (face, None)
    assert any(f"the {silent} view had no say in one" in notice for notice in report.notices)
    assert reached(report.adopted) == reached(report_of(tmp_path / "one").final)
    assert sorted(path.name for path in (tmp_path / "two" / "round-00").iterdir()) == ["teacher"]
    assert (tmp_path / "two" / "inputs" / "vectors").exists() == (face == "text")
    before = {path: path.read_bytes() for path in (tmp_path / "two").rglob("weights.safetensors")}
    (tmp_path / "two" / "final" / "manifest.json").unlink()
    self_train(record)  # as it is resumed
    self_train(config)  # as the same command again asks for it
    assert before == {path: path.read_bytes() for path in (tmp_path / "two").rglob("weights.safetensors")}
    assert reached(self_train(onward(tmp_path / "two", tmp_path / "three")).adopted) == reached(report.final)


def test_the_text_view_alone_goes_on(files: dict[str, Path], tmp_path: Path) -> None:
    config = build_config("fast", tiny_overlay(files, tmp_path / "one") | {"stage": "none", "head": "prototypes"})
    assert (config.face, config.second) == ("text", None)
    report = self_train(config)
    fresh = onward(tmp_path / "one", tmp_path / "two", head=config.head)  # of no width, as a person writes it
    look_up(fresh).check_news()
    after = self_train(fresh)
    assert reached(after.adopted) == reached(report.final)
    with open_run(load_config(tmp_path / "one")) as one, open_run(load_config(tmp_path / "two")) as two:
        assert all(torch.equal(start_of(one)[name], value) for name, value in start_of(two).items())


def test_a_run_goes_on_by_the_views_that_it_had(first: Path, files: dict[str, Path], tmp_path: Path) -> None:
    one_view = onward(first, tmp_path / "two", second=None)
    with pytest.raises(InputError, match="as a committee of two views, and this run is the prompt view alone"):
        look_up(one_view).check_news()
    self_train(build_config("fast", tiny_overlay(files, tmp_path / "plain")))
    second = committee_config(files, tmp_path / "x").second
    committee = onward(tmp_path / "plain", tmp_path / "three", second=second)
    with pytest.raises(InputError, match="as the prompt view alone, and this run is a committee of two views"):
        look_up(committee).check_news()
    assert second is not None
    other = second.model_copy(update={"head": second.head.model_copy(update={"scale": 5.0})})
    with pytest.raises(InputError, match=r"another second\.head than this run"):
        look_up(onward(first, tmp_path / "four", second=other)).check_news()


@pytest.mark.parametrize("damaged", ["student", "student-text", "committee"])
def test_the_model_that_is_held_to_is_that_of_both_views(first: Path, tmp_path: Path, damaged: str) -> None:
    parent = shutil.copytree(first, tmp_path / "one")
    begun(onward(parent, tmp_path / "two"))
    held = load_config(tmp_path / "two").continues_model
    assert held == Parent.open(first).weights != read_json(first / "final" / "manifest.json")["inputs"]["model"]
    folder = parent / ("round-00" if damaged == "committee" else "round-02") / damaged
    name = "mixture.json" if damaged == "committee" else "weights.safetensors"
    manifest = read_json(folder / "manifest.json")
    manifest["files"][name] = "0" * 64
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="is no finished run to continue"):
        look_up(load_config(tmp_path / "two"))
    (folder / name).write_bytes((folder / name).read_bytes() + b" ")
    manifest["files"][name] = file_digest(folder / name)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="holds another model than the one"):
        look_up(load_config(tmp_path / "two"))
