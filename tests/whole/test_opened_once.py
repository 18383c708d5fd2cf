"""The files of a run are found, read and digested as often as they must be, whoever asks for them."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from commands import Cli
from tiny import sentences, tiny_overlay, write_jsonl

from listflow.data.corpora.ingest import ingest
from listflow.data.errors import NothingNew
from listflow.data.task import Columns
from listflow.flows.run.continuation import go_on
from listflow.flows.run.session import looked_up, session
from listflow.pipeline.run.config import RunConfig
from listflow.pipeline.run.lineage import continued
from listflow.pipeline.run.opening import look_up, open_run
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.self_training import self_train

pytest_plugins = ["flow_fixtures"]

_COUNTED: list[Counter[str]] = []


def _count(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _COUNTED and isinstance(arguments[0], str):
        _COUNTED[-1][arguments[0]] += 1


sys.addaudithook(_count)  # it cannot be taken away again: outside of ``opened`` it counts nothing


@contextmanager
def opened(*paths: Path) -> Iterator[dict[Path, int]]:
    """How often each file was opened inside the block, known at its end."""
    found: dict[Path, int] = {}
    _COUNTED.append(Counter())
    try:
        yield found
    finally:
        counts = _COUNTED.pop()
        found |= {path: counts[str(path)] for path in paths}


def config_of(files: dict[str, Path], folder: Path, **data: object) -> RunConfig:
    overlay = tiny_overlay(files, folder)
    overlay["data"] = dict(overlay["data"]) | data  # type: ignore[call-overload]
    return build_config("fast", overlay)


def test_each_file_is_digested_once_and_read_once(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    """Unlabelled rows once more only where the run does not have them yet."""
    labelled, unlabelled, test = (tiny_files[role] for role in ("labelled", "unlabelled", "test"))
    config = config_of(tiny_files, tmp_path / "run")
    with opened(labelled, unlabelled, test) as found, open_run(config, keep_features=False):
        pass
    assert found == {labelled: 2, unlabelled: 2, test: 2}
    with opened(labelled, unlabelled, test) as found, open_run(config, keep_features=False):
        pass
    assert found == {labelled: 2, unlabelled: 1, test: 2}


def test_a_draw_reads_the_labelled_file_twice_so_that_it_need_not_fit_in_memory(
    tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    with opened(tiny_files["labelled"]) as found, open_run(config_of(tiny_files, tmp_path / "run", shots=6)):
        pass
    assert found == {tiny_files["labelled"]: 3}


@pytest.mark.parametrize("shots", [None, 6])
def test_rows_that_the_task_was_made_from_are_not_read_again(
    tiny_files: dict[str, Path], tmp_path: Path, shots: int | None
) -> None:
    config = config_of(tiny_files, tmp_path / "run", shots=shots).model_copy(update={"task": None})
    config = config.model_copy(update={"head": build_config("fast", {"head": "linear"}).head})
    with opened(tiny_files["labelled"]) as found, open_run(config, keep_features=False) as run:
        assert len(run.gold) == (shots or 8)
    assert found == {tiny_files["labelled"]: 2}


def test_a_flow_does_not_look_up_again_what_its_command_has_found(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    labelled, unlabelled, test = (tiny_files[role] for role in ("labelled", "unlabelled", "test"))
    config = config_of(tiny_files, tmp_path / "run")
    with opened(labelled, unlabelled, test) as found, looked_up(look_up(config)), session(config):
        pass
    assert found == {labelled: 2, unlabelled: 2, test: 2}


def test_the_command_opens_each_file_no_more_often_than_a_run_must(
    cli: Cli, asked: list[str], tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    paths = [tiny_files[role] for role in ("labelled", "unlabelled", "test")]
    with opened(*paths) as found:
        done = cli("run", *asked, "--rounds=1", f"--run-dir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    assert found == dict.fromkeys(paths, 2)


def test_the_flow_that_goes_on_digests_once_for_the_news_and_for_the_run(
    server: None, tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    corpus, more = tmp_path / "corpora" / "rows", tmp_path / "more.jsonl"
    ingest(corpus, [str(tiny_files["unlabelled"])], Columns())
    config = config_of(tiny_files, tmp_path / "run", unlabelled=[str(corpus)])
    self_train(config.model_copy(update={"rounds": config.rounds.model_copy(update={"count": 1})}))
    ingest(corpus, [str(write_jsonl(more, sentences(20, 9, labelled=False)))], Columns())
    labelled, test = tiny_files["labelled"], tiny_files["test"]
    with opened(labelled, test) as found:
        went_on = go_on(str(tmp_path / "run"))
    assert went_on["run"] == str(tmp_path / "run-002")
    assert found == {labelled: 2, test: 2}


def test_what_was_found_of_another_configuration_or_of_files_touched_since_is_looked_up_again(
    tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(tiny_files["unlabelled"].read_bytes())
    config = config_of(tiny_files, tmp_path / "run", unlabelled=[str(rows)])
    before = look_up(config)
    assert before.answers(config)
    assert not before.answers(config_of(tiny_files, tmp_path / "run", unlabelled=[str(rows)], shots=6))
    rows.write_text(rows.read_text("utf-8") + '{"text": "one more row"}\n', "utf-8")
    assert not before.answers(config)
    with open_run(config, keep_features=False, found=before) as run:
        assert len(run.corpus) == 61
        assert run.inputs.digests == look_up(config).sources.digests


def test_looking_for_news_digests_each_file_of_the_next_run_once(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    corpus = tmp_path / "corpora" / "rows"
    ingest(corpus, [str(tiny_files["unlabelled"])], Columns())
    config = config_of(tiny_files, tmp_path / "run", unlabelled=[str(corpus)])
    self_train(config.model_copy(update={"rounds": config.rounds.model_copy(update={"count": 1})}))
    labelled, weights = tiny_files["labelled"], tmp_path / "run" / "final" / "weights.safetensors"
    after = continued(tmp_path / "run", tmp_path / "run-002")
    with opened(labelled, weights) as found:
        news = look_up(after)
        with pytest.raises(NothingNew):
            news.check_news()
    assert found == {labelled: 1, weights: 1}
