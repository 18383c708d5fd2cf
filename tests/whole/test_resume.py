"""A run that is killed and resumed ends with the same bytes as one that is not."""

from __future__ import annotations

import hashlib
import signal
from pathlib import Path

import pytest
import torch
from interruptions import Interrupted, digests, hashed, interrupted_after, killed_and_resumed
from safetensors import SafetensorError
from tiny import tiny_overlay

from listflow.data.errors import InputError
from listflow.pipeline.run.config import RunConfig
from listflow.pipeline.run.opening import open_run
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.run.run import Progress
from listflow.pipeline.self_training import self_train
from listflow.pipeline.storage.checkpoint import load_checked, save_checked, verified


def test_three_kills_change_no_byte(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    killed_and_resumed(tiny_files, tmp_path, kills=3, dropout=True, seed=11)


@pytest.mark.long
def test_twenty_five_kills_change_no_byte(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    killed_and_resumed(tiny_files, tmp_path, kills=25, dropout=True, seed=12)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a signal may come within a finaliser
@pytest.mark.parametrize(
    "engine", ["fused", *(pytest.param(name, marks=pytest.mark.long) for name in ("higher", "jvp"))]
)
def test_an_interruption_inside_a_step_loses_no_whole_step(
    drawn: None, tiny_files: dict[str, Path], tmp_path: Path, engine: str
) -> None:
    def config(name: str) -> RunConfig:
        overlay = tiny_overlay(tiny_files, tmp_path / name) | {"reweight": {"batch": 4, "engine": engine}}
        overlay |= {"student": {"steps": 30, "batch": 6, "warmup": 0.5, "tail_epochs": 10, "tail_batch": 4}}
        return build_config("fast", overlay, {"checkpoint_seconds": 1000, "rounds": {"count": 1}})

    self_train(config("plain"))
    ends, delay = dict[int, int](), 0.1
    while not (tmp_path / "cut" / "report.json").exists():
        starts: dict[int, int] = {}
        before = dict(ends)

        def note(now: Progress, starts: dict[int, int] = starts) -> None:
            if now.loss is not None:
                starts.setdefault(now.round, now.done)
                ends[now.round] = now.done % now.total  # 0 for a training that is over

        with interrupted_after(delay):
            self_train(config("cut"), note)
        for number, start in starts.items():
            last = before.get(number, 0)
            assert not last or start in {last + 1, last + 2}  # a whole step may not have been told of yet
        delay += 0.07
    assert hashed(tmp_path / "cut") == hashed(tmp_path / "plain")


def test_a_second_signal_does_not_cost_the_checkpoint_of_the_first(
    tiny_files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a run has it that is cancelled: it hears of that by itself, and is sent SIGTERM besides."""
    torch.set_num_threads(2)  # as a run has them; tests have one
    config = build_config(
        "fast", tiny_overlay(tiny_files, tmp_path / "run"), {"checkpoint_seconds": 1000, "rounds": {"count": 1}}
    )
    told: list[int] = []

    def interrupt(now: Progress) -> None:
        if now.loss is not None:
            told.append(now.done)
            if len(told) == 3:
                raise Interrupted

    def save(path: Path, tensors: dict[str, torch.Tensor]) -> None:
        signal.raise_signal(signal.SIGTERM)
        save_checked(path, tensors)

    monkeypatch.setattr("listflow.pipeline.training.models.save_checked", save)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            self_train(config, interrupt)
    finally:
        signal.signal(signal.SIGTERM, before)
    self_train(config, interrupt)
    assert told[2:4] == [3, 4]


def test_no_step_checkpoint_outlives_a_run(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    """A kill between the appearance of a model and the end of its checkpoint leaves the latter behind."""
    config = build_config("fast", tiny_overlay(tiny_files, tmp_path / "run"))
    self_train(config)
    before = hashed(tmp_path / "run")
    for number in (0, 1):
        (tmp_path / "run" / f"round-0{number}" / "0123456789ab.step").write_bytes(b"left")
    self_train(config)
    assert hashed(tmp_path / "run") == before


@pytest.fixture(scope="module")
def finished(tiny_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    self_train(build_config("fast", tiny_overlay(tiny_files, folder)))
    return folder


def test_every_folder_verifies_and_predictions_cover_the_corpus(finished: Path) -> None:
    import pyarrow.parquet as pq

    folders = [finished / "final", finished / "round-00" / "teacher"]
    folders += [finished / f"round-0{r}" / part for r in (1, 2) for part in ("pseudo", "student")]
    assert all(verified(folder) for folder in folders)
    table = pq.read_table(finished / "predictions.parquet")
    assert table.num_rows == 60
    assert table.column_names[:5] == ["row_id", "corpus", "label", "p_negative", "p_positive"]
    assert table.column_names[-3:] == ["teacher_round_1", "teacher_round_2", "meta_weight"]


def test_a_finished_run_is_not_trained_again(finished: Path, tiny_files: dict[str, Path]) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("weights.safetensors")}
    self_train(build_config("fast", tiny_overlay(tiny_files, finished)))
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("weights.safetensors")} == before


def test_a_damaged_stage_is_made_again_with_the_same_bytes(finished: Path, tiny_files: dict[str, Path]) -> None:
    weights = finished / "round-01" / "student" / "weights.safetensors"
    before, report = digests(finished), hashlib.sha256(weights.read_bytes()).hexdigest()
    weights.write_bytes(weights.read_bytes()[:100])
    self_train(build_config("fast", tiny_overlay(tiny_files, finished)))
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == report
    assert digests(finished) == before


def test_another_config_is_refused_and_named(finished: Path, tiny_files: dict[str, Path]) -> None:
    other = build_config("fast", tiny_overlay(tiny_files, finished), {"seed": 9})
    with pytest.raises(InputError, match=r"seed is 1 there and 9 here"), open_run(other):
        pass


def test_changed_inputs_are_refused(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    labelled = tmp_path / "labelled.jsonl"
    labelled.write_bytes(tiny_files["labelled"].read_bytes())
    overlay = tiny_overlay(tiny_files | {"labelled": labelled}, tmp_path / "run")
    with open_run(build_config("fast", overlay)):
        pass
    labelled.write_text(labelled.read_text() + '{"text": "one more", "label": "positive"}\n')
    with (
        pytest.raises(InputError, match=r"other input files \(labelled changed since"),
        open_run(build_config("fast", overlay)),
    ):
        pass


def test_a_second_writer_is_refused(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    config = build_config("fast", tiny_overlay(tiny_files, tmp_path / "run"))
    with open_run(config), pytest.raises(InputError, match="another process is writing"), open_run(config):
        pass


def test_a_strangers_folder_is_left_alone(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with (
        pytest.raises(InputError, match="not a run directory"),
        open_run(build_config("fast", tiny_overlay(tiny_files, tmp_path))),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_texts_that_are_cut_are_counted(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    long = tmp_path / "long.jsonl"
    long.write_text('{"text": "' + "w1 " * 500 + '"}\n{"text": "w2 w3"}\n')
    config = build_config("fast", tiny_overlay(tiny_files | {"unlabelled": long}, tmp_path / "run"))
    with open_run(config) as run:
        assert any("1 unlabelled text(s) fill all 64 tokens" in notice for notice in run.notices)


def test_a_run_that_was_killed_before_it_was_recorded_goes_on(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    config = build_config("fast", tiny_overlay(tiny_files, tmp_path / "run"))
    with open_run(config):
        pass
    (tmp_path / "run" / "config.json").rename(tmp_path / "run" / "config.json.part")
    with open_run(config):
        assert (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "header"])
def test_a_damaged_step_checkpoint_costs_steps_and_changes_no_byte(
    tiny_files: dict[str, Path], finished: Path, tmp_path: Path, damage: str
) -> None:
    overlay = tiny_overlay(tiny_files, tmp_path / "run")

    def stop(now: Progress) -> None:
        if (now.round, now.done, now.phase) == (1, 6, "reweighted"):
            raise Interrupted

    with pytest.raises(Interrupted):
        self_train(build_config("fast", overlay), stop)
    (step,) = (tmp_path / "run" / "round-01").glob("*.step")
    content = bytearray(step.read_bytes())
    content[20 if damage == "header" else -9] ^= 1
    step.write_bytes({"cut": bytes(content[:-9]), "empty": b""}.get(damage, bytes(content)))
    starts: list[int] = []
    self_train(build_config("fast", overlay), lambda now: starts.append(now.done) if now.phase == "warmup" else None)
    assert starts[0] == 1
    assert hashed(tmp_path / "run") == hashed(finished)


def test_an_interruption_while_a_checkpoint_is_read_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import safetensors.torch

    def interrupted(path: Path) -> dict[str, torch.Tensor]:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as error:  # what the library does with whatever Python raises within it
            raise SafetensorError("cut") from error
        return {"a": torch.ones(2)}

    save_checked(tmp_path / "a.step", {"a": torch.ones(2)})
    monkeypatch.setattr(safetensors.torch, "load_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_checked(tmp_path / "a.step")
