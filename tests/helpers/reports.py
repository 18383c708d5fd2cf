"""Reports of made-up runs, of one view and of two."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from listflow.pipeline.method.metrics import Metrics, confusion, histogram, reliability
from listflow.pipeline.results.report import (
    BackboneFacts,
    Candidate,
    DataFacts,
    FigureData,
    PseudoFacts,
    ReweightFacts,
    RoundReport,
    RunReport,
    TextTeacher,
    ViewReport,
    WeightHistogram,
)

TOPICS = ("billing", "cancel subscription", "delivery", "login & password", "refund", "other")
SCORES = (0.690, 0.712, 0.708, 0.731, 0.738, 0.743)


def make_round(number: int, labels: tuple[str, ...], accuracy: float | None, promoted: bool) -> RoundReport:
    rng = np.random.default_rng(number)
    counts = rng.multinomial(2400, rng.dirichlet([6.0] * len(labels))).tolist()
    return RoundReport(
        round=number,
        pseudo=PseudoFacts(2400, dict(zip(labels, counts, strict=True)), 0.71 + 0.03 * number),
        reweight=ReweightFacts("fused", 0.38 + 0.02 * number, 7.1 - 0.3 * number, 2 if number == 2 else 0),
        student=None if accuracy is None else Metrics(accuracy, accuracy - 0.02, 0.11 - 0.01 * number),
        promoted=promoted,
        agreement=0.62 + 0.05 * number,
        seconds=41.3 + number,
        reason="every student replaces its teacher" if promoted else "below its teacher on the labelled rows",
    )


def make_figures(classes: int, rounds: int, with_test: bool) -> FigureData:
    rng = np.random.default_rng(0)
    drawn = [rng.dirichlet([0.6] * 16, 125).ravel() * (rng.random(2000) > 0.4) for _ in range(rounds)]
    table = {number: histogram(values, 25) for number, values in enumerate(drawn, 1)}
    meta = WeightHistogram(table[1][0], {r: counts for r, (_, counts) in table.items()})
    if not with_test:
        return FigureData(meta_weights=meta)
    gold = rng.integers(classes, size=900)
    logits = 2.4 * np.eye(classes)[gold] + rng.normal(size=(900, classes)) * 1.3
    given = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    matrix = tuple(tuple(line) for line in confusion(given.argmax(1), gold, classes))
    return FigureData(matrix, reliability(given, gold), meta)


def make_report(labels: tuple[str, ...] = TOPICS, with_test: bool = True, **changes: Any) -> RunReport:
    scores = SCORES if with_test else (None,) * len(SCORES)
    rounds = tuple(make_round(number, labels, score, number != 3) for number, score in enumerate(scores, 1))
    report = RunReport(
        run_id="support-8f3a12c0",
        task="support",
        labels=labels,
        seed=1,
        backbone=BackboneFacts("minilm", 22_713_216),
        trainable_parameters=297_984,
        data=DataFacts(labelled=30, unlabelled=6890, test=900 if with_test else 0),
        zero_shot=Metrics(0.412, 0.371, 0.213) if with_test else None,
        labelled_only=Metrics(0.661, 0.643, 0.142) if with_test else None,
        rounds=rounds,
        final=Metrics(0.743, 0.728, 0.047) if with_test else None,
        stopped="max_rounds",
        seconds=418.2,
        notices=("No labelled row has the label 'other': it can only be learned from its label word.",),
        figures=make_figures(len(labels), len(rounds), with_test),
        stage="list (layers top:1, width 16)",
        head="verbalizer",
    )
    return replace(report, **changes)


def make_committee(evil: str = "", weight: float = 0.4, **changes: Any) -> RunReport:
    """A report of two views; ``evil`` in every text that comes from elsewhere."""
    report = make_report()
    low, high = Metrics(0.6, 0.59, 0.1), Metrics(0.7, 0.69, 0.1)
    shares = dict.fromkeys((*TOPICS[:-1], evil or TOPICS[-1]), 1 / 6)
    stated = {label: 0.125 if label == "refund" else 0.175 for label in shares}
    names = ("regression", f"names {evil}")
    teacher = TextTeacher(tuple(Candidate(name, 0.5, 1.2, 0.34) for name in names), 0.87, shares, shares, stated)
    why = f"24 of 30 labelled rows right {evil}"
    views = (
        ViewReport(
            "prompt", f"list {evil}", f"verbalizer {evil}", weight, 19, low, low, why, "rows held out", 0.9, 1.1
        ),
        ViewReport("text", "none", "prototypes", 1 - weight, 24, low, high, why, "rows held out", 0.7, 0.9, teacher),
    )
    students = {"prompt": low, "text": high} if weight else {"text": high}
    rounds = tuple(replace(record, students=students) for record in report.rounds)
    others = {"logistic regression": low, f"label spreading {evil}": None}
    values = {"views": views, "rounds": rounds, "start": Metrics(0.701, 0.69, 0.1), "baselines": others}
    return replace(report, labels=tuple(shares), **(values | changes))
