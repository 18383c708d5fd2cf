"""The configuration of a run: typed, limited, documented, and the form that a Prefect UI shows.

A preset is a nested dict of values; what the user sets lies over it, and what neither sets is the default here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from listflow.data.errors import InputError
from listflow.data.schema import Loc, Section, refusal
from listflow.pipeline.model.config import AnyHead, VerbalizerHead
from listflow.pipeline.stages.presets import Stages, expand, item_of, lives_in_layers

Round = Annotated[int, Field(ge=1)]


class ReviewConfig(Section):
    """A pause after pseudo-labelling in which a person corrects the most contested rows."""

    rows: int = Field(0, ge=0, le=500, description="contested rows that a round asks about; 0: no review")
    rounds: Literal["first", "all"] | tuple[Round, ...] = Field(
        "first", description="first, all (but the last, which no round follows), or a list of rounds such as [1, 3]"
    )
    timeout: float = Field(
        60,
        ge=0,
        le=10_080,
        description="minutes to wait for answers; 0: go on at once, answers count until the next round",
    )

    def asks(self, number: int, count: int) -> bool:
        """Whether round ``number`` of ``count`` asks: its answers are labelled rows from the next one on."""
        if not self.rows or not 1 <= number < count:
            return False
        if isinstance(self.rounds, str):
            return self.rounds == "all" or number == 1
        return number in self.rounds

    def too_late(self, count: int) -> str:
        """What is wrong where a round of ``count`` is to ask and none follows it; empty where nothing is."""
        late = [number for number in self.rounds if number >= count] if isinstance(self.rounds, tuple) else []
        if not self.rows or (count > 1 and not late):
            return ""
        return (
            f"round {late[0] if late else 1} of {count} cannot ask for a review: its answers are for the round after it"
        )


class DataConfig(Section):
    """Where the texts are: csv, tsv, jsonl or parquet files, or hub data set ids."""

    labelled: str | None = Field(None, description="file of labelled rows; empty: the embedded demo")
    unlabelled: tuple[str, ...] = Field((), description="files of unlabelled rows")
    test: str | None = Field(None, description="file of labelled test rows, used for reporting only")
    columns: str | None = Field(None, description="column names, such as text=body,label=intent")
    shots: int | None = Field(None, ge=2, description="draw this many labelled rows in total; empty: all")
    balanced: bool = Field(True, description="draw the same number per class; off: as they come")


class BackboneConfig(Section):
    """The frozen masked language model."""

    name: str = Field("minilm", description="'minilm' (embedded), a local folder, or a hub id")
    max_length: int = Field(128, ge=16, le=8192, description="tokens of template and text together")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="bf16 where the hardware has it")
    device: str = Field("auto", description="auto, cpu, or cuda")
    cache_gb: float = Field(
        4.0, ge=0, le=10_000, description="disk for the output of layers below the first tuned one; 0 keeps none"
    )
    cache_dir: str = Field("", description="folder for it that runs share; empty: each keeps its own")


class TeacherConfig(Section):
    """Round 0: prompt-tuning on the labelled rows only."""

    learning_rate: float = Field(5e-6, gt=0, le=1)
    epochs: int = Field(50, ge=1, le=10_000, description="passes over the labelled rows")
    batch: int = Field(4, ge=1, le=1024)


class StudentConfig(Section):
    """One round: KD warm-up, reweighted steps and a labelled tail under one linear decay."""

    learning_rate: float = Field(1e-4, gt=0, le=1)
    steps: int = Field(1000, ge=1, le=1_000_000, description="pseudo-labelled steps, warm-up included")
    batch: int = Field(16, ge=1, le=1024, description="pseudo-labelled rows a step")
    warmup: float = Field(0.6, ge=0, le=1, description="fraction of the steps with uniform weights")
    cutoff: float = Field(0.0, ge=0, lt=1, description="share of a pseudo-labelled row's tokens that is hidden")
    tail_epochs: int = Field(50, ge=0, le=10_000, description="labelled passes that close the round")
    tail_batch: int = Field(4, ge=1, le=1024)


class PseudoConfig(Section):
    """Soft labels of the teacher."""

    teachers: Literal["last", "all"] = Field(
        "last", description="all: label with the mean probability of every teacher so far, not of the last alone"
    )
    confidence: float = Field(0.0, ge=0, lt=1, description="warm-up skips rows below this top probability")
    temperature: float = Field(1.0, gt=0, le=10, description="below 1 sharpens the soft labels")
    prior: Literal["none", "teacher"] = Field(
        "none", description="teacher: hold the mean soft label at that of the round-0 teacher"
    )
    prior_errors: float = Field(
        0.0, ge=0, le=10, description="equal shares instead, where these are within so many standard errors"
    )


class ReweightConfig(Section):
    """Meta weights of the pseudo-labelled rows."""

    engine: Literal["fused", "higher", "jvp"] = Field("fused", description="all give the same weights")
    batch: int = Field(4, ge=1, le=1024, description="labelled rows a step")
    eps: float = Field(1e-12, ge=0, description="added to the sum of positive scores")


class RoundsConfig(Section):
    """How many rounds, and when a student replaces its teacher."""

    count: int = Field(6, ge=1, le=50)
    promote: Literal["always", "gated"] = Field("always", description="gated: only a student not worse")
    stop_at_agreement: float | None = Field(None, gt=0, le=1, description="Cohen's kappa of consecutive teachers")
    sample: int = Field(1000, ge=10, le=100_000, description="unlabelled rows for agreement and judging")
    test_rows: int | None = Field(
        None, ge=10, description="test rows for zero-shot and the students in between; teacher and final see all"
    )


class RunConfig(Section):
    """Everything that decides the outcome of a run, and where it is kept."""

    task: str | None = Field(None, description="built-in task or a YAML file; empty: the demo, or inferred labels")
    data: DataConfig = DataConfig()
    continues: str = Field("", description="finished run whose final model is the first teacher; empty: tune one")
    continues_model: str = Field("", description="sha256 of that model; filled in when a run is opened")
    backbone: BackboneConfig = BackboneConfig()
    stage: Stages = Field(default_factory=lambda: expand("list"), validate_default=True)
    head: AnyHead = VerbalizerHead()
    teacher: TeacherConfig = TeacherConfig()
    student: StudentConfig = StudentConfig()
    pseudo: PseudoConfig = PseudoConfig()
    reweight: ReweightConfig = ReweightConfig()
    rounds: RoundsConfig = RoundsConfig()
    review: ReviewConfig = ReviewConfig()
    dropout: bool = Field(True, description="the backbone's own dropout while training")
    clip: float = Field(1.0, gt=0, description="global gradient norm")
    seed: int = Field(1, ge=0, le=2**31)
    checkpoint_seconds: float = Field(20.0, ge=0, description="least time between two step checkpoints")
    run_dir: str | None = Field(None, description="where the run is kept; empty: runs/<task>-<fingerprint>")

    @property
    def title(self) -> str:
        """What a list of runs may call it: its task, and its folder where that was chosen."""
        task = Path(self.task).stem if self.task else "own labels" if self.data.labelled else "demo"
        return f"{task}, {Path(self.run_dir).name}" if self.run_dir else f"{task}, seed {self.seed}"

    @model_validator(mode="after")
    def _fits_together(self) -> RunConfig:
        frozen = isinstance(self.head, VerbalizerHead) and not self.head.trained
        if frozen and all(stage.kind == "none" for stage in self.stage):
            raise ValueError("stage none with head.trained off leaves nothing to train; choose a stage")
        if late := self.review.too_late(self.rounds.count):
            raise ValueError(f"{late}; change review.rounds or rounds.count")
        return self


# The labelled meta gradient is scaled by the inner rate 5e-6 in the public script before its 1e-6 is added, so
# on raw scores that constant is 0.2.
_RELEASED: dict[str, Any] = {"reweight": {"eps": 0.2}, "stage": {"kind": "list"}}

# fmt: off
PRESETS: dict[str, dict[str, Any]] = {
    "released": _RELEASED,
    "published": _RELEASED
    | {"stage": {"kind": "list", "init_std": 0.02}, "teacher": {"epochs": 400}, "pseudo": {"confidence": 0.8}},
    "fast": {
        "stage": {"kind": "list", "width": 16, "init_std": 0.02, "layers": "top:1"},
        "teacher": {"learning_rate": 3e-4, "epochs": 15, "batch": 10},
        "student": {
            "learning_rate": 1e-3, "steps": 200, "batch": 16, "warmup": 0.9, "cutoff": 0.2, "tail_epochs": 15,
            "tail_batch": 10,
        },
        "pseudo": {
            "teachers": "all", "confidence": 0.95, "temperature": 0.5, "prior": "teacher", "prior_errors": 1.0,
        },
        "reweight": {"batch": 30},
        "rounds": {"sample": 500},
    },
}
# What the fast preset takes for heads that start from nothing, where a verbalizer starts from a trained masked-LM head,
# and for pseudo tokens: these need a higher rate, and a step of theirs passes through the whole backbone.
_PSEUDO_TOKENS: dict[str, Any] = {
    "teacher": {"learning_rate": 3e-3, "epochs": 30}, "student": {"learning_rate": 3e-3, "steps": 60},
    "rounds": {"sample": 200},
}
FAST_FOR: dict[str, dict[str, dict[str, Any]]] = {
    "head": {
        "linear": {"teacher": {"learning_rate": 3e-3, "epochs": 30}, "student": {"learning_rate": 3e-3}},
        "ytuning": {"teacher": {"learning_rate": 3e-5, "epochs": 30}, "student": {"learning_rate": 1e-4}},
    },
    "stage": dict.fromkeys(("ptuning", "soft_prompt", "soft_prompt_mlm", "ipt"), _PSEUDO_TOKENS),
}
# fmt: on


def build_config(preset: str = "fast", *overlays: dict[str, Any]) -> RunConfig:
    """The ``RunConfig`` of ``preset`` with ``overlays`` on top, later ones winning; InputError on a bad key."""
    if preset not in PRESETS:
        raise InputError(f"unknown preset '{preset}'; use one of: {', '.join(PRESETS)}.")
    merged: dict[str, Any] = {"head": {"kind": "verbalizer"}}
    suited = [FAST_FOR[part].get(kind, {}) for part in FAST_FOR for kind in _kinds_of(part, overlays)]
    for layer in (PRESETS[preset], *(suited if preset == "fast" else ()), *overlays):
        merged = _overlay(merged, layer)
    try:
        return RunConfig.model_validate(merged)
    except ValidationError as error:
        raise refusal(error, RunConfig, lambda loc: _as_written(loc, merged)) from error


def _as_written(loc: Loc, values: dict[str, Any]) -> Loc:
    """``loc`` with the number of a stage as the user counts: a preset may stand for several, and one has none."""
    if loc[:1] != ("stage",) or len(loc) == 1 or not isinstance(loc[1], int):
        return loc
    item = item_of(values["stage"], loc[1])
    return ("stage", *loc[2:]) if item is None else ("stage", item, *loc[2:])


def _overlay(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        if key in {"stage", "head"} and isinstance(value, str):
            value = {"kind": value}
        if key == "stage" and isinstance(value, list | tuple) and isinstance(merged.get(key), dict):
            value = [_with_layers(merged[key], item) for item in value]
        nested = isinstance(value, dict) and isinstance(merged.get(key), dict)
        if nested:
            under = _of_kind(merged[key], value) if key in {"stage", "head"} else merged[key]
            value = _overlay(under, value)
        merged[key] = value
    return merged


def _kinds_of(part: str, overlays: Sequence[dict[str, Any]]) -> list[str]:
    """The kinds of the stages, or of the head, that the last overlay to name any asks for."""
    for overlay in reversed(overlays):
        given = overlay.get(part)
        items = given if isinstance(given, list | tuple) else [given]
        kinds = [item.get("kind") if isinstance(item, dict) else item for item in items]
        if named := [kind for kind in kinds if kind and isinstance(kind, str)]:
            return named
    return []


def _with_layers(below: dict[str, Any], item: Any) -> Any:
    """``item`` of a list of stages in the layers that ``below`` chose, where it lives in layers and names none."""
    stage = {"kind": item} if isinstance(item, str) else item
    return _of_kind(below, stage) | stage if isinstance(stage, dict) and "kind" in stage else item


def _of_kind(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """What of a stage or head stays when ``above`` may name another kind: everything, or its layers alone."""
    kind = above.get("kind", below.get("kind"))
    if kind == below.get("kind"):
        return below
    return {key: value for key, value in below.items() if key == "layers" and lives_in_layers(str(kind))}
