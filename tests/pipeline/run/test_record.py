"""What of a configuration belongs to the identity of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from reviews import config_of

from listflow.data.errors import InputError
from listflow.pipeline.run.config import RunConfig
from listflow.pipeline.run.opening import open_run
from listflow.pipeline.run.record import load_config
from listflow.pipeline.storage.checkpoint import read_json, write_json


def with_pool(config: RunConfig, rows: int) -> RunConfig:
    return config.model_copy(update={"data": config.data.model_copy(update={"pool": rows})})


def test_only_what_decides_belongs_to_the_identity_of_a_run(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    off = config_of(tiny_files, tmp_path / "off", rows=0)
    with open_run(off) as run:
        never = run.fingerprint
    stored = read_json(tmp_path / "off" / "config.json")
    del stored["config"]["review"]  # as a version without reviews wrote it
    del stored["config"]["data"]["pool"]  # and one that read all rows
    write_json(tmp_path / "off" / "config.json", stored)
    with open_run(load_config(tmp_path / "off")) as run:
        assert run.fingerprint == never
    with open_run(config_of(tiny_files, tmp_path / "off", rows=0, rounds="all", timeout=1)) as run:
        assert run.fingerprint == never
    with pytest.raises(InputError, match=r"data\.pool is 20000 there and 50 here"), open_run(with_pool(off, 50)):
        pass
    with pytest.raises(InputError, match="seed is 1 there"), open_run(off.model_copy(update={"seed": 2})):
        pass
    with (
        pytest.raises(InputError, match=r"review\.rows is 0 there and 5 here"),
        open_run(config_of(tiny_files, tmp_path / "off", timeout=2)),
    ):
        pass
