"""``listflow subspace`` from outside: what it prints, and one sentence for what it cannot use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import Cli
from tiny import tiny_overlay

from listflow.pipeline.run.presets import build_config
from listflow.pipeline.self_training import self_train

pytest_plugins = ["flow_fixtures"]
QUICK = ("--dim=2", "--steps=4", "--set=hidden=8")


@pytest.fixture(scope="module")
def prompted(tiny_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Runs of prompt tuning on two tasks."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("one", "two"):
        task = folder / f"{name}.yaml"
        task.write_text(tiny_files["task"].read_text().replace("name: tiny", f"name: {name}"))
        stage = {"stage": {"kind": "soft_prompt", "tokens": 2}, "rounds": {"count": 1}}
        self_train(build_config("fast", tiny_overlay(tiny_files | {"task": task}, folder / name) | stage))
    return [str(folder / name) for name in ("one", "two")]


def test_it_says_what_was_found_and_how_to_use_it(cli: Cli, prompted: list[str], tmp_path: Path) -> None:
    out = tmp_path / "space"
    result = cli("subspace", *prompted, f"--out={out}", *QUICK, "--evaluate", "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert (found["tokens"], found["dim"], found["prompts"], found["tasks"]) == (2, 2, 4, ["one", "two"])
    assert {score["setting"] for score in found["scores"]} >= {"T_test (IST)", "T_train (MSF)"}
    assert "T_train diff (IST)" in result.stderr
    for left_out in ("one", "two"):
        assert f"settings without {left_out}: 4 of 4" in result.stderr
    assert f"--stage ipt --set stage.subspace={out} --set stage.tokens=2" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "is nowhere the folder of a run?"),
        (["--dim=0"], "config key 'dim'"),
        (["--set=width=3"], "config key 'width'"),
    ],
)
def test_bad_input_is_one_sentence(
    cli: Cli, prompted: list[str], tmp_path: Path, arguments: list[str], words: str
) -> None:
    result = cli("subspace", *prompted, *arguments, f"--out={tmp_path / 'space'}")
    assert result.returncode == 2, result.stderr
    assert words in result.stderr
    assert result.stderr.startswith("listflow: ")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "space").exists()
