"""The report of a run as values: what happened in every round; report.json is a contract."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from listflow.data.errors import InputError
from listflow.pipeline.method.drift import Drift
from listflow.pipeline.method.metrics import Curve, Estimate, Metrics, ReliabilityBin
from listflow.pipeline.run.wording import accuracy_told, capitalised, percent
from listflow.pipeline.storage.lineage import Lineage

FORMAT = 1
_COUNTING = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True)
class BackboneFacts:
    """The frozen model: what the user asked for, and how many parameters it has."""

    name: str
    parameters: int


@dataclass(frozen=True)
class DataFacts:
    """Rows of each kind; ``files`` names what they are from, by kind, and is empty for reports of earlier versions."""

    labelled: int
    unlabelled: int
    test: int
    files: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class PseudoFacts:
    """Pseudo labels of a round; ``per_class`` counts top labels, ``mean_confidence`` is 0 to 1."""

    rows: int
    per_class: dict[str, int]
    mean_confidence: float


@dataclass(frozen=True)
class ReweightFacts:
    """Meta weights of a round; the two statistics are None when no step was reweighted.

    ``uniform_steps`` counts steps where no row helped, so that all weighed the same.
    """

    engine: str
    zero_share: float | None = None
    effective_sample_size: float | None = None
    uniform_steps: int = 0


@dataclass(frozen=True)
class RoundReport:
    """One round. ``student`` is None without test rows; ``agreement`` is Cohen's kappa with its teacher.

    ``students`` are those of each view, where there are two; ``student`` is what they reach together.
    """

    round: int
    pseudo: PseudoFacts
    reweight: ReweightFacts
    student: Metrics | None
    promoted: bool
    agreement: float | None
    seconds: float
    reason: str = ""
    students: dict[str, Metrics | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Candidate:
    """A part of the text view's teacher by its ``weight`` of 1 in all; ``nll`` of rows held out, in nats."""

    name: str
    weight: float
    temperature: float
    nll: float


@dataclass(frozen=True)
class TextTeacher:
    """What the text view's teacher is made of. ``names_tell`` is how likely the names of labels say something, 0 to 1.

    Shares by label: what it estimates of the pool, those of the labelled rows, and what the task states of the pool.
    """

    candidates: tuple[Candidate, ...]
    names_tell: float
    pool_shares: dict[str, float]
    labelled_shares: dict[str, float]
    stated_shares: dict[str, float] | None = None


@dataclass(frozen=True)
class ViewReport:
    """A view of a run of two: how far it is believed, and why; of weight 0 it is not computed after the start.

    ``right`` of the K labelled rows it knew without their own label. ``labelled_only`` is it from labelled rows and
    names alone, ``start`` is its round-0 teacher, with the pool; ``evidence`` is a sentence, ``decided_by`` what it was
    decided by, and ``nll`` that of the true classes in nats, at the ``temperature`` of its logits.
    """

    view: str
    stage: str
    head: str
    weight: float
    right: int
    labelled_only: Metrics | None
    start: Metrics | None
    evidence: str = ""
    decided_by: str = ""
    nll: float | None = None
    temperature: float | None = None
    teacher: TextTeacher | None = None


@dataclass(frozen=True)
class WeightHistogram:
    """Counts of meta weights between common ``edges``, per round."""

    edges: tuple[float, ...]
    counts: dict[int, tuple[int, ...]]


@dataclass(frozen=True)
class FigureData:
    """What only plots show: confusion (rows = gold) and reliability of the final model, meta weights."""

    confusion: tuple[tuple[int, ...], ...] | None = None
    reliability: tuple[ReliabilityBin, ...] | None = None
    meta_weights: WeightHistogram | None = None


@dataclass(frozen=True)
class RunReport:
    """A whole run, in the order of report.json. Metrics are None without test rows.

    ``stopped`` is "max_rounds" or "agreement"; ``notices`` are sentences for the reader. ``stage`` and ``head`` are
    names with values in brackets; reports of earlier versions have none. ``drift`` is a continued run's, as are
    ``parent``, the name of the run that it goes on from, and ``adopted``, what that run's model reached on these rows.
    ``start`` is what the round-0 teachers reach with the pool, where they use it; ``baselines`` are what people would
    use instead, by name: None where it cannot be fitted. ``unknown`` is the share of tokens that the backbone does not
    know, by kind of rows; reports of earlier versions have none. ``estimate`` is of the final model, from the
    labels, ``curve`` what more of them would bring. ``lineage`` is a continued run's, and of it alone.
    """

    run_id: str
    task: str
    labels: tuple[str, ...]
    seed: int
    backbone: BackboneFacts
    trainable_parameters: int
    data: DataFacts
    zero_shot: Metrics | None
    labelled_only: Metrics | None
    rounds: tuple[RoundReport, ...]
    final: Metrics | None
    stopped: str
    seconds: float
    notices: tuple[str, ...] = ()
    figures: FigureData = FigureData()
    stage: str = ""
    head: str = ""
    drift: Drift | None = None
    parent: str = ""
    adopted: Metrics | None = None
    start: Metrics | None = None
    views: tuple[ViewReport, ...] = ()
    baselines: dict[str, Metrics | None] = field(default_factory=dict)
    unknown: dict[str, float] = field(default_factory=dict)
    estimate: Estimate | None = None
    curve: Curve | None = None
    lineage: Lineage | None = None

    @property
    def beginning(self) -> tuple[str, Metrics | None]:
        """What the rounds set out from, in words, and its metrics."""
        return (f"model of {self.parent}", self.adopted) if self.parent else ("labels alone", self.labelled_only)

    @property
    def final_round(self) -> int:
        """The round whose model is the final one: the last that was promoted, or 0, the start."""
        return max((record.round for record in self.rounds if record.promoted), default=0)

    def to_dict(self) -> dict[str, Any]:
        """What report.json holds: only lists, dicts with string keys, and plain values."""
        return {"format": FORMAT} | _ADAPTER.dump_python(self, mode="json")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunReport:
        """The report that ``to_dict`` wrote; InputError for another format number or missing values."""
        if values.get("format") != FORMAT:
            found = values.get("format")
            raise InputError(f"report.json has format {found!r}, this version reads {FORMAT}; run it again.")
        try:
            return _ADAPTER.validate_python(values)
        except ValidationError as error:
            where = ".".join(str(part) for part in error.errors()[0]["loc"])
            raise InputError(f"report.json is damaged at '{where}': {error.errors()[0]['msg']}.") from error


_ADAPTER = TypeAdapter(RunReport)


def headline(report: RunReport) -> str:
    """A sentence on the outcome, and one on what to do where the run lost."""
    return " ".join(filter(None, (summary(report), advice(report))))


def lost(report: RunReport) -> float:
    """Percentage points by which the run ends below what it set out from on the test rows; 0 where it does not."""
    begun = report.beginning[1]
    if begun is None or report.final is None:
        return 0.0
    return max(0.0, round(100 * (begun.accuracy - report.final.accuracy), 1))


def advice(report: RunReport) -> str:
    """What to do about a loss, in a sentence; empty where there is none."""
    points = lost(report)
    if not points:
        return ""
    words = report.beginning[0]
    told = (
        f"The {words} {'was' if report.parent else 'were'} better by {points:.1f} points: "
        "label the rows that a run with `--set review.rows=20` asks about"
    )
    if report.parent:  # a run that goes on is gated
        return f"{told}."
    return f"{told}, or try `--promote gated`, which refuses a student that is worse on labelled rows."


def summary(report: RunReport) -> str:
    """One sentence on the outcome."""
    count = len(report.rounds)
    known = accuracy_told(report.final.accuracy if report.final else None, report.estimate)
    if not count and not report.data.unlabelled:
        labelled = f"{report.data.labelled} labelled texts alone"
        return f"{capitalised(known)} from {labelled}; without unlabelled ones there are no rounds."
    rounds = "one round" if count == 1 else f"{_COUNTING[count] if count < len(_COUNTING) else count} rounds"
    training = f"{rounds} of self-training on {report.data.unlabelled:,} unlabelled texts"
    words, begun = report.beginning
    if begun is None or report.final is None:
        return f"{capitalised(training)}; {known}."
    before, after = percent(begun.accuracy), percent(report.final.accuracy)
    known = f"{before} accuracy with the {words}"
    if report.start is not None:
        known += f", {percent(report.start.accuracy)} at the start with the pool"
    if lost(report):
        known = f"A loss: {known}"
    if not count:
        return f"{known}; there were no rounds of self-training."
    if not any(record.promoted for record in report.rounds):
        return f"{known}; no student was promoted in {training}."
    return f"{known}, {after} after {training}."
