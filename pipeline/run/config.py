"""The configuration of a run: typed, limited, documented, and the form that a Prefect UI shows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from listflow.data.files import at_home
from listflow.data.schema import Section
from listflow.pipeline.model.config import AnyHead, PrototypesHead, VerbalizerHead, reads_middle
from listflow.pipeline.stages.config import NoStage
from listflow.pipeline.stages.presets import Stages, expand

Round = Annotated[int, Field(ge=1)]
Homed = Annotated[str, AfterValidator(at_home)]  # the name of a file or folder, which may begin with ~


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
    """Where the texts are: csv, tsv, jsonl, json or parquet files, or hub data set ids."""

    labelled: Homed | None = Field(None, description="file of labelled rows; empty: the embedded demo")
    unlabelled: tuple[Homed, ...] = Field((), description="files of unlabelled rows")
    test: Homed | None = Field(None, description="file of labelled test rows, used for reporting only")
    columns: str | None = Field(None, description="column names, such as text=body,label=intent")
    shots: int | None = Field(None, ge=2, description="draw this many labelled rows in total; empty: all")
    balanced: bool = Field(True, description="draw the same number per class; off: as they come")
    pool: int = Field(
        20_000,
        ge=10,
        le=1_000_000_000,
        description="unlabelled rows that the rounds read: a seeded sample where there are more",
    )


class BackboneConfig(Section):
    """The frozen masked language model."""

    name: str = Field("minilm", description="'minilm' or 'minilm-2' (embedded), a local folder, or a hub id")
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
    prior: Literal["none", "teacher", "shares"] = Field(
        "none",
        description="teacher: hold the mean soft label at that of the round-0 teacher; shares: at the classes' shares "
        "of the pool that the task states, or at those of the first round",
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

    count: int = Field(6, ge=0, le=50, description="0: the start alone, which needs no unlabelled file")
    promote: Literal["always", "gated"] = Field("always", description="gated: only a student not worse")
    stop_at_agreement: float | None = Field(None, gt=0, le=1, description="Cohen's kappa of consecutive teachers")
    foreign: Literal["refuse", "train"] = Field(
        "refuse", description="a continued run whose new rows are nothing like the old ones: refuse it, or train"
    )
    sample: int = Field(1000, ge=10, le=100_000, description="unlabelled rows for agreement and judging")
    test_rows: int | None = Field(
        None, ge=10, description="test rows for zero-shot and the students in between; teacher and final see all"
    )


class ViewConfig(Section):
    """A second view of the same texts, beside the prompt: label vectors on the text face of the backbone."""

    face: Literal["text"] = Field("text", description="what it reads: the sentence embedding of the bare text")
    head: PrototypesHead = PrototypesHead()
    student: StudentConfig = StudentConfig()


class MixtureConfig(Section):
    """How far each of two views is believed, decided once, in round 0, by what K labels can tell."""

    folds: int = Field(5, ge=2, le=50, description="parts of the labelled rows that are predicted without themselves")
    smallest: float = Field(0.1, ge=0, lt=0.5, description="a view of less weight has no say, and is not computed")


class RunConfig(Section):
    """Everything that decides the outcome of a run, and where it is kept."""

    task: Homed | None = Field(None, description="built-in task or a YAML file; empty: the demo, or inferred labels")
    data: DataConfig = DataConfig()
    continues: Homed = Field("", description="finished run whose final model is the first teacher; empty: tune one")
    continues_model: str = Field("", description="sha256 of that model; filled in when a run is opened")
    backbone: BackboneConfig = BackboneConfig()
    face: Literal["prompt", "text"] = Field(
        "prompt", description="what is read: the masked LM at the mask of the prompt, or the bare text's embedding"
    )
    stage: Stages = Field(default_factory=lambda: expand("list"), validate_default=True)
    head: AnyHead = VerbalizerHead()
    second: ViewConfig | None = Field(None, description="another view, which teaches and predicts beside this one")
    mixture: MixtureConfig = MixtureConfig()
    teacher: TeacherConfig = TeacherConfig()
    student: StudentConfig = StudentConfig()
    pseudo: PseudoConfig = PseudoConfig()
    reweight: ReweightConfig = ReweightConfig()
    rounds: RoundsConfig = RoundsConfig()
    review: ReviewConfig = ReviewConfig()
    estimate: bool = Field(False, description="estimate the accuracy from labelled rows that are held out")
    calibrate: bool = Field(False, description="final probabilities as sure as those rows say that they may be")
    dropout: bool = Field(True, description="the backbone's own dropout while training")
    clip: float = Field(1.0, gt=0, description="global gradient norm")
    seed: int = Field(1, ge=0, le=2**31)
    checkpoint_seconds: float = Field(20.0, ge=0, description="least time between two step checkpoints")
    run_dir: Homed | None = Field(None, description="where the run is kept; empty: runs/<task>-<fingerprint>")

    @property
    def most_rows(self) -> int:
        """Unlabelled rows that the rounds read at most: as many as one of them draws, if that is more."""
        return max(self.data.pool, self.student.steps * self.student.batch, self.rounds.sample)

    def text_alone(self) -> RunConfig:
        """The view of the text face by itself, as the only one."""
        assert self.second is not None
        own = {"head": self.second.head, "student": self.second.student, "second": None}
        return self.model_copy(update={"face": "text", "stage": (NoStage(),), **own})

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
        if self.face == "text" and any(stage.kind != "none" for stage in self.stage):
            raise ValueError("face text takes stage none: the encoder stays as its makers left it")
        if self.face == "text" and isinstance(self.head, VerbalizerHead):
            raise ValueError("face text has no mask for head verbalizer; use head prototypes or linear")
        if self.face == "prompt" and reads_middle(self.head):
            raise ValueError("head.middle is of the text face; set it to 0, or face to text")
        if self.face == "text" and self.second:
            raise ValueError("second is the view of face text already; leave one of both out")
        if late := self.review.too_late(self.rounds.count):
            raise ValueError(f"{late}; change review.rounds or rounds.count")
        return self
