"""What a continued run says of all runs before it, in every place that a person looks at."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console
from tiny import foreign_sentences, sentences, tiny_overlay, write_jsonl

from listflow.data.corpora.ingest import ingest
from listflow.data.errors import InputError
from listflow.data.task import Columns
from listflow.pipeline.results.outcome import report_of
from listflow.pipeline.results.rendering import lineage_table, page_of
from listflow.pipeline.results.report import RunReport
from listflow.pipeline.run.lineage import continued
from listflow.pipeline.run.opening import open_run
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.run.record import load_config
from listflow.pipeline.run.status import status_of
from listflow.pipeline.self_training import self_train
from listflow.pipeline.storage.checkpoint import load_tensors, read_json, write_json
from listflow.pipeline.storage.retention import removals, remove
from listflow.pipeline.training.rounds import prompt_tune


def grow(folder: Path, count: int, seed: int, rows: list[dict[str, str]] | None = None) -> Path:
    corpus = folder / "tickets"
    more = write_jsonl(folder / "more.jsonl", rows or sentences(count, seed, labelled=False))
    ingest(corpus, [str(more)], Columns())
    return corpus


@pytest.fixture(scope="module")
def runs(tiny_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs, one, two and three, that went on from one another."""
    folder = tmp_path_factory.mktemp("lineage")
    overlay = tiny_overlay(tiny_files | {"unlabelled": grow(folder, 60, 2)}, folder / "one")
    self_train(build_config("fast", overlay, {"rounds": {"count": 1}}))
    for number, (before, name) in enumerate((("one", "two"), ("two", "three")), 5):
        grow(folder, 10 * number, number)
        self_train(continued(folder / before, folder / name))
    return folder


def test_every_run_is_told_from_the_first(runs: Path) -> None:
    found = report_of(runs / "three").lineage
    assert found is not None
    accuracies = [read_json(runs / name / "report.json")["final"]["accuracy"] for name in ("one", "two", "three")]
    told = [(step.run, step.new_rows, step.accuracy, step.test_rows) for step in found.steps]
    assert told == list(zip(("one", "two", "three"), (60, 50, 60), accuracies, (20, 20, 20), strict=True))
    assert report_of(runs / "one").lineage is None
    assert status_of(runs / "three").lineage == found
    assert status_of(runs / "one").lineage is None


def spoiled(runs: Path, folder: Path) -> Path:
    """Copies of the runs, of which the first was right on every test row: a slide."""
    for name in ("one", "two", "three"):
        shutil.copytree(runs / name, folder / name)
        record = read_json(folder / name / "config.json")
        if record["config"]["continues"]:
            record["config"]["continues"] = str(folder / Path(record["config"]["continues"]).name)
        write_json(folder / name / "config.json", record)
        report = read_json(folder / name / "report.json")
        write_json(folder / name / "report.json", {key: report[key] for key in report if key != "lineage"})
    first = read_json(folder / "one" / "report.json")
    first["final"]["accuracy"] = 1.0
    write_json(folder / "one" / "report.json", first)
    return folder


def test_a_slide_is_told_on_every_page(runs: Path, tmp_path: Path) -> None:
    folder = spoiled(runs, tmp_path)
    grow(runs, 15, 8)
    report = self_train(continued(folder / "three", folder / "four"))
    assert report.lineage is not None
    assert report.lineage.best == report.lineage.steps[0]
    told = "points below the 100.0 % of one, where it began; "
    assert [notice for notice in report.notices if told in notice]
    page = page_of(report, ())
    assert page.count(told) == 2  # in its section, and among what is to be known
    assert "<svg" in page
    shown = io.StringIO()
    Console(file=shown, width=160).print(lineage_table(report.lineage))
    assert "one (best)" in shown.getvalue()
    assert RunReport.from_dict(read_json(folder / "four" / "report.json")) == report


def test_the_error_is_over_the_same_rows(runs: Path) -> None:
    found = report_of(runs / "three").lineage
    assert found is not None
    assert found.best is not None
    if found.best is found.last:
        assert found.error is None
        return
    lines = Path(load_config(runs / "one").data.test or "").read_text("utf-8").splitlines()
    gold = [json.loads(line)["label"] for line in lines]
    names = list(report_of(runs / "one").labels)
    wrong = [
        [names[top] != label for top, label in zip(_top(runs / name), gold, strict=True)]
        for name in (found.best.run, "three")
    ]
    more = [int(b) - int(a) for a, b in zip(*wrong, strict=True)]
    mean = sum(more) / len(more)
    expected = (sum((each - mean) ** 2 for each in more) / len(more) / len(more)) ** 0.5
    assert found.error == pytest.approx(expected)


def _top(run: Path) -> list[int]:
    top: list[int] = load_tensors(run / "final" / "test.safetensors")["logits"].argmax(-1).tolist()
    return top


def test_it_is_the_same_where_a_run_was_interrupted_and_runs_were_cleared(runs: Path, tmp_path: Path) -> None:
    grow(runs, 15, 9)
    config = continued(runs / "three", tmp_path / "a" / "four")
    self_train(config)
    with open_run(config.model_copy(update={"run_dir": str(tmp_path / "b" / "four")})) as run:
        prompt_tune(run)
    remove(removals(runs, 0))
    self_train(load_config(tmp_path / "b" / "four"))
    whole, halves = (read_json(tmp_path / name / "four" / "report.json")["lineage"] for name in "ab")
    assert whole == halves
    assert [step["run"] for step in whole["steps"]] == ["one", "two", "three", "four"]
    assert str(tmp_path) not in json.dumps(whole)


def test_a_best_run_that_is_gone_is_compared_all_the_same(runs: Path, tmp_path: Path) -> None:
    folder = spoiled(runs, tmp_path)
    kept = read_json(runs / "three" / "report.json")
    kept["lineage"]["steps"][0]["accuracy"] = 1.0
    write_json(folder / "three" / "report.json", kept)
    shutil.rmtree(folder / "one")
    grow(runs, 15, 11)
    found = self_train(continued(folder / "three", folder / "four")).lineage
    assert found is not None
    assert ([step.run for step in found.steps], found.error) == (["one", "two", "three", "four"], None)
    assert found.slide is not None
    assert found.slide.is_paired is False


def test_a_run_that_is_gone_ends_it_with_a_word(runs: Path, tmp_path: Path) -> None:
    folder = spoiled(runs, tmp_path)
    shutil.rmtree(folder / "one")
    found = status_of(folder / "three").lineage
    assert found is not None
    assert ([step.run for step in found.steps], found.ended) == (
        ["two", "three"], "what one reached, and any run before it, is not known here."
    )  # fmt: skip


@pytest.fixture
def first(tiny_files: dict[str, Path], tmp_path: Path) -> Path:
    """A finished run on a corpus of 60 rows beside it, and the folder of both."""
    overlay = tiny_overlay(tiny_files | {"unlabelled": grow(tmp_path, 60, 2)}, tmp_path / "one")
    self_train(build_config("fast", overlay, {"rounds": {"count": 1}}))
    return tmp_path / "one"


def test_foreign_text_is_not_trained_on_unasked(first: Path) -> None:
    folder, two = first.parent, first.parent / "two"
    grow(folder, 0, 0, foreign_sentences(30, 1))
    config = continued(first, two)
    for _ in range(2):
        with pytest.raises(InputError) as refused:
            self_train(config)
        assert not two.exists()
    assert str(refused.value).startswith(
        "the new text looks foreign to one and is not trained on: 100% of its words were never seen, where "
    )
    assert "look at the rows from tickets:61 on, such as tickets:" in str(refused.value)
    told = f"add `--set rounds.foreign=train` to `listflow run --continue {first} --run-dir {two}`."
    assert str(refused.value).endswith(told)
    asked = config.model_copy(update={"rounds": config.rounds.model_copy(update={"foreign": "train"})})
    report = self_train(asked)
    assert report.drift is not None
    assert report.lineage is not None
    assert any("other words" in warning for warning in report.lineage.last.warnings)
    # What was asked for once is not asked for in the runs after it.
    assert continued(two, None).rounds.foreign == "refuse"


def test_a_file_of_its_own_is_looked_at_too(first: Path) -> None:
    other = write_jsonl(first.parent / "other.jsonl", foreign_sentences(30, 1))
    config = continued(first, first.parent / "two")
    data = config.data.model_copy(update={"unlabelled": (str(other),)})
    with pytest.raises(InputError, match="looks foreign to one"), open_run(config.model_copy(update={"data": data})):
        pass


def test_ordinary_text_and_a_run_that_is_begun_are_trained_on(first: Path) -> None:
    folder = first.parent
    grow(folder, 20, 6)
    with open_run(continued(first, folder / "two")):
        pass
    grow(folder, 0, 0, foreign_sentences(3, 1))  # too few to tell
    with open_run(continued(first, folder / "three")):
        pass
    config = load_config(folder / "two")
    assert config.rounds.foreign == "refuse"
    with open_run(config) as run:
        assert run.files.config.exists()


def test_whether_foreign_text_is_trained_on_makes_no_other_run(first: Path) -> None:
    grow(first.parent, 20, 6)
    config = continued(first, first.parent / "two")
    asked = config.model_copy(update={"rounds": config.rounds.model_copy(update={"foreign": "train"})})
    with open_run(config) as one:
        pass
    with open_run(asked) as two:
        assert one.fingerprint == two.fingerprint
