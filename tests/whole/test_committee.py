"""A run of two views that is interrupted anywhere, and resumed, ends with the same bytes as one that is not."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from committees import STUDENT, committee_config, committee_overlay, more_labels
from forks import ended
from interruptions import Interrupted, settled
from step_killer import run_until_killed

from listflow.pipeline import self_training
from listflow.pipeline.run.run import Progress
from listflow.pipeline.self_training import self_train
from listflow.pipeline.storage.checkpoint import verified

PARTS = ("prompt_tune", "weigh_views", "pseudo_label", "train_student", "judge", "publish")
# A text student that takes more steps than the prompt's, so that a number of a step tells them apart.
LONG = {"checkpoint_seconds": 0, "second": {"face": "text", "student": {**STUDENT, "steps": 18}}}


@pytest.fixture(scope="module")
def files(tiny_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return more_labels(tiny_files, tmp_path_factory.mktemp("labels"))


@pytest.fixture(scope="module")
def whole(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    self_train(committee_config(files, folder))
    return folder


def test_every_part_of_both_views_is_there(whole: Path) -> None:
    rounds = {0: ["committee", "teacher", "teacher-text"]}
    rounds |= {number: ["pseudo", "student", "student-text", "verdict.json"] for number in (1, 2)}
    for number, names in rounds.items():
        folder = whole / f"round-{number:02d}"
        assert sorted(path.name for path in folder.iterdir()) == names
        assert all(verified(path) for path in folder.iterdir() if path.is_dir())


def test_interrupted_after_every_part(
    whole: Path, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def ending(work: Callable[..., Any], name: str, last: int) -> Callable[..., Any]:
        def part(run: Any, *rest: Any) -> Any:
            found = work(run, *rest)
            told.append(f"{name} {getattr(run, 'view', '')}")
            if len(told) == last:
                raise Interrupted
            return found

        return part

    attempts, over = 0, False
    while not over:
        attempts += 1
        told.clear()
        with monkeypatch.context() as patch:
            for name in PARTS:
                patch.setattr(self_training, name, ending(getattr(self_training, name), name, attempts))
            try:
                self_train(committee_config(files, tmp_path / "run"))
                over = True
            except Interrupted:
                continue
    assert [name.split()[0] for name in told] == [
        "prompt_tune", "prompt_tune", "weigh_views",
        *(["pseudo_label", "train_student", "train_student", "judge"] * 2), "publish",
    ]  # fmt: skip
    assert attempts == len(told) + 1
    assert settled(tmp_path / "run") == settled(whole)


def test_interrupted_within_every_phase(whole: Path, files: dict[str, Path], tmp_path: Path) -> None:
    met: set[tuple[int, str, int]] = set()

    def interrupt(now: Progress) -> None:
        phase = (now.round, now.phase, now.total)
        if phase not in met:
            met.add(phase)
            raise Interrupted

    over = False
    while not over:
        try:
            self_train(committee_config(files, tmp_path / "run"), interrupt)
            over = True
        except Interrupted:
            continue
    phases = {phase for _, phase, _ in met}
    assert phases >= {"embed", "labelled", "folds", "label", "warmup", "reweighted", "tail", "judge", "test", "predict"}
    assert len({(number, total) for number, phase, total in met if phase == "warmup"}) == 4  # two views, two rounds
    assert settled(tmp_path / "run") == settled(whole)


def test_killed_in_a_step_of_the_text_student(files: dict[str, Path], tmp_path: Path) -> None:
    overlay = committee_overlay(files, tmp_path / "killed") | LONG
    assert ended(run_until_killed, overlay, 1, 20) == -signal.SIGKILL
    folder = tmp_path / "killed" / "round-01"
    assert verified(folder / "student") is not None
    assert not (folder / "student-text").exists()
    assert list(folder.glob("*.step"))
    starts: list[int] = []
    self_train(
        committee_config(files, tmp_path / "killed", LONG),
        lambda now: starts.append(now.done) if now.round == 1 and now.loss is not None else None,
    )
    assert starts[0] == 20
    self_train(committee_config(files, tmp_path / "plain", LONG))
    assert settled(tmp_path / "killed") == settled(tmp_path / "plain")


def test_a_damaged_part_of_the_text_view_is_made_again_and_nothing_else(whole: Path, files: dict[str, Path]) -> None:
    before, made = settled(whole), times(whole)
    for damaged in ("round-01/student-text/weights.safetensors", "round-00/teacher-text/evidence.safetensors"):
        (whole / damaged).write_bytes((whole / damaged).read_bytes()[:50])
        self_train(committee_config(files, whole))
        assert settled(whole) == before
        again = {name for name, when in times(whole).items() if when != made[name]}
        assert again == {f"{Path(damaged).parent}"}
        made = times(whole)


def times(run: Path) -> dict[str, int]:
    """When each part of a run was made."""
    return {
        str(path.parent.relative_to(run)): path.stat().st_mtime_ns
        for path in run.rglob("manifest.json")
        if path.parent.name != "final"
    }
