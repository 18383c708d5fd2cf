"""Contested rows, and what answers to them change: the rounds after, and nothing before."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from committees import committee_config, more_labels
from reviews import answered, config_of, first_round
from tiny import sentences, write_jsonl

from listflow.data.errors import InputError
from listflow.pipeline.results.outcome import publish
from listflow.pipeline.run.opening import open_run
from listflow.pipeline.run.record import load_config
from listflow.pipeline.self_training import self_train
from listflow.pipeline.storage.checkpoint import load_tensors, read_json, write_json
from listflow.pipeline.storage.pseudo_labels import PseudoLabels, save_meta_weights
from listflow.pipeline.storage.review import (  # fmt: skip
    Asked,
    Contested,
    answer_review,
    check_answers,
    open_review,
    parse_answers,
    read_answers,
    read_asked,
    read_reviewed,
    review_notices,
)
from listflow.pipeline.training.committee import mean_shares
from listflow.pipeline.training.review import (
    ask,
    corrected_rows,
    scores_of,
    weighed_rows,
    with_corrections,
    write_csv,
)
from listflow.pipeline.training.rounds import evidence, judge, prompt_tune, pseudo_label, train_student

WEIGHTS = "round-{:02d}/student/weights.safetensors"
LABELS = "round-{:02d}/pseudo/labels.parquet"


@pytest.fixture(scope="module")
def whole(tiny_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run whose first review was answered."""
    folder = tmp_path_factory.mktemp("reviewed") / "run"
    answered(config_of(tiny_files, folder))
    self_train(load_config(folder))
    return folder


@pytest.fixture(scope="module")
def plain(tiny_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run that asked nothing."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    self_train(config_of(tiny_files, folder, rows=0))
    return folder


def test_scores_follow_the_formula() -> None:
    soft = np.array([[0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.2, 0.3, 0.5]])
    earlier, light = np.array([-1, 2, 2]), np.array([0.0, 0.0, 0.4])
    np.testing.assert_allclose(scores_of(soft, earlier, light), [1 - 0.3, 1 - 0.7 + 0.5, 1 - 0.2 + 0.2])


def test_the_first_round_asks_by_margin_alone(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    with open_run(config_of(tiny_files, tmp_path / "run")) as run:
        asked = first_round(run)
        labels = PseudoLabels.load(run.round(1).labels, 2)
        margin = abs(labels.soft[:, 0] - labels.soft[:, 1])
        order = sorted(zip(margin, labels.rows, strict=True))[:5]
        assert [row.row for row in asked.rows] == [row for _, row in order]
        assert [row.row_id for row in asked.rows] == run.inputs.pool.row_ids([row.row for row in asked.rows])
        assert ask(run, 1) == asked
        assert ask(run, 2) is None


def test_later_rounds_doubt_what_changed_or_weighed_little(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    with open_run(config_of(tiny_files, tmp_path / "run", rounds="all")) as run:
        prompt_tune(run)
        corpus, rows = run.inputs.pool, np.arange(4)
        for number, top in ((1, [0.9, 0.1, 0.9, 0.9]), (2, [0.9, 0.9, 0.9, 0.6])):
            soft = np.array([[p, 1 - p] for p in top], dtype=np.float32)
            folder = run.round(number).pseudo
            folder.mkdir(parents=True)
            PseudoLabels(rows, soft).save(folder / "labels.parquet", corpus, run.labels)
        run.round(1).model.mkdir()
        # Steps of 6 rows: 1/6 is an equal share, and row 2 gets a fifth of one in the mean.
        weighed = [(np.array([0, 2]), np.array([0.2, 1 / 15])), (np.array([2]), np.array([0.0]))]
        save_meta_weights(run.round(1).meta_weights, weighed)
        asked = ask(run, 2)
    assert asked is not None
    # 1: 0.2 + 0.5, 3: 0.8, 2: 0.2 + 0.4; row 0 stays unlabelled, as one row must.
    assert [row.row for row in asked.rows] == [3, 1, 2]
    np.testing.assert_allclose([row.score for row in asked.rows], [0.8, 0.7, 0.6], atol=1e-6)
    assert [row.why for row in asked.rows] == [
        "0.60 against 0.40", "0.90 against 0.10; the teacher before said positive",
        "0.90 against 0.10; 20% of an equal weight",
    ]  # fmt: skip


def test_a_spreadsheet_computes_nothing_and_its_answers_are_read(tmp_path: Path) -> None:
    row = Contested("=pool:1", 7, "=SUM(1,2)", "@x", "-", 0.5, "+", 1.0, "0.50 against 0.50")
    write_csv(tmp_path / "contested.csv", (row,))
    with (tmp_path / "contested.csv").open(encoding="utf-8-sig", newline="") as file:
        cells = next(csv.DictReader(file))
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in cells.values())
    asked = Asked(tmp_path, 1, ("-", "+"), (row,))
    with (tmp_path / "back.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["row_id", "label", "text"], [cells["row_id"], "'+", cells["text"]]])
    assert [(c.row, c.label) for c in check_answers(asked, read_answers(str(tmp_path / "back.csv")))] == [(7, "+")]


def test_answers_change_the_rounds_after_and_nothing_before(whole: Path, plain: Path) -> None:
    same = ["round-00/teacher/weights.safetensors", LABELS.format(1), WEIGHTS.format(1)]
    other = [LABELS.format(2), WEIGHTS.format(2), WEIGHTS.format(3), "final/weights.safetensors"]
    assert all((whole / name).read_bytes() == (plain / name).read_bytes() for name in same)
    assert all((whole / name).read_bytes() != (plain / name).read_bytes() for name in other)
    ended = read_reviewed(whole, 1)
    assert ended is not None
    corrected = {correction.row for correction in ended.rows}
    drawn = [set(pq.read_table(whole / LABELS.format(n))["row"].to_pylist()) for n in (1, 2, 3)]
    assert corrected <= drawn[0]
    assert not corrected & (drawn[1] | drawn[2])
    assert "corrections" not in read_json(whole / "round-01" / "student" / "manifest.json")["inputs"]
    assert "3 of 5 contested rows of round 1 were labelled by ann, 3 otherwise" in next(review_notices(whole, 3))
    assert pq.read_table(whole / "predictions.parquet").num_rows == 60


def test_a_round_sees_earlier_answers_as_labelled_rows(whole: Path) -> None:
    with open_run(load_config(whole)) as run:
        assert with_corrections(run, 1) is run
        seen, rows = with_corrections(run, 2), corrected_rows(run, 2)
        assert (len(seen.labelled), len(seen.gold)) == (11, 11)
        assert rows.tolist() == sorted(rows.tolist())
        assert torch.equal(seen.labelled.batch([8, 9, 10]).ids, run.corpus.batch(rows).ids)
        asked = {row.row: row.label for row in (read_asked(whole, 1) or Asked(whole, 1, (), ())).rows}
        assert all(asked[row] != run.labels[seen.gold[8 + place]] for place, row in enumerate(rows.tolist()))
        assert [len(evidence(run, number).errors) for number in (1, 2, 3)] == [8, 11, 11]


def test_kept_features_come_along(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    config = config_of(tiny_files, tmp_path / "run", {"stage": {"layers": "top:1"}})
    answered(config)
    with open_run(config) as run:
        rows, seen = corrected_rows(run, 2), with_corrections(run, 2).labelled
        expected, found = run.corpus.batch(rows).hidden, seen.batch([8, 9, 10]).hidden
        assert expected is not None
        assert found is not None
        assert torch.equal(found, expected)
        assert torch.equal(seen.batch([3]).hidden, run.labelled.batch([3]).hidden)


def interrupt(number: int, phase: str, step: int) -> Callable[..., None]:
    def notify(progress: object) -> None:
        if (progress.round, progress.phase, progress.done) == (number, phase, step):  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    return notify


@pytest.mark.parametrize("place", [(1, "warmup", 2), (2, "label", 48), (2, "reweighted", 6), (3, "tail", 8 + 2)])
def test_interrupted_and_resumed_ends_with_the_same_bytes(
    whole: Path, tiny_files: dict[str, Path], tmp_path: Path, place: tuple[int, str, int]
) -> None:
    config = config_of(tiny_files, tmp_path / "run", {"checkpoint_seconds": 0})
    answered(config, by="somebody else")
    with pytest.raises(KeyboardInterrupt):
        self_train(config, interrupt(*place))
    self_train(config)
    for name in (WEIGHTS.format(2), WEIGHTS.format(3), "final/weights.safetensors", "predictions.parquet"):
        assert (tmp_path / "run" / name).read_bytes() == (whole / name).read_bytes()


def test_a_changed_answer_makes_what_followed_again(tiny_files: dict[str, Path], tmp_path: Path, whole: Path) -> None:
    config = config_of(tiny_files, tmp_path / "run")
    answered(config)
    self_train(config)
    path = tmp_path / "run" / "round-01" / "review" / "corrections.json"
    stored = read_json(path)
    stored["rows"][0]["label"] = {"negative": "positive", "positive": "negative"}[stored["rows"][0]["label"]]
    before = (tmp_path / "run" / WEIGHTS.format(2)).stat().st_mtime_ns, (whole / WEIGHTS.format(2)).read_bytes()
    write_json(path, stored | {"by": "bob"})
    self_train(config)
    again = tmp_path / "run" / WEIGHTS.format(2)
    assert again.stat().st_mtime_ns != before[0]
    assert again.read_bytes() != before[1]
    # Who answered changes nothing.
    made = again.stat().st_mtime_ns
    write_json(path, stored | {"by": "eve"})
    self_train(config)
    assert again.stat().st_mtime_ns == made


def test_without_answers_the_review_changes_no_byte(tiny_files: dict[str, Path], tmp_path: Path, plain: Path) -> None:
    config = config_of(tiny_files, tmp_path / "run", rounds="all")
    report = self_train(config)
    for name in (LABELS.format(3), WEIGHTS.format(3), "predictions.parquet"):
        assert (tmp_path / "run" / name).read_bytes() == (plain / name).read_bytes()
    assert "Round 1 asked about 5 contested rows, and nobody answered before round 2" in " ".join(report.notices)
    with pytest.raises(InputError, match="is closed, as nobody answered before round 3"):
        answer_review(tmp_path / "run", parse_answers("x,positive"), "")


def test_runs_that_do_not_ask_say_so(plain: Path, tiny_files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not ask for a review"):
        open_review(plain)
    with open_run(config_of(tiny_files, tmp_path / "run")):
        pass
    with pytest.raises(InputError, match="has not asked yet"):
        open_review(tmp_path / "run")


@pytest.fixture(scope="module")
def two_views(tiny_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of a committee whose first review was answered."""
    folder = tmp_path_factory.mktemp("committee")
    config = committee_config(more_labels(tiny_files, folder), folder / "run", {"review": {"rows": 5}})
    answered(config)
    self_train(config)
    return folder / "run"


def test_corrected_rows_are_labelled_ones_of_both_views(two_views: Path) -> None:
    with open_run(load_config(two_views)) as run:
        rows = corrected_rows(run, 2)
        assert len(rows) == 3
        for view in run.views:
            seen = with_corrections(view, 2)
            assert (with_corrections(view, 1) is view, len(seen.labelled), len(seen.gold)) == (True, 15, 15)
            for name in ("ids", "hidden"):
                found, expected = (
                    getattr(seen.labelled.batch([12, 13, 14]), name),
                    getattr(view.corpus.batch(rows), name),
                )
                assert (found is None and expected is None) or torch.equal(found, expected)
            known = [load_tensors(view.round(number).evidence)["labelled"] for number in (1, 2)]
            assert [len(logits) for logits in known] == [12, 15]
            made = [read_json(view.round(number).model / "manifest.json")["inputs"] for number in (1, 2)]
            assert ["corrections" in inputs for inputs in made] == [False, True]
        assert torch.equal(with_corrections(run.others[0], 2).gold, with_corrections(run, 2).gold)
        assert len(evidence(run, 2).errors) == 15


def test_the_meta_weight_of_a_row_is_the_mean_over_both_views(two_views: Path) -> None:
    names = ("student", "student-text")
    by_view = []
    for name in names:
        tables = [pq.read_table(two_views / f"round-0{n}" / name / "meta_weights.parquet").to_pandas() for n in (1, 2)]
        by_view.append(pd.concat(tables).groupby("row")["weight"].mean())
    expected = pd.concat(by_view).groupby(level=0).mean()
    assert set(by_view[0].index) != set(by_view[1].index)  # a row that one view alone reweighted has that one's
    found = pd.read_parquet(two_views / "predictions.parquet")["meta_weight"].dropna()
    assert found.index.tolist() == expected.index.tolist()
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_rows_share_is_told_beside_the_steps_of_each_view(two_views: Path) -> None:
    with open_run(load_config(two_views)) as run:
        (second,) = run.others
        student = second.config.student.model_copy(update={"batch": 3})
        run = replace(run, others=(replace(second, config=second.config.model_copy(update={"student": student})),))
        batches = [view.config.student.batch for view in run.views]
        assert batches == [6, 3]
        tables = [pq.read_table(view.round(1).meta_weights).to_pandas() for view in run.views]
        each = [batch * table.groupby("row")["weight"].mean() for batch, table in zip(batches, tables, strict=True)]
        rows, shares = mean_shares(run, 1)
        expected = pd.concat(each).groupby(level=0).mean()
        assert rows.tolist() == expected.index.tolist()
        np.testing.assert_allclose(shares, expected, rtol=1e-6)
        heavy, light = weighed_rows(run, 1, 3)
        assert [row.weight for row in heavy] == sorted(shares.tolist())[:-4:-1]
        assert [row.weight for row in light] == sorted(shares.tolist())[:3]


def test_a_gated_run_with_answers_ends(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    # Of other seeds a student loses a class, which is a reason before this one.
    config = config_of(tiny_files, tmp_path / "run", {"rounds": {"promote": "gated"}, "seed": 4})
    answered(config)
    with open_run(config) as run:
        for number in (1, 2, 3):
            pseudo_label(run, number)
            train_student(run, number)
            verdict = judge(run, number)
            known = min(11 if number > 1 else 8, 11 if verdict["teacher_round"] > 1 else 8)
            assert f"of {known} labelled rows" in verdict["reason"]
        publish(run, 3)


def test_answers_are_labelled_rows_of_runs_that_go_on(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    config = config_of(tiny_files, tmp_path / "one")
    answered(config)
    self_train(config)
    for before, after, labelled, seed in (("one", "two", 11, 7), ("two", "three", 14, 8)):
        more = write_jsonl(tmp_path / f"{after}.jsonl", sentences(30, seed, labelled=False))
        earlier = load_config(tmp_path / before)
        data = earlier.data.model_copy(update={"unlabelled": (*earlier.data.unlabelled, str(more))})
        own = {
            "continues": str(tmp_path / before),
            "continues_model": "",
            "run_dir": str(tmp_path / after),
            "data": data,
        }
        config = earlier.model_copy(update=own)
        with open_run(config) as run:
            assert len(run.gold) == labelled
            texts = {row.text for row in run.inputs.labelled}
            assert not texts & {text for text, _ in run.inputs.pool.texts(range(len(run.inputs.pool)))}
            assert any("were labelled in earlier reviews" in notice for notice in run.notices)
        asked = answered(config)
        report = self_train(config)
        assert report.data.labelled == labelled
        assert {row.text for row in asked.rows}.isdisjoint(texts)
    shutil.rmtree(tmp_path / "one" / "round-01" / "review")
    with pytest.raises(InputError, match="other input files"):
        self_train(load_config(tmp_path / "two"))
