"""Reports: the JSON contract, one self-contained page, the same bytes twice."""

import io
import json
import re
import warnings
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import with_pictures
from reports import TOPICS, make_committee, make_report, make_round
from rich.console import Console

from listflow.data.errors import InputError
from listflow.pipeline.method.metrics import Metrics
from listflow.pipeline.results.plots import PLOTS, draw_plots, progress, shown
from listflow.pipeline.results.rendering import lineage_table, text_table, trained_words, write_report
from listflow.pipeline.results.report import (
    BackboneFacts,
    DataFacts,
    FigureData,
    ReweightFacts,
    RunReport,
    headline,
)
from listflow.pipeline.run.wording import duration
from listflow.pipeline.storage.lineage import Lineage, Step


def walk(values: Any) -> Any:
    """The keys of nested dicts, in their order; lists by their first item."""
    if isinstance(values, dict):
        return {key: walk(value) for key, value in values.items()}
    return [walk(values[0])] if isinstance(values, list) and values else None


def test_json_follows_the_contract() -> None:
    values = make_report().to_dict()
    metrics = dict.fromkeys(("accuracy", "macro_f1", "ece"))
    assert " ".join(values) == (
        "format run_id task labels seed backbone trainable_parameters data zero_shot labelled_only rounds "
        "final stopped seconds notices figures stage head drift parent adopted start views baselines unknown "
        "estimate curve lineage"
    )
    assert values["format"] == 1
    assert walk(values["backbone"]) == dict.fromkeys(("name", "parameters"))
    assert walk(values["data"]) == {**dict.fromkeys(("labelled", "unlabelled", "test")), "files": {}}
    assert walk(values["final"]) == walk(values["zero_shot"]) == walk(values["labelled_only"]) == metrics
    assert walk(values["rounds"][0]) == {
        "round": None,
        "pseudo": {"rows": None, "per_class": dict.fromkeys(TOPICS), "mean_confidence": None},
        "reweight": dict.fromkeys(("engine", "zero_share", "effective_sample_size", "uniform_steps")),
        "student": metrics,
        **dict.fromkeys(("promoted", "agreement", "seconds", "reason")),
        "students": {},
    }
    assert list(values["figures"]) == ["confusion", "reliability", "meta_weights"]


@pytest.mark.parametrize("with_test", [True, False])
def test_round_trip_through_json(with_test: bool) -> None:
    report = make_report(with_test=with_test)
    text = json.dumps(report.to_dict(), allow_nan=False)
    assert RunReport.from_dict(json.loads(text)) == report


def test_only_the_contract_is_needed_to_read() -> None:
    values = make_report().to_dict()
    for extra in ("notices", "figures", "stage", "head"):
        del values[extra]
    assert RunReport.from_dict(values) == make_report(notices=(), figures=FigureData(), stage="", head="")


@pytest.mark.parametrize("number", [None, 0, 2, "1"])
def test_other_formats_are_refused(number: object) -> None:
    with pytest.raises(InputError, match=r"format .*this version reads 1"):
        RunReport.from_dict(make_report().to_dict() | {"format": number})


def test_damage_is_named() -> None:
    values = make_report().to_dict()
    del values["rounds"][2]["pseudo"]["rows"]
    with pytest.raises(InputError, match=r"damaged at 'rounds\.2\.pseudo\.rows'"):
        RunReport.from_dict(values)


def page_of(folder: Path) -> str:
    """The page, with spaces that break: a figure and its % stay together in the headline."""
    return (folder / "report.html").read_text("utf-8").replace("\N{NO-BREAK SPACE}", " ")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    with with_pictures():
        write_report(make_report(), folder)
    return folder


@pytest.fixture(scope="module")
def page(written: Path) -> str:
    return page_of(written)


def test_files_are_complete_and_the_same_twice(drawn: None, written: Path, tmp_path: Path) -> None:
    write_report(make_report(), tmp_path)
    files = sorted(str(path.relative_to(written)) for path in written.rglob("*") if path.is_file())
    names = sorted(draw.__name__ for draw in PLOTS)
    assert files == [*(f"plots/{name}.png" for name in names), "report.html", "report.json"]
    for name in files:
        assert (written / name).read_bytes() == (tmp_path / name).read_bytes()
    assert json.loads((written / "report.json").read_text("utf-8")) == make_report().to_dict()


def test_page_is_self_contained(page: str) -> None:
    sources = re.findall(r"""(?:src|href|srcset|action)\s*=\s*["']([^"']{0,40})|url\(|@import""", page)
    assert len(sources) == len(PLOTS)
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert not re.search(r"https?:|//[a-z]|<script|<link", re.sub(r'base64,[^"]*', "", page))


def test_page_escapes_everything(drawn: None, tmp_path: Path) -> None:
    evil = "<script>alert('1')</script>\"&"
    report = make_report(
        labels=(evil, "_under", "cost $a$ and $b"), notices=(evil,), task=evil, run_id=evil, stage=evil, head=evil
    )
    rounds = tuple(replace(record, reason=evil) for record in report.rounds)
    backbone = BackboneFacts(evil, 1)
    report = replace(report, rounds=rounds, backbone=backbone, stopped=evil, figures=FigureData())
    write_report(report, tmp_path)
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "<script" not in page
    assert "alert('1')" not in page
    assert "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&#34;&amp;" in page


def test_labels_that_the_font_lacks_are_drawn_by_number_and_told(drawn: None, tmp_path: Path, page: str) -> None:
    labels = ("food", "\N{UNICORN FACE}", "旅行")
    write_report(make_report(labels), tmp_path)
    assert "characters of label 2, which is \N{UNICORN FACE}; label 3, which is 旅行." in page_of(tmp_path)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Glyph")
        captions = "".join(plot.caption for plot in draw_plots(make_report(labels)))
    assert not {"旅", "\N{UNICORN FACE}"} & set(captions)
    assert "The font of the plots" not in page


def test_page_opens_with_the_outcome(page: str) -> None:
    before, after = "66.1 % accuracy with the labels alone", "74.3 % after six rounds of self-training"
    assert f"<h1>{before}, {after} on 6,890 unlabelled texts.</h1>" in page


def test_a_continued_run_set_out_from_a_model_and_not_from_labels_alone(tmp_path: Path) -> None:
    report = replace(make_report(), parent="<may>", labelled_only=None, adopted=make_report().labelled_only)
    write_report(report, tmp_path)
    page = page_of(tmp_path)
    assert "66.1 % accuracy with the model of &lt;may&gt;, 74.3 % after" in page
    assert "Model of &lt;may&gt;</th>" in page
    assert "labels alone" not in page.lower()
    assert next(iter(text_table(report).columns[0].cells)) == "model of <may>"


def test_a_page_says_how_far_each_of_two_views_is_believed(drawn: None, tmp_path: Path) -> None:
    write_report(make_committee(), tmp_path)
    page = page_of(tmp_path)
    for words in (
        "<h2>Two views</h2>", "believed 40.0 %", "believed 60.0 %", "24 of 30 labelled rows right",
        "by rows held out", "Accuracy from labels alone 60.0 %, at the start 70.0 %", ">Start, with the pool</th>",
        "<td>50.0 %</td><td>1.20</td><td>0.34</td>", "tell something about the texts: 87.0 %", "<td>12.5 %</td>",
        "<h2>What people would use instead</h2>", ">Logistic regression</th>", ">Label spreading </th>",
    ):  # fmt: skip
        assert words in page
    assert "66.1 % accuracy with the labels alone, 70.1 % at the start with the pool, 74.3 % after six rounds" in page
    assert "Zero weights" not in page


def text_of(page: str) -> str:
    """The words of a page, each cell and line apart by spaces."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", re.sub(r"(?s)<style.*?</style>", "", page))).split())


def test_a_page_calls_its_figures_as_all_pages_do_and_explains_them(page: str) -> None:
    text = text_of(page)
    assert "Calibration error 4.7 %" in text
    assert (
        "Round Verdict Accuracy Macro F1 Calibration error Kappa Pseudo rows Mean confidence Zero weights "
        "Effective rows Time in training" in text
    )
    assert "3 kept below its teacher on the labelled rows 70.8 % 68.8 % 8.0 % 0.77 2,400 80.0 % 44.0 % 6.2 44 s" in text
    for word in ("Calibration error: by how much", "Kappa: how alike", "Effective rows: how many rows of a batch"):
        assert word in text
    assert "ECE" not in text


def test_a_page_says_which_round_is_final(page: str, tmp_path: Path) -> None:
    assert "6 final promoted" in text_of(page)
    assert text_of(page).count(" final promoted ") == 1
    assert "Final, round 6 74.3 %" in text_of(page)
    assert "Final model the student of round 6" in text_of(page)
    rounds = tuple(replace(record, promoted=record.round == 2) for record in make_report().rounds)
    write_report(make_report(rounds=rounds, figures=FigureData()), tmp_path)
    assert "2 final promoted" in text_of(page_of(tmp_path))
    write_report(make_report(rounds=tuple(replace(r, promoted=False) for r in rounds)), tmp_path)
    assert "Final, the start 74.3 %" in text_of(page_of(tmp_path))
    assert "Final model the start: no student was promoted" in text_of(page_of(tmp_path))


def test_a_page_says_what_the_rounds_brought(page: str, tmp_path: Path) -> None:
    assert "Rounds brought +8.2 points" in text_of(page)
    write_report(make_committee(final=Metrics(0.691, 0.69, 0.1), figures=FigureData()), tmp_path)
    assert "Rounds brought -1.0 points" in text_of(page_of(tmp_path))  # on the start with the pool, 70.1 %
    assert 'brought</dt><dd class="kept">-1.0 points' in page_of(tmp_path)


def test_a_page_names_the_files_that_a_run_is_of(page: str, tmp_path: Path) -> None:
    files = {"labelled": ("<few>.csv",), "unlabelled": tuple(f"{n}.csv" for n in range(12)), "test": ("held_out.csv",)}
    write_report(make_report(data=DataFacts(30, 6890, 900, files), figures=FigureData()), tmp_path)
    text = text_of(page_of(tmp_path))
    assert "Labelled texts 30 from <few>.csv Unlabelled texts 6,890 from 0.csv, 1.csv," in text
    assert "9.csv and 2 more" in text
    assert "Test rows 900 from held_out.csv" in text
    assert "<few>" not in page_of(tmp_path)
    assert " from " not in text_of(page).partition("Data and configuration")[2]  # a report of an earlier version


def test_a_page_says_what_steps_with_uniform_weights_are(page: str) -> None:
    assert "Steps with uniform weights 2 steps in which no row would have helped, so that all" in text_of(page)


def test_a_page_of_one_view_has_no_section_for_two(page: str) -> None:
    assert "Two views" not in page
    assert "What people would use instead" not in page
    assert "Zero weights" in page


def test_a_page_of_two_views_escapes_everything(drawn: None, tmp_path: Path) -> None:
    evil = "<script>alert('1')</script>\"&"
    write_report(make_committee(evil, figures=FigureData()), tmp_path)
    page = page_of(tmp_path)
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(&#39;1&#39;)") > 6


def test_shares_of_many_labels_are_folded(tmp_path: Path) -> None:
    report = make_committee(figures=FigureData())
    write_report(replace(report, labels=tuple(f"intent {number}" for number in range(77))), tmp_path)
    assert "<summary>All 77 labels</summary>" in page_of(tmp_path)


def test_a_committee_in_the_terminal_fits_eighty_columns() -> None:
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(text_table(make_committee("[red]x")))
    text = " ".join(console.export_text().split())
    assert "│ labels alone │ │ 66.1 % │ 60.0 % │ 60.0 % │ │ │" in text
    assert "│ start, with │ │ 70.1 % │ 60.0 % │ 70.0 % │ │ │" in text
    assert "│ 3 │ kept │ 70.8 % │ 60.0 % │ 70.0 % │ 0.77 │ 80.0 % │" in text
    assert "│ final, │ │ 74.3 % │" in text
    assert "Kappa: how alike the student and its teacher label unlabelled texts, 1 is equal and 0 is chance." in text
    assert "prompt view, believed 40.0 %: 24 of 30 labelled rows right [red]x" in text
    assert "On the same sentence embeddings: logistic regression 60.0 %, label spreading [red]x -." in text
    assert "…" not in text


def test_a_view_of_no_say_has_no_figures_of_rounds(drawn: None, tmp_path: Path) -> None:
    report = make_committee(weight=0.0)
    cells = list(text_table(report).columns[3].cells)
    assert (cells[0], cells[2:]) == ("60.0 %", [""] * 7)
    assert trained_words(report).startswith("stage none, head prototypes, ")
    write_report(report, tmp_path)
    assert "believed 0.0 %" in page_of(tmp_path)


def test_a_committee_round_trips_through_json() -> None:
    report = make_committee()
    assert RunReport.from_dict(json.loads(json.dumps(report.to_dict(), allow_nan=False))) == report


@pytest.mark.filterwarnings("error")
def test_the_plot_of_progress_begins_at_the_start_of_a_committee() -> None:
    axes = progress(make_committee(weight=0.0)).axes[0]
    lines = {str(line.get_label()): list(line.get_ydata()) for line in axes.get_lines()}
    assert lines["Text view"] == [0.7] * 7
    assert lines["Prompt view"][0] == 0.6
    assert np.isnan(lines["Prompt view"][1:]).all()
    assert axes.get_lines()[0].get_ydata()[0] == 0.701


@pytest.mark.parametrize("make", [make_report, make_committee])
def test_a_loss_is_called_one(make: Any, tmp_path: Path) -> None:
    report = make(final=Metrics(0.649, 0.64, 0.1), figures=FigureData())
    assert headline(report).startswith("A loss: 66.1 % accuracy with the labels alone, ")
    assert "64.9 % after six rounds" in headline(report)
    assert "The labels alone were better by 1.2 points: label the rows that" in headline(report)
    write_report(report, tmp_path)
    assert '<p class="loss">The labels alone were better by 1.2 points' in page_of(tmp_path)


def test_a_run_that_is_gated_already_is_not_told_to_be() -> None:
    lost = replace(make_report(), final=Metrics(0.5, 0.5, 0.1))
    assert "or try `--promote gated`" in headline(lost)
    onward = replace(lost, parent="tickets", adopted=Metrics(0.7, 0.7, 0.1))
    assert "--promote gated" not in headline(onward)
    assert "label the rows that a run with `--set review.rows=20` asks about." in headline(onward)


def test_what_is_no_loss_is_called_none() -> None:
    for report in (make_report(), make_report(final=make_report().labelled_only), make_report(with_test=False)):
        assert "loss" not in headline(report)
        assert "better" not in headline(report)


def test_a_continued_run_may_lose_against_the_model_of_its_parent() -> None:
    earlier = make_report(parent="may", labelled_only=None, adopted=Metrics(0.8, 0.8, 0.1))
    assert "The model of may was better by 5.7 points" in headline(earlier)


def test_what_was_trained_is_said(page: str, tmp_path: Path) -> None:
    words = "stage list (layers top:1, width 16), head verbalizer, 297,984 trainable of 22.7 M"
    assert f'<p class="run">{words}</p>' in page
    assert words in str(text_table(make_report()).title)
    earlier = make_report(stage="", head="", figures=FigureData())
    write_report(earlier, tmp_path)
    assert "trainable of" not in (tmp_path / "report.html").read_text("utf-8")
    assert str(text_table(earlier).title) == "support, run support-8f3a12c0"


def test_headlines() -> None:
    report = make_report()
    one = replace(report, rounds=report.rounds[:1])
    assert headline(one).endswith("74.3 % after one round of self-training on 6,890 unlabelled texts.")
    kept = replace(report, rounds=report.rounds[2:3], final=report.labelled_only)
    assert "no student was promoted in one round" in headline(kept)
    assert headline(make_report(with_test=False)).startswith("Six rounds of self-training on 6,890")


def test_without_test_rows(drawn: None, tmp_path: Path) -> None:
    report = make_report(with_test=False)
    write_report(report, tmp_path)
    assert {path.stem for path in (tmp_path / "plots").iterdir()} == {"progress", "balance", "meta_weights"}
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "accuracy unknown without test rows" in page
    assert "Macro F1" not in page
    assert "Agreement of student and teacher: kappa 0.92" in page


def test_without_rounds_or_reweighted_steps() -> None:
    assert draw_plots(make_report(rounds=(), figures=FigureData())) == ()
    first = replace(make_round(1, TOPICS, None, True), reweight=ReweightFacts("fused"), agreement=None)
    report = make_report(rounds=(first,), with_test=False, figures=FigureData())
    assert [plot.name for plot in draw_plots(report)] == ["balance"]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("classes", [2, 24])
def test_plots_for_few_and_many_classes(classes: int) -> None:
    report = make_report(tuple(f"intent ${number}$ with a rather long name" for number in range(classes)))
    plots = {plot.name: plot for plot in draw_plots(report)}
    assert set(plots) == {draw.__name__ for draw in PLOTS}
    assert all(plot.png.startswith(b"\x89PNG") and plot.caption for plot in plots.values())


def test_labels_are_shortened_and_start_no_formula() -> None:
    assert shown("a\n b") == "a b"
    assert shown("$x$") == r"\$x\$"
    assert shown("a" * 40) == "a" * 21 + "…"


def test_terminal_table_fits_eighty_columns() -> None:
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(text_table(make_report(run_id="[red]x")))
    text = console.export_text()
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if "│" in line]
    assert rows[0] == ["labels alone", "", "66.1 %", "", "", "", ""]
    assert rows[3] == ["3", "kept", "70.8 %", "0.77", "2,400", "80.0 %", "6.2"]
    assert rows[-2:] == [["final,", "", "74.3 %", "", "", "", ""], ["round 6", *[""] * 6]]
    assert "Effective rows: how many rows of a batch count, the effective" in text
    assert "[red]x" in text
    assert "…" not in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (59.7, "1 min 00 s"), (185, "3 min 05 s"), (8040, "2 h 14 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize("name", ["plots", "report.html.part", "report.html", "report.json"])
def test_a_report_that_cannot_be_written_is_one_sentence(tmp_path: Path, name: str) -> None:
    """A file is in the place of a folder, or a folder in that of a file."""
    (tmp_path / name).touch() if name == "plots" else (tmp_path / name).mkdir()
    with pytest.raises(InputError) as raised:
        write_report(make_report(), tmp_path)
    told = str(raised.value)
    assert told.startswith(f"{tmp_path}: the report cannot be written there (")
    assert told.endswith("move away what is in its place, then give the same command again.")


def test_a_long_lineage_is_shown_by_its_first_its_best_and_its_latest_runs(tmp_path: Path) -> None:
    def step(number: int) -> Step:
        return Step(f"run-{number:02d}", 20, 0.9 if number == 5 else 0.8, 0.05, "one", 200, None, True)

    found = Lineage(tuple(step(number) for number in range(1, 31)))
    names = list(lineage_table(found).columns[0].cells)
    assert names == ["run-01", "...", "run-05 (best)", "...", *(f"run-{number:02d}" for number in range(21, 31))]
    write_report(make_report(parent="run-29", lineage=found), tmp_path)
    page = page_of(tmp_path)
    assert page.count("<circle") == 30
    assert "The lineage slides: 80.0 % on the 200 test rows, 10.0 points below the 90.0 % of run-05" in page
    write_report(make_report(), tmp_path)
    assert "<h2>The lineage</h2>" not in page_of(tmp_path)
