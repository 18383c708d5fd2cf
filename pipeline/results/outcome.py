"""The end of a run: the final model, a prediction for every unlabelled row, and the report."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter
from torch import Tensor

from listflow.data.errors import InputError
from listflow.data.files import file_digest
from listflow.pipeline.method import metrics as evaluate
from listflow.pipeline.method.drift import Drift
from listflow.pipeline.method.metrics import Estimate
from listflow.pipeline.model.classifier import logits_of
from listflow.pipeline.results.drift import measure_drift
from listflow.pipeline.results.finished import model_digest, shipped
from listflow.pipeline.results.rendering import write_report
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
from listflow.pipeline.run.lineage import lineage_of
from listflow.pipeline.run.run import Run, counter
from listflow.pipeline.run.sources import names_of_files
from listflow.pipeline.run.wording import name_of, name_of_head, slide_told
from listflow.pipeline.storage.checkpoint import (
    MANIFEST,
    load_tensors,
    new_folder,
    read_json,
    save_tensors,
    verified,
    write_json,
)
from listflow.pipeline.storage.review import review_notices
from listflow.pipeline.storage.run_folder import CARD, TEST_LOGITS, WEIGHTS, RunFolder
from listflow.pipeline.training.baselines import baselines_of
from listflow.pipeline.training.committee import (
    Voice,
    meta_weights_of,
    mixture_of,
    reached,
    reached_by_labels,
    reasons,
    said_of,
    speaking,
)
from listflow.pipeline.training.estimate import accuracy_and_temperature
from listflow.pipeline.training.label_vectors import curve_of, has_label_vectors
from listflow.pipeline.training.models import forget_steps, metrics_of
from listflow.pipeline.training.predictions import write_predictions
from listflow.pipeline.training.rounds import load_model


def publish(run: Run, last: int) -> dict[str, Any]:
    """Writes final/, predictions.parquet and the report after round ``last``; returns the final manifest."""
    for number in range(last + 1):
        forget_steps(run, number)  # a kill may have come between a model and this
    winner = run.teacher_of(last + 1)
    inputs = {"model": model_digest(run, winner), "last": last}
    folder = run.files.final
    done = verified(folder)
    if done is None or done["inputs"] != inputs:
        estimate, temperature = accuracy_and_temperature(run, winner)
        test = _test_logits(run, winner, temperature)
        metrics = None if test is None or run.test_gold is None else metrics_of(test, run.test_gold)
        facts = {"inputs": inputs, "round": winner, "test": metrics, "temperature": temperature}
        facts |= {"estimate": estimate and asdict(estimate)}
        with new_folder(folder, facts) as aside:
            tensors, card = shipped(run, winner, temperature)
            save_tensors(aside / WEIGHTS, tensors)
            write_json(aside / CARD, card)
            if test is not None:
                save_tensors(aside / TEST_LOGITS, {"logits": test})
    predictions = run.files.predictions
    marker = run.files.predictions_record
    if not predictions.exists() or _marked(marker) != _marker(inputs, predictions):
        write_predictions(run, winner, last, _temperature_of(run), predictions)
        write_json(marker, _marker(inputs, predictions))
    if run.parent is not None and not run.files.drift.exists():
        drift = measure_drift(run, winner)
        write_json(run.files.drift, drift and asdict(drift))
    manifest = verified(folder) or {}
    write_report(build_report(run, manifest, last), run.folder)
    return manifest


def is_whole(folder: Path) -> bool:
    """Whether the run in ``folder`` ended, and nothing that it left and that is still there is damaged."""
    files = RunFolder(folder)
    predictions, marker = files.predictions, _marked(files.predictions_record)
    return (
        files.page.exists()
        and _marked(files.report) is not None
        and verified(files.final) is not None
        and predictions.exists()
        and isinstance(marker, dict)
        and marker.get("sha256") == file_digest(predictions)
        and all(verified(manifest.parent) for manifest in folder.glob(f"round-*/*/{MANIFEST}"))
    )


def report_of(folder: Path) -> RunReport:
    """The report that a finished run left behind; InputError when there is none."""
    files = RunFolder(folder)
    if files.config.exists() and not files.report.exists():
        raise InputError(f"{folder} is not finished and has no report yet; finish it with `listflow resume {folder}`.")
    return RunReport.from_dict(read_json(files.report))


def build_report(run: Run, final: dict[str, Any], last: int) -> RunReport:
    """The report of a finished run, from what its folders hold; ``final`` is the manifest of final/."""
    teachers = {view.view: verified(view.round(0).model) or {} for view in run.views}
    teacher = teachers[run.view]
    rounds = tuple(_round_report(run, number) for number in range(1, last + 1))
    drift = _drift_of(run)
    start, begun = _metrics(reached(run, 0)), None if run.parent else _metrics(reached_by_labels(run))
    if run.lone:
        start, begun = None, start
    parent = run.parent.folder.name if run.parent else ""
    stopped = "agreement" if last < run.config.rounds.count else "max_rounds"
    report = RunReport(
        run_id=run.fingerprint[:12], task=run.inputs.task.name, labels=tuple(run.labels), seed=run.config.seed,
        backbone=BackboneFacts(run.config.backbone.name, run.backbone.parameter_count()),
        trainable_parameters=sum(
            p.numel() for view in speaking(run) for p in view.new_classifier(0, None).tunable().values()
        ),
        data=_data(run),
        zero_shot=_metrics(teacher["zero_shot"]), labelled_only=begun, rounds=rounds,
        final=_metrics(final["test"]), stopped=stopped,
        seconds=sum(each["seconds"] for each in teachers.values()) + sum(r.seconds for r in rounds),
        notices=_notices(run, drift, last),
        figures=_figures(run, last), stage=name_of(run.config.stage), head=name_of_head(run.config.head), drift=drift,
        parent=parent, adopted=start if parent else None,
        start=start if has_label_vectors(run.views[-1]) and not parent else None, views=view_reports(run),
        baselines=baselines_of(run), unknown=run.unknown,
        estimate=Estimate(**final["estimate"]) if final.get("estimate") else None, curve=curve_of(run),
    )  # fmt: skip
    lineage = lineage_of(run, report.to_dict())
    told = (slide_told(lineage),) if lineage and lineage.slide else ()
    return replace(report, lineage=lineage, notices=(*report.notices, *told))


def view_reports(run: Run) -> tuple[ViewReport, ...]:
    """Each view of a run of two; none for one view."""
    if not run.others:
        return ()
    mixture = mixture_of(run)
    facts = zip(run.views, mixture.voices, reasons(run), strict=True)
    return tuple(_view_report(view, voice, reason, mixture.decided_by) for view, voice, reason in facts)


def _view_report(view: Run, voice: Voice, reason: str, decided_by: str) -> ViewReport:
    made = verified(view.round(0).model) or {}
    alone = None if view.parent else made.get("labelled_only", made["test"])
    config = view.config
    return ViewReport(
        view.view, name_of(config.stage), name_of_head(config.head), voice.weight, voice.right, _metrics(alone),
        _metrics(made["test"]), reason, decided_by, voice.nll, voice.temperature, _text_teacher(view, made),
    )  # fmt: skip


def _text_teacher(view: Run, made: dict[str, Any]) -> TextTeacher | None:
    """What a teacher of label vectors is made of, from the manifest of its folder."""
    if "candidates" not in made:
        return None
    counts = np.bincount(view.gold.numpy(), minlength=len(view.labels)) / len(view.gold)
    pool, labelled = (dict(zip(view.labels, shares, strict=True)) for shares in (made["shares"], counts.tolist()))
    candidates = tuple(Candidate(**each) for each in made["candidates"])
    return TextTeacher(candidates, made["names_tell"], pool, labelled, view.inputs.task.shares)


def _data(run: Run) -> DataFacts:
    unlabelled = 0 if run.lone else run.inputs.built.rows
    return DataFacts(len(run.gold), unlabelled, len(run.inputs.test), names_of_files(run.config))


def _drift_of(run: Run) -> Drift | None:
    path = run.files.drift
    return TypeAdapter(Drift | None).validate_python(read_json(path)) if path.exists() else None


def _notices(run: Run, drift: Drift | None, last: int) -> tuple[str, ...]:
    return (*run.notices, *(drift.warnings if drift else ()), *review_notices(run.folder, last))


def _marker(inputs: dict[str, Any], predictions: Path) -> dict[str, Any]:
    return {"inputs": inputs, "sha256": file_digest(predictions)}


def _marked(marker: Path) -> Any:
    """What a JSON file says; None when it is missing or damaged, and what it speaks of is made again."""
    try:
        return read_json(marker)
    except InputError:
        return None


def _test_logits(run: Run, winner: int, temperature: float) -> Tensor | None:
    """(N, C) logits of the whole test file, computed again only where the round saw a sample of it."""
    if run.test is None:
        return None
    if run.test_sample(winner) is None:
        return said_of(run, winner, "test") / temperature
    on_rows = counter(run.notify, winner, "test", len(run.test) * len(speaking(run)))
    found = [logits_of(load_model(view, winner), view.test, on_rows) for view in speaking(run) if view.test]
    return mixture_of(run).logits(winner, found) / temperature


def _temperature_of(run: Run) -> float:
    return float((verified(run.files.final) or {}).get("temperature", 1.0))


def _round_report(run: Run, number: int) -> RoundReport:
    pseudo = verified(run.round(number).pseudo) or {}
    students = {view.view: verified(view.round(number).model) or {} for view in speaking(run)}
    first, verdict = next(iter(students.values())), read_json(run.round(number).verdict)
    return RoundReport(
        number, PseudoFacts(pseudo["rows"], pseudo["per_class"], pseudo["mean_confidence"]),
        ReweightFacts(**first["reweight"]), _metrics(reached(run, number)), verdict["promoted"], verdict["agreement"],
        sum(student["seconds"] for student in students.values()), verdict["reason"],
        {name: _metrics(student["test"]) for name, student in students.items()} if run.others else {},
    )  # fmt: skip


def _metrics(facts: dict[str, float] | None) -> evaluate.Metrics | None:
    return evaluate.Metrics(**facts) if facts else None


def _figures(run: Run, last: int) -> FigureData:
    tables = {n: meta_weights_of(run, n) for n in range(1, last + 1)}
    weights = {n: np.concatenate([table["weight"].to_numpy() for table in found]) for n, found in tables.items()}
    top = max((float(w.max()) for w in weights.values() if len(w)), default=1.0)
    edges = np.linspace(0, max(top, 1e-6), 21)
    histogram = WeightHistogram(
        tuple(edges.tolist()), {n: tuple(np.histogram(w, edges)[0].tolist()) for n, w in weights.items()}
    )
    if run.test_gold is None:
        return FigureData(meta_weights=histogram)
    soft = load_tensors(run.files.final / TEST_LOGITS)["logits"].softmax(-1).numpy()
    gold = run.test_gold.numpy()
    table = evaluate.confusion(soft.argmax(1), gold, len(run.labels))
    return FigureData(tuple(map(tuple, table)), evaluate.reliability(soft, gold), histogram)
