"""The dry run: right numbers, refusals as a run's, and nothing left behind."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console
from tiny import FILLER, sentences, tiny_overlay, write_jsonl

from listflow.data.errors import InputError
from listflow.flows.cli.progress import show_plan
from listflow.pipeline.run.opening import open_run
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.training.plan import Word, make_plan


def others(notices: tuple[str, ...]) -> tuple[str, ...]:
    """Without that on tokens which the backbone does not know: the texts here have numbers, which are such."""
    return tuple(notice for notice in notices if not notice.startswith("backbone '"))


def test_a_plan_says_what_a_run_would_do(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    config = build_config("fast", tiny_overlay(tiny_files, tmp_path / "run"))
    plan = make_plan(config)
    assert (plan.labelled, plan.unlabelled, plan.test) == (8, 60, 20)
    assert plan.words == (Word("negative", "bad", 6), Word("positive", "good", 5))
    assert sum(found.rows for found in plan.lengths) == 60
    assert plan.teacher_steps == 4
    assert plan.student_steps == {"warmup": 5, "reweighted": 3, "tail": 4}
    assert plan.total_steps == 4 + 2 * 12
    assert plan.seconds > 0
    assert len(plan.samples) == 5
    assert all("it was [MASK] ." in sample for sample in plan.samples)
    assert (plan.stage, plan.head) == ("list (width 4, init_std 0.02)", "verbalizer")
    assert not plan.started
    assert list(tmp_path.iterdir()) == []


def test_a_plan_of_many_rows_looks_at_a_sample_and_counts_all(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    rows = write_jsonl(tmp_path / "many.jsonl", sentences(3000, 2, labelled=False))
    overlay = tiny_overlay(tiny_files | {"unlabelled": rows}, tmp_path / "run") | {"stage": {"layers": "top:1"}}
    few, many = (make_plan(build_config("fast", overlay, {"data": {"pool": pool}})) for pool in (50, 3000))
    assert (few.unlabelled, many.unlabelled) == (3000, 3000)
    assert sum(found.rows for found in few.lengths) == 50
    told = "The rounds read a seeded sample of 50 of the 3,000 unlabelled rows (data.pool); the final model labels all"
    assert f"{told} of them." in few.notices
    console = Console(file=io.StringIO(), width=200)
    show_plan(few, console)
    assert "tokens per unlabelled row, of a sample of 50\n" in console.file.getvalue()  # type: ignore[attr-defined]
    assert " 3,000 unlabelled" in console.file.getvalue()  # type: ignore[attr-defined]


HEADS = {"linear": {"kind": "linear"}, "ytuning": {"kind": "ytuning", "width": 16, "start": "normal"}}


@pytest.mark.parametrize("head", HEADS)
def test_a_head_that_reads_no_label_words_asks_for_none(head: str, tiny_files: dict[str, Path], tmp_path: Path) -> None:
    """Labels of several tokens, of which the verbalizer says so."""
    text = tiny_files["task"].read_text()
    task = tmp_path / "long.yaml"
    task.write_text(text.replace("bad", "a bad film").replace("good", "a good film"))
    assert task.read_text() != text
    base = tiny_overlay(tiny_files | {"task": task}, tmp_path / "run")
    read = make_plan(build_config("fast", base))
    assert read.words[0] == Word("negative", "a bad film", "a + bad + film")
    assert read.words[0].told() == "tokens a + bad + film"
    assert read.notices[0].startswith("2 labels have names of several tokens")
    plan = make_plan(build_config("fast", base, {"head": HEADS[head]}))
    assert plan.words == ()
    assert others(plan.notices) == ()
    assert plan.labelled == 8


def test_a_plan_of_many_names_says_so_once(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    """Without a task file: names are read whole, and 40 of them are not 40 notes."""
    labels = [f"the_{FILLER[i]}" for i in range(38)] + ["good", "Qqq"]
    rows = [{"text": f"w1 w2 {i}", "label": label} for i, label in enumerate(labels)]
    labelled = write_jsonl(tmp_path / "labelled.jsonl", rows)
    overlay = tiny_overlay(tiny_files | {"labelled": labelled}, tmp_path / "run") | {"task": None}
    plan = make_plan(build_config("fast", overlay, {"data": {"test": None}}))
    assert others(plan.notices) == (
        "38 labels have names of several tokens, which start at the mean of their pieces (such as 'the w0' and 'the "
        "w1'); a task file can name single words.",
        "1 label has a name that the backbone does not know, which starts at the mean of the others (such as 'qqq'); a "
        "task file can name words that it knows.",
    )
    by_label = {word.label: word for word in plan.words}
    assert by_label["good"] == Word("good", "good", 5)
    assert by_label["good"].told() == "token 5"
    assert by_label["the_w3"] == Word("the_w3", "the w3", "the + w3")
    assert (by_label["Qqq"].token, by_label["Qqq"].told()) == ("", "not known")


def test_a_plan_without_any_warm_up_or_tail(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    short = {"student": {"steps": 2, "warmup": 0, "tail_epochs": 0, "batch": 100}, "rounds": {"promote": "gated"}}
    plan = make_plan(build_config("fast", tiny_overlay(tiny_files, tmp_path / "run"), short))
    assert plan.student_steps == {"warmup": 0, "reweighted": 2, "tail": 0}
    assert plan.seconds > 0


def test_a_plan_knows_a_run_that_has_begun(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    config = build_config("fast", tiny_overlay(tiny_files, tmp_path / "run"))
    with open_run(config):
        pass
    before = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert make_plan(config).started
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == before


def test_a_plan_refuses_what_a_run_refuses(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    overlay = tiny_overlay(tiny_files, tmp_path / "run")
    with pytest.raises(InputError, match=r"absent\.jsonl"):
        make_plan(build_config("fast", overlay, {"data": {"test": str(tmp_path / "absent.jsonl")}}))
