"""One temporary Prefect server and one finished tiny run for all tests of the flow and the command line.

A plugin that test modules of several folders name.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from commands import Cli, Result
from pictures import with_pictures
from transformers.utils.logging import disable_progress_bar

from listflow.flows.cli.console import prepare

prepare()
disable_progress_bar()  # what prepare asks for, but the tiny models have imported transformers before


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Prefect's test server, with results stored in a folder of its own."""
    from prefect.settings import PREFECT_LOCAL_STORAGE_PATH, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    storage = tmp_path_factory.mktemp("storage")
    with prefect_test_harness(server_startup_timeout=120), temporary_settings({PREFECT_LOCAL_STORAGE_PATH: storage}):
        yield


@pytest.fixture(scope="session")
def asked(tiny_files: dict[str, Path]) -> list[str]:
    """Options for a run of seconds and of one view on the tiny files."""
    settings = (
        "backbone.precision=fp32", "backbone.device=cpu", "teacher.epochs=2", "teacher.batch=4", "student.steps=8",
        "student.batch=6", "student.tail_epochs=2", "student.tail_batch=4", "stage.width=4", "reweight.batch=4",
        "rounds.sample=20", "second=null",
    )  # fmt: skip
    files = [f"--{name}={tiny_files[name]}" for name in ("task", "labelled", "unlabelled", "test", "backbone")]
    return [*files, "--rounds=2", *(f"--set={setting}" for setting in settings)]


@pytest.fixture(scope="session")
def cli(server: None, tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """``cli("run", ...)`` is the command ``listflow run ...`` in an empty folder, within this process."""
    from listflow.flows.cli.main import main

    folder = tmp_path_factory.mktemp("cwd")

    def run(*arguments: str | Path) -> Result:
        command = ["listflow", *map(str, arguments)]
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, chdir(folder), redirect_stdout(out), redirect_stderr(err):
            patch.setattr("sys.argv", command)
            patch.setenv("COLUMNS", "200")
            try:
                main()
                code = 0
            except SystemExit as end:
                code = int(end.code or 0)
        return Result(command, code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="session")
def environment(server: None) -> dict[str, str]:
    """The environment of another process that talks to the test server, and to no model hub."""
    from prefect.settings import get_current_settings

    settings = get_current_settings().to_environment_variables(exclude_unset=True)
    return {**os.environ, **settings, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="session")
def finished(cli: Cli, asked: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """The folder of a run that the command line finished, and what it printed."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    with with_pictures():
        return folder, cli("run", *asked, f"--run-dir={folder}", "--json")
