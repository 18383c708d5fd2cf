"""The layout of a run on disk, said once.

RUN/config.json  inputs.json               what was asked and what was fed, written when a run is recorded
RUN/.flow-run.json                         which flow run works on it, while one does
RUN/inputs/                                the pool (data/pools/record.py), reviewed.json, tokens/, features/, vectors/
RUN/inputs/given/                          rows that Python code gave to a fit
RUN/round-00/teacher/  teacher-text/       a model: weights, evidence; that of the second view
RUN/round-00/committee/                    how far each of two views is believed
RUN/round-0r/pseudo/                       the round's pseudo labels
RUN/round-0r/student/  student-text/       a model, and its meta weights
RUN/round-0r/review/                       what a person is asked, and what they said (review.py)
RUN/round-0r/verdict.json                  whether the student was promoted
RUN/round-0r/KEY.step                      a training that was interrupted
RUN/final/                                 what is shipped: weights, card, logits of the test rows
RUN/predictions.parquet  predictions.json  a label for every row of the pool, and what it was made from
RUN/drift.json                             a continued run's look at its new rows
RUN/report.json  report.html  plots/

Folders that appear whole have a manifest (checkpoint.py). Here are paths only: nothing is read or written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CONFIG, INPUTS, HOLDER = "config.json", "inputs.json", ".flow-run.json"
LONGEST_NAME = 240  # bytes of a task's name in that of a folder, of which file systems take 255
SECOND = "-text"  # ends the names of a second view's models

# Within the folders of models, of pseudo labels, and final/: they are filled aside, before they have their place.
WEIGHTS, EVIDENCE, META_WEIGHTS = "weights.safetensors", "evidence.safetensors", "meta_weights.parquet"
LABELS = "labels.parquet"
MIXTURE = "mixture.json"
CARD, TEST_LOGITS = "model.json", "test.safetensors"


@dataclass(frozen=True)
class RoundFolder:
    """Where round ``number`` is kept; round 0 is the first teacher's. ``suffix`` is that of a second view's models."""

    path: Path
    number: int
    suffix: str = ""

    @property
    def model(self) -> Path:
        """The teacher (round 0) or the student."""
        return self.path / (("student" if self.number else "teacher") + self.suffix)

    @property
    def second(self) -> RoundFolder:
        """The same round as a second view keeps it."""
        return RoundFolder(self.path, self.number, SECOND)

    @property
    def weights(self) -> Path:
        return self.model / WEIGHTS

    @property
    def evidence(self) -> Path:
        """Logits of the model that the gate, the soft labels and the report read again."""
        return self.model / EVIDENCE

    @property
    def meta_weights(self) -> Path:
        return self.model / META_WEIGHTS

    @property
    def committee(self) -> Path:
        """How far each view is believed, and by what evidence; in round 0 of a run of two views."""
        return self.path / "committee"

    @property
    def pseudo(self) -> Path:
        """The folder of the pseudo labels."""
        return self.path / "pseudo"

    @property
    def labels(self) -> Path:
        """The pseudo labels themselves."""
        return self.pseudo / LABELS

    @property
    def review(self) -> Path:
        return self.path / "review"

    @property
    def verdict(self) -> Path:
        return self.path / "verdict.json"

    def step(self, key: str) -> Path:
        """Where a training that is known by ``key`` keeps its last step."""
        return self.path / f"{key}.step"

    def steps(self) -> Iterator[Path]:
        """The step checkpoints that are there."""
        return self.path.glob("*.step")

    def half_steps(self) -> Iterator[Path]:
        """What a kill left of step checkpoints that were being written."""
        return self.path.glob("*.step.part")


@dataclass(frozen=True)
class RunFolder:
    """Where the parts of the run in ``path`` are kept."""

    path: Path

    @property
    def config(self) -> Path:
        """What was asked: the mark of a run that is recorded."""
        return self.path / CONFIG

    @property
    def inputs(self) -> Path:
        """What was fed: the task, the files, their digests."""
        return self.path / INPUTS

    @property
    def holder(self) -> Path:
        """Which flow run works on it: there while one does, and after one was killed."""
        return self.path / HOLDER

    @property
    def kept_inputs(self) -> Path:
        """The folder of what is kept of the inputs."""
        return self.path / "inputs"

    @property
    def given(self) -> Path:
        """The rows that Python code gave to a fit, as files."""
        return self.kept_inputs / "given"

    @property
    def reviewed(self) -> Path:
        """Rows that were labelled in reviews of earlier runs."""
        return self.kept_inputs / "reviewed.json"

    @property
    def tokens(self) -> Path:
        return self.kept_inputs / "tokens"

    @property
    def features(self) -> Path:
        """What the frozen layers give for the texts."""
        return self.kept_inputs / "features"

    @property
    def vectors(self) -> Path:
        """The text face of the texts."""
        return self.kept_inputs / "vectors"

    def round(self, number: int, suffix: str = "") -> RoundFolder:
        return RoundFolder(self.path / f"round-{number:02d}", number, suffix)

    def rounds(self) -> Iterator[RoundFolder]:
        """The rounds that are there, in no order."""
        for path in self.path.glob("round-*"):
            number = path.name.removeprefix("round-")
            if number.isdecimal():
                yield RoundFolder(path, int(number))

    @property
    def final(self) -> Path:
        return self.path / "final"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions.parquet"

    @property
    def predictions_record(self) -> Path:
        """What the predictions were made from."""
        return self.path / "predictions.json"

    @property
    def drift(self) -> Path:
        return self.path / "drift.json"

    @property
    def report(self) -> Path:
        """The report as values: the mark of a run that ended."""
        return self.path / "report.json"

    @property
    def page(self) -> Path:
        return self.path / "report.html"

    @property
    def plots(self) -> Path:
        return self.path / "plots"


def default_folder(task: str, fingerprint: str) -> Path:
    """Where a run is kept that nobody chose a folder for: directly below ``runs``, whatever its task is called."""
    parts = [part for part in re.split(r"[/\x00-\x1f\x7f]+", task) if part.strip(".")]
    name = "-".join(parts).encode()[:LONGEST_NAME].decode(errors="ignore") or "task"
    return Path("runs") / f"{name}-{fingerprint[:12]}"


def is_run(folder: Path) -> bool:
    """Whether a run is recorded in ``folder``."""
    return RunFolder(folder).config.is_file() and RunFolder(folder).inputs.is_file()


def runs_below(parent: Path) -> list[RunFolder]:
    """The recorded runs directly below ``parent``, by name."""
    return [RunFolder(config.parent) for config in sorted(parent.glob(f"*/{CONFIG}"))]
