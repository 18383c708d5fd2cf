"""The flow: readable task runs, a second run from the cache, damage made good, artifacts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from committees import both_heard, committee_config, more_labels
from pictures import with_pictures
from tiny import TEXT_VIEW, tiny_overlay

from listflow.data.errors import InputError
from listflow.data.files import file_digest
from listflow.pipeline.results.outcome import report_of
from listflow.pipeline.results.report import summary
from listflow.pipeline.run.config import RunConfig
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.storage.checkpoint import single_writer, verified

pytest_plugins = ["flow_fixtures"]

STAGES = [
    "prompt-tune the teacher",
    *(f"{stage}, round {n}" for n in (1, 2) for stage in ("pseudo-label", "train prompt student", "judge")),
    "publish",
]
COMMITTEE = [
    "prompt-tune the teacher", "text-tune the teacher", "weigh the views",
    *(
        f"{stage}, round {n}"
        for n in (1, 2)
        for stage in ("pseudo-label", "train prompt student", "train text student", "judge")
    ),
    "publish",
]  # fmt: skip
ARTIFACTS = {
    "list-rounds", "list-pseudo-labels", "list-meta-weights", "list-weighed-rows", "list-calibration", "list-report",
}  # fmt: skip


@pytest.fixture(scope="module")
def config(server: None, tiny_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    return build_config("fast", tiny_overlay(tiny_files, tmp_path_factory.mktemp("flow") / "run"))


@pytest.fixture(scope="module")
def folder(config: RunConfig) -> Path:
    """The folder of a finished run."""
    with with_pictures():
        names, _ = run_flow(config)
    assert [name for name, _ in names] == STAGES
    assert {state for _, state in names} == {"Completed"}
    return Path(str(config.run_dir))


def run_flow(config: RunConfig) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    """((name, state) of every task run in order, what the flow returned)."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.client.schemas.sorting import TaskRunSort

    from listflow.flows.run.self_training import self_train

    state = self_train(config, return_state=True)
    value = state.result()
    run_id = state.state_details.flow_run_id
    wanted = FlowRunFilter(id=FlowRunFilterId(any_=[run_id]))
    with get_client(sync_client=True) as client:
        assert client.read_flow_run(run_id).name == f"task, {Path(str(config.run_dir)).name}"
        runs = client.read_task_runs(flow_run_filter=wanted, sort=TaskRunSort.EXPECTED_START_TIME_ASC)
    return [(run.name, run.state.name) for run in runs if run.state], value


def states(config: RunConfig) -> list[str]:
    return [state for _, state in run_flow(config)[0]]


def test_a_second_run_takes_every_stage_from_the_cache(config: RunConfig, folder: Path) -> None:
    before = file_digest(folder / "report.json")
    found, value = run_flow(config)
    assert found == [(name, "Cached") for name in STAGES]
    assert file_digest(folder / "report.json") == before
    assert value["run"] == str(folder)


@pytest.mark.parametrize("damage", ["cut", "gone", "manifest"])
def test_damaged_output_is_made_again_and_nothing_else(config: RunConfig, folder: Path, damage: str) -> None:
    student = folder / "round-01" / "student"
    weights, digest = student / "weights.safetensors", file_digest(student / "weights.safetensors")
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:100])
    elif damage == "gone":
        shutil.rmtree(student)
    else:
        (student / "manifest.json").unlink()
    found, _ = run_flow(config)
    assert [name for name, state in found if state != "Cached"] == ["train prompt student, round 1"]
    assert file_digest(weights) == digest
    assert verified(student) is not None


def test_cut_predictions_are_written_again(config: RunConfig, folder: Path) -> None:
    path = folder / "predictions.parquet"
    digest = file_digest(path)
    path.write_bytes(path.read_bytes()[:50])
    run_flow(config)
    assert file_digest(path) == digest


def test_another_folder_never_gets_a_result_of_this_one(config: RunConfig, folder: Path, tmp_path: Path) -> None:
    other = config.model_copy(update={"run_dir": str(tmp_path / "other")})
    found, value = run_flow(other)
    assert {state for _, state in found} == {"Completed"}
    assert all(path.startswith(str(tmp_path)) for path in value["files"])
    same = "final/weights.safetensors"
    assert file_digest(folder / same) == file_digest(tmp_path / "other" / same)


@pytest.fixture(scope="module")
def two_views(server: None, tiny_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """The configuration of a finished run of a committee."""
    folder = tmp_path_factory.mktemp("committee")
    config = committee_config(more_labels(tiny_files, folder), folder / "run")
    found, _ = run_flow(config)
    assert found == [(name, "Completed") for name in COMMITTEE]
    return config


def test_a_committee_has_few_task_runs_and_all_are_cached(two_views: RunConfig) -> None:
    assert len(COMMITTEE) - 2 * 4 + 6 * 4 < 60  # of the six rounds of a usual run
    found, _ = run_flow(two_views)
    assert found == [(name, "Cached") for name in COMMITTEE]


@pytest.mark.parametrize(
    ("damaged", "again"),
    [
        ("round-00/teacher-text/weights.safetensors", "text-tune the teacher"),
        ("round-00/committee/mixture.json", "weigh the views"),
        ("round-01/student-text/meta_weights.parquet", "train text student, round 1"),
    ],
)
def test_a_damaged_file_of_the_text_view_is_made_again_and_nothing_else(
    two_views: RunConfig, damaged: str, again: str
) -> None:
    path = Path(str(two_views.run_dir)) / damaged
    digest = file_digest(path)
    path.write_bytes(path.read_bytes()[:40])
    found, _ = run_flow(two_views)
    assert [name for name, state in found if state != "Cached"] == [again]
    assert file_digest(path) == digest
    assert verified(path.parent) is not None


def artifacts() -> dict[str, Any]:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return {artifact.key: artifact for artifact in client.read_latest_artifacts() if artifact.key}


def test_artifacts_have_stable_keys(config: RunConfig, folder: Path) -> None:
    run_flow(config)
    found = artifacts()
    assert set(found) >= ARTIFACTS
    assert all(found[key].description for key in ARTIFACTS)
    report = str(found["list-report"].data)
    assert "| final, round 2 |" in report
    assert "](data:image/png;base64," in report
    assert f"({(folder / 'report.html').as_uri()}): `{folder / 'report.html'}`" in report


def test_the_round_table_says_what_changed(config: RunConfig, folder: Path) -> None:
    run_flow(config)
    start, *rounds = json.loads(artifacts()["list-rounds"].data)
    report = json.loads((folder / "report.json").read_text("utf-8"))
    reached = [report["labelled_only"]["accuracy"], *(found["student"]["accuracy"] for found in report["rounds"])]
    assert start == {
        "round": 0, "verdict": "start", "accuracy": f"{100 * reached[0]:.1f} %", "on its teacher": "",
        "on labels alone": "+0.0", "kappa": "",
    }  # fmt: skip
    assert [row["on its teacher"] for row in rounds] == [
        f"{100 * (after - before):+.1f}" for before, after in pairwise(reached)
    ]
    assert rounds[1]["on labels alone"] == f"{100 * (reached[2] - reached[0]):+.1f}"
    assert list(rounds[0])[:3] == ["round", "verdict", "accuracy"]  # what a narrow page cuts comes last
    assert "Kappa: how alike the student and its teacher" in artifacts()["list-rounds"].description


def test_the_log_of_a_run_says_what_each_stage_found_and_where_the_report_is(
    config: RunConfig, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    report = report_of(folder)
    assert report.rounds[1].student is not None
    assert report.final is not None
    with caplog.at_level("INFO", "prefect"):
        run_flow(config)
    said = [record.getMessage() for record in caplog.records if record.name == "prefect.flow_runs"]
    own, other = (f"{100 * found.student.accuracy:.1f} %" for found in report.rounds[::-1] if found.student)
    assert f"round 1: prompt student {other} on test rows" in said
    (verdict,) = (line for line in said if line.startswith(f"round 2: {own} on test rows ("))
    assert verdict.endswith(f"on labels alone), promoted, kappa {report.rounds[1].agreement:.2f}")
    assert "round 2: 48 pseudo rows, mean confidence " in "\n".join(said)
    assert f"Report: {folder / 'report.html'}" in said
    assert any(line.startswith(summary(report)) for line in said)
    assert not [record for record in caplog.records if record.name == "prefect.task_runs"]


def test_a_run_of_two_views_shows_both(server: None, tiny_files: dict[str, Path], tmp_path: Path) -> None:
    both = {"second": TEXT_VIEW, "rounds": {"count": 1}, "mixture": {"smallest": 0.0}}
    with both_heard():
        names, _ = run_flow(build_config("fast", tiny_overlay(tiny_files, tmp_path / "run"), both))
    assert [name for name, _ in names] == [
        "prompt-tune the teacher", "text-tune the teacher", "weigh the views", "pseudo-label, round 1",
        "train prompt student, round 1", "train text student, round 1", "judge, round 1", "publish",
    ]  # fmt: skip
    found = artifacts()
    (start, row), weights = (json.loads(found[key].data) for key in ("list-rounds", "list-meta-weights"))
    report = json.loads((tmp_path / "run" / "report.json").read_text("utf-8"))
    reached = {name: f"{100 * metrics['accuracy']:.1f} %" for name, metrics in report["rounds"][0]["students"].items()}
    assert {view: row[f"{view} view"] for view in ("prompt", "text")} == reached
    before = [report[name]["accuracy"] for name in ("start", "labelled_only")]
    changes = [f"{100 * (report['rounds'][0]['student']['accuracy'] - figure):+.1f}" for figure in before]
    assert [row["on its teacher"], row["on labels alone"]] == changes
    assert [line["view"] for line in weights] == ["prompt", "text"]
    assert {view: start[f"{view} view"] for view in ("prompt", "text")} == {
        view["view"]: f"{100 * view['start']['accuracy']:.1f} %" for view in report["views"]
    }
    weighed = ", ".join(f"{view['view']} view {100 * view['weight']:.1f} %" for view in report["views"])
    assert f"Believed: {weighed}." in found["list-rounds"].description
    assert found["list-views"].description == f"How far each view is believed: {weighed}"
    assert f"believed {100 * report['views'][1]['weight']:.1f} %" in found["list-views"].data
    page = str(found["list-report"].data)
    for words in ("## Two views", "| start, with the pool |", "| logistic regression on the same embeddings |"):
        assert words in page


def taught(folder: Path) -> list[list[Any]]:
    """The row ids that the teacher of round 2 labelled, and a list of probabilities for each class."""
    import pyarrow.parquet as pq

    table = pq.read_table(folder / "round-02" / "pseudo" / "labels.parquet")
    return [table[name].to_pylist() for name in ("row_id", "p_negative", "p_positive")]


def test_the_rows_that_meta_weights_spoke_for_and_against(config: RunConfig, folder: Path) -> None:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    run_flow(config)
    rows = json.loads(artifacts()["list-weighed-rows"].data)
    table = pq.read_table(folder / "round-02" / "student" / "meta_weights.parquet")
    means = table.group_by("row").aggregate([("weight", "mean")])["weight_mean"]
    weights = [float(row["weight"]) for row in rows]
    half = len(rows) // 2
    for found, best in ((weights[:half], pc.max(means)), (weights[half:], pc.min(means))):
        assert found == sorted(found, reverse=found == weights[:half])
        assert found[0] == pytest.approx(6 * best.as_py(), abs=0.01)
    sure = {row_id: max(shares) for row_id, *shares in zip(*taught(folder), strict=True)}
    lightest = [sure[row["row id"].strip("`")] for row in rows[half:] if row["weight"] == "0.00"]
    assert lightest == sorted(lightest)  # of rows that weigh nothing, the least sure come first
    assert {row["label"] for row in rows} <= {"`negative`", "`positive`"}
    assert list(rows[0]) == ["weight", "label", "row id", "text"]
    assert len({row["row id"] for row in rows}) == len(rows)


def test_without_rounds_the_start_is_shipped(config: RunConfig, tmp_path: Path) -> None:
    rounds = config.rounds.model_copy(update={"count": 0})
    run_flow(config.model_copy(update={"rounds": rounds, "run_dir": str(tmp_path / "run")}))
    found = report_of(tmp_path / "run")
    assert found.rounds == ()
    assert found.final == found.labelled_only
    assert summary(found).endswith("; there were no rounds of self-training.")


def test_bad_input_within_the_flow_stays_one_sentence(config: RunConfig, tmp_path: Path) -> None:
    from listflow.flows.run.self_training import self_train

    data = config.data.model_copy(update={"labelled": str(tmp_path / "absent.csv")})
    with pytest.raises(InputError, match=r"absent\.csv"):
        self_train(config.model_copy(update={"data": data}))


def test_a_second_writer_is_refused(config: RunConfig, folder: Path) -> None:
    from listflow.flows.run.self_training import self_train

    with single_writer(folder), pytest.raises(InputError, match="another process"):
        self_train(config)


def test_nothing_is_pickled(folder: Path, server: None) -> None:
    from prefect.settings import PREFECT_LOCAL_STORAGE_PATH

    stored = [path for path in PREFECT_LOCAL_STORAGE_PATH.value().iterdir() if path.is_file()]
    assert stored
    for path in stored:
        record = json.loads(path.read_text("utf-8"))
        if "__exc_type__" not in record:  # an error is stored by its name and sentence
            # A pickled result would stand in such a record too, as text.
            assert record["metadata"]["serializer"]["type"] == "json"


def test_the_form_of_the_ui_has_sections_limits_and_help() -> None:
    from listflow.flows.run.self_training import self_train

    schema = self_train.parameters.model_dump_for_openapi()
    shown = schema["definitions"]["RoundsConfig"]["properties"]["count"]
    assert (shown["minimum"], shown["maximum"]) == (0, 50)
    assert schema["definitions"]["DataConfig"]["properties"]["labelled"]["description"]


def test_the_meter_updates_every_few_seconds_only(server: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from listflow.flows.pages.artifacts import Meter
    from listflow.flows.server import client
    from listflow.pipeline.run.run import Progress

    made: list[tuple[float, str]] = []
    updated: list[float] = []

    def make(percent: float, key: str, words: str) -> UUID:
        made.append((percent, key))
        return uuid4()

    monkeypatch.setattr(client, "create_progress_artifact", make)
    monkeypatch.setattr(client, "update_progress_artifact", lambda artifact, percent, words: updated.append(percent))
    clock = iter_seconds(0.1)
    monkeypatch.setattr(client.time, "monotonic", lambda: next(clock))
    meter = Meter()
    for step in range(1, 201):
        meter.moved(Progress(1, "warmup", step, 200, 0.5))
    assert 3 <= len(made) + len(updated) <= 5  # the last one is the end
    assert [key for _, key in made] == ["list-progress"]
    for step in range(1, 201):
        meter.moved(Progress(2, "warmup", step, 200, 0.5))
    assert len(made) == 2  # an artifact a training
    assert updated[-1] == 100


def test_a_short_training_ends_at_100_percent(server: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from listflow.flows.pages.artifacts import Meter
    from listflow.flows.server import client
    from listflow.pipeline.run.run import Progress

    shown: list[float] = []

    def make(percent: float, key: str, words: str) -> UUID:
        shown.append(percent)
        return uuid4()

    monkeypatch.setattr(client, "create_progress_artifact", make)
    meter = Meter()
    for step in (1, 2, 3):
        meter.moved(Progress(1, "tail", step, 3, 0.5))
    assert shown == [100]


def test_progress_is_at_100_percent_where_all_stages_come_from_the_cache(config: RunConfig, folder: Path) -> None:
    run_flow(config)
    found = artifacts()["list-progress"]
    assert (found.type, float(found.data)) == ("progress", 100)
    assert found.description.startswith("all rounds are done: ")


def iter_seconds(step: float) -> Iterator[float]:
    now = 0.0
    while True:
        yield now
        now += step
