"""The command line from outside: every command, every exit code, one sentence for bad input."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from commands import Cli, Result, refused
from forks import started

from listflow.pipeline.storage.checkpoint import single_writer, verified

pytest_plugins = ["flow_fixtures"]


def test_a_list_of_runs_can_be_filtered_by_what_they_train(finished: tuple[Path, Result]) -> None:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        tags = {run.name: set(run.tags) for run in client.read_flow_runs()}
        of_tasks = [run.tags for run in client.read_task_runs()]
    assert tags[f"task, {finished[0].name}"] == {"listflow", "list", "verbalizer"}
    assert of_tasks
    assert not any(of_tasks)  # a task with tags needs the server


def test_a_run_prints_its_report_as_the_one_line_of_stdout(finished: tuple[Path, Result]) -> None:
    folder, result = finished
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == json.loads((folder / "report.json").read_text())
    assert result.stdout.count("\n") == 1
    assert "\x1b" not in result.stderr
    assert "round 2 of 2: pseudo-label" in result.stderr
    assert "Traceback" not in result.stderr


def test_status_of_one_and_of_all(cli: Cli, finished: tuple[Path, Result]) -> None:
    folder, _ = finished
    one = cli("status", folder)
    assert "done, round 2 of 2" in one.stdout
    assert one.stdout.count("complete") >= 5
    assert "no runs" in cli("status").stdout
    assert json.loads(cli("status", folder, "--json").stdout)[0]["state"] == "done"


def test_status_sees_a_running_and_an_interrupted_run(cli: Cli, finished: tuple[Path, Result], tmp_path: Path) -> None:
    from shutil import copytree, rmtree

    folder = copytree(finished[0], tmp_path / "run")
    with single_writer(folder):
        assert "running" in cli("status", folder).stdout
    rmtree(folder / "final")
    (folder / "round-02" / "student" / "weights.safetensors").write_bytes(b"")
    shown = cli("status", folder).stdout
    assert "interrupted" in shown
    assert "damaged" in shown
    assert f"listflow resume {folder}" in shown


def test_predict_and_report(
    drawn: None, cli: Cli, finished: tuple[Path, Result], tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    folder, _ = finished
    result = cli("predict", folder, f"--input={tiny_files['test']}", f"--output={tmp_path / 'out.parquet'}")
    assert result.returncode == 0, result.stderr
    assert pq.read_metadata(tmp_path / "out.parquet").num_rows == 20
    by_hand = tmp_path / "hand.csv"
    by_hand.write_text("text,label\nw1,negative\n")
    predict = ("predict", folder, f"--input={tiny_files['test']}", f"--output={by_hand}")
    refused(cli(*predict), "hand.csv: exists", "--force to replace it")
    assert by_hand.read_text() == "text,label\nw1,negative\n"
    assert cli(*predict, "--force").returncode == cli(*predict).returncode == 0
    refused(cli("predict", folder, "--input=any.csv", f"--output={folder / 'x.csv'}", "--force"), "lies in the run")
    both = cli("predict", folder, folder, f"--input={tiny_files['test']}", f"--output={tmp_path / 'both.csv'}")
    refused(both, "would both be called")
    before = (folder / "report.html").read_bytes()
    (folder / "report.html").unlink()
    assert "labels alone" in cli("report", folder).stdout
    assert (folder / "report.html").read_bytes() == before


def test_several_runs_and_one_for_each_row(
    cli: Cli, finished: tuple[Path, Result], tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    from shutil import copytree

    folder, other, output = finished[0], copytree(finished[0] / "final", tmp_path / "other"), tmp_path / "out.parquet"
    result = cli("predict", folder, other, f"--input={tiny_files['test']}", f"--output={output}")
    assert result.returncode == 0, result.stderr
    assert pq.read_schema(output).names[:3] == ["row", "finished.label", "finished.p_negative"]
    (tmp_path / "in.csv").write_text("text,run\nw1 fine,other\nw2 poor,finished\n")
    by_task = ("predict", folder, other, f"--input={tmp_path / 'in.csv'}", f"--output={output}")
    assert cli(*by_task, "--task-column=run").returncode == 0
    assert pq.read_table(output)["task"].to_pylist() == ["other", "finished"]
    refused(cli(*by_task, "--task-column=text"), "in.csv, row 1", "'w1 fine'", "finished, other")


def test_export_and_its_refusals(cli: Cli, finished: tuple[Path, Result], tmp_path: Path) -> None:
    folder, output = finished[0], tmp_path / "plain"
    result = cli("export", folder, f"--output={output}")
    assert result.returncode == 0, result.stderr
    assert str(output / "README.md") in result.stdout
    assert (output / "model.safetensors").exists()
    refused(cli("export", folder, f"--output={output}"), "is not an empty folder")
    refused(cli("export", tmp_path, f"--output={tmp_path / 'b'}"), "is no run and holds no finished model")
    refused(cli("export", tmp_path / "nope", f"--output={tmp_path / 'b'}"), "there is no folder", "nope")
    other = cli("export", folder, f"--output={tmp_path / 'b'}", "--format=tflite")
    assert other.returncode == 2
    assert "'onnx'" in other.stderr


def test_export_as_onnx(cli: Cli, finished: tuple[Path, Result], tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="the extra onnx is not installed")
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    folder, output = finished[0], tmp_path / "plain"
    result = cli("export", folder, f"--output={output}", "--format=onnx")
    assert result.returncode == 0, result.stderr
    assert str(output / "README.md") in result.stdout
    assert (output / "model.onnx").exists()
    assert result.stderr == ""
    refused(cli("export", folder, f"--output={output}", "--format=onnx"), "is not an empty folder")


def test_plan_trains_nothing_and_keeps_nothing(cli: Cli, asked: list[str], tmp_path: Path) -> None:
    result = cli("plan", *asked, f"--run-dir={tmp_path / 'planned'}", "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert (found["teacher_steps"], sum(found["student_steps"].values())) == (4, 12)
    assert found["words"] == [
        {"label": "negative", "word": "bad", "token": 6}, {"label": "positive", "word": "good", "token": 5},
    ]  # fmt: skip
    assert found["seconds"] > 0
    assert sum(item["rows"] for item in found["lengths"]) == 60
    assert "[MASK]" in result.stderr
    assert not (tmp_path / "planned").exists()


def test_damaged_final_weights_are_refused_and_resume_repairs_them(cli: Cli, asked: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert cli("run", *asked, f"--run-dir={folder}").returncode == 0
    for weights in (folder / "final" / "weights.safetensors", folder / "round-01" / "student" / "weights.safetensors"):
        weights.write_bytes(weights.read_bytes()[:80])
    output = tmp_path / "out.csv"
    refused(cli("predict", folder, "--input=any.csv", f"--output={output}"), "damaged", "resume")
    assert not output.exists()
    assert cli("resume", folder).returncode == 0
    assert verified(folder / "final") is not None
    assert verified(folder / "round-01" / "student") is not None


BAD_FILES = {
    "empty": ("", "is empty"),
    "column": ('{"body": "w1", "label": "positive"}\n', "text"),
    "label": ('{"text": "w1", "label": "positive"}\n{"text": "w2", "label": "neutral"}\n', "neutral"),
    "broken": ('{"text": "w1", ', "row 1"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_labelled_file(cli: Cli, asked: list[str], tmp_path: Path, case: str) -> None:
    content, words = BAD_FILES[case]
    path = tmp_path / "bad.jsonl"
    path.write_text(content)
    folder = tmp_path / "run"
    refused(cli("run", *asked, f"--labelled={path}", f"--run-dir={folder}"), "bad.jsonl", words)
    assert not folder.exists()


def test_a_missing_file_and_a_file_with_two_uses(cli: Cli, asked: list[str], tiny_files: dict[str, Path]) -> None:
    refused(cli("run", *asked, "--labelled=absent.csv"), "absent.csv")
    refused(cli("run", *asked, f"--unlabelled={tiny_files['labelled']}"), "labelled file too")


def test_the_directory_of_another_run_and_a_second_writer(
    cli: Cli, asked: list[str], finished: tuple[Path, Result], tmp_path: Path
) -> None:
    folder, _ = finished
    refused(cli("run", *asked, f"--run-dir={folder}", "--seed=7"), "seed is 1 there and 7 here")
    with single_writer(folder):
        refused(cli("run", *asked, f"--run-dir={folder}"), "another process")
    refused(cli("resume", tmp_path), "config.json is missing")


def test_a_file_in_the_place_of_a_run(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "few.jsonl").touch()
    for command in ("resume", "review", "report", "status", "run --continue", "serve --corpus=x", "subspace --out=y"):
        refused(cli(*command.split(), tmp_path / "few.jsonl"), f"is {tmp_path / 'few.jsonl'} the folder of a run?")


def test_an_unreachable_backbone_says_what_works(cli: Cli, asked: list[str]) -> None:
    refused(cli("run", *asked, "--backbone=nobody/no-such-model"), "folder", "minilm")


def test_options_that_do_not_fit(cli: Cli, tmp_path: Path) -> None:
    refused(cli("run", "--set", "student.stepz=3"), "student.stepz")
    refused(cli("run", "--set", "student.steps"), "KEY=VALUE")
    refused(cli("run", "--rounds=-1"), "rounds.count")
    refused(cli("run", f"--config={tmp_path / 'absent.yaml'}"), "absent.yaml")
    usage = cli("run", "--no-such-option")
    assert usage.returncode == 2
    assert "Traceback" not in usage.stderr


def test_help_and_status_load_neither_torch_nor_prefect(finished: tuple[Path, Result]) -> None:
    script = (
        "import sys; from listflow.flows.cli.main import app\n"
        f"for command in (['--help'], ['status'], ['status', {str(finished[0])!r}]):\n"
        "    try: app(command)\n"
        "    except SystemExit as end: assert not end.code\n"
        "print([name for name in ('torch', 'prefect', 'transformers', 'sklearn') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_says_how_to_go_on(
    environment: dict[str, str], asked: list[str], tmp_path: Path, number: signal.Signals, code: int
) -> None:
    folder = tmp_path / "run"
    endless = ("run", *asked, f"--run-dir={folder}", "--set=student.steps=100000")
    with started(*endless, env=environment) as running:
        assert any("warm-up" in line for line in running.stdout)
        running.send(number)
        result = running.end()
    assert result.returncode == code
    assert f"listflow resume {folder}" in result.stderr
    assert "Traceback" not in result.stderr


def test_anything_else_is_one_sentence_and_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from listflow.flows.cli import main as module

    def broken() -> None:
        raise RuntimeError("the disk is on fire")

    monkeypatch.setattr(module, "app", broken)
    monkeypatch.setattr(sys, "argv", ["listflow", "run"])
    with pytest.raises(SystemExit) as end:
        module.main()
    assert end.value.code == 1
    assert "the disk is on fire" in capsys.readouterr().err


def test_gc_says_what_would_go_and_leaves_it(cli: Cli, finished: tuple[Path, Result]) -> None:
    result = cli("gc", finished[0].parent, "--days=0", "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["bytes"] > found["freed"] == 0
    assert all(Path(path).exists() for path in found["paths"])
    assert "do it with --delete" in result.stderr
    assert "nothing to remove" in cli("gc", finished[0].parent, "--days=9999").stdout
    refused(cli("gc", "nope"), "there is no folder nope")
    refused(cli("gc", finished[0]), "is a run", f"the folder that holds the runs, {finished[0].parent}.")


def test_a_finished_run_is_shown_and_what_it_has_lost_is_not_made_again(
    cli: Cli, finished: tuple[Path, Result], tmp_path: Path
) -> None:
    run = shutil.copytree(finished[0], tmp_path / "runs" / "run")
    assert cli("gc", run.parent, "--days=0", "--delete").returncode == 0
    left = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    shown = cli("resume", run, "--json")
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout.splitlines()[-1]) == json.loads((run / "report.json").read_text())
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == left
    (run / "report.html").unlink()
    assert cli("resume", run).returncode == 0
    assert (run / "report.html").exists()
    (run / "report.json").write_text("{")
    assert cli("resume", run).returncode == 0
    assert json.loads((run / "report.json").read_text())["format"] == 1
