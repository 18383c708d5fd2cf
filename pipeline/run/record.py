"""What a run writes of itself, and whose folder it is.

config.json holds the configuration, the versions and the fingerprint, which is the sha256 over everything that decides
the outcome; inputs.json the task, the files and their digests. A folder belongs to the run of its fingerprint.
"""

from __future__ import annotations

import hashlib
import json
from importlib import metadata
from pathlib import Path
from typing import Any

from listflow.data.errors import InputError
from listflow.pipeline.backbone.backbone import Backbone
from listflow.pipeline.backbone.text_face import text_face_of
from listflow.pipeline.run.config import DataConfig, RunConfig
from listflow.pipeline.run.run import Run
from listflow.pipeline.run.sources import Sources
from listflow.pipeline.storage.checkpoint import FORMAT, LOCK, read_json, write_json
from listflow.pipeline.storage.run_folder import CONFIG, HOLDER, INPUTS, RunFolder

# What a run has that was refused, or killed, before it was recorded.
BEFORE_RECORD = {LOCK, HOLDER, f"{HOLDER}.part", "inputs", INPUTS, f"{INPUTS}.part", f"{CONFIG}.part"}
# Values that a run can change and stay the same run.
UNDECIDING = {"run_dir", "checkpoint_seconds", "review.timeout", "rounds.foreign"}
# Of a configuration, what the fingerprint leaves out, or takes in only in part.
ASIDE = {"run_dir", "checkpoint_seconds", "data", "review"}


def load_config(folder: Path) -> RunConfig:
    """The configuration that the run in ``folder`` was started with, for that folder."""
    stored = read_json(RunFolder(folder).config)
    return RunConfig.model_validate(stored["config"]).model_copy(update={"run_dir": str(folder.resolve())})


def fingerprint_of(config: RunConfig, sources: Sources, backbone: Backbone) -> str:
    """sha256 over everything that decides the outcome: configuration, contents of inputs and backbone, versions."""
    decisive = config.model_dump(mode="json", exclude=ASIDE)
    del decisive["rounds"]["foreign"]  # it decides whether a run is begun, and nothing of what comes out
    if config.review.rows:
        # How long a run waits decides nothing: answers do, and the folders that they change record them.
        decisive["review"] = config.review.model_dump(mode="json", exclude={"timeout"})
    kept = {"max_length": config.backbone.max_length, "cache_gb": config.backbone.cache_gb}
    decisive["backbone"] = {**kept, "checksum": backbone.checksum()}
    if config.face == "text" or config.second is not None:
        decisive["text"] = text_face_of(backbone, config.backbone.max_length).checksum()
    decisive["data"] = config.data.model_dump(include={"columns", "shots", "balanced"})
    if config.data.pool != DataConfig().pool:  # runs of versions that had none keep their fingerprint
        decisive["data"]["pool"] = config.data.pool
    decisive["task"] = sources.task.model_dump(mode="json")
    decisive["labels"] = list(sources.task.labels)  # their order is that of the classes, and sorted keys lose it
    decisive["inputs"] = sources.digests
    decisive["versions"] = versions()
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def versions() -> dict[str, str]:
    """Versions of what computes: a run resumed under others is another run."""
    return {name: metadata.version(name) for name in ("listflow", "torch", "transformers")}


def check_owner(folder: Path, fingerprint: str, config: RunConfig, sources: Sources) -> None:
    """InputError where ``folder`` holds another run, saying what differs, or something that is no run."""
    if not RunFolder(folder).config.exists():
        strangers = strangers_in(folder) if folder.is_dir() else []
        if strangers:
            raise InputError(
                f"{folder} is not a run directory (it holds {strangers[0]}); choose a new or empty --run-dir."
            )
        return
    stored = read_json(RunFolder(folder).config)
    if stored["fingerprint"] != fingerprint:
        _check_labels(folder, list(sources.task.labels))
        _check_version(folder, stored["config"])
        raise InputError(
            f"{folder} holds a run of {_difference(stored, config, folder, sources)}; choose another --run-dir, "
            "or go on with that run by `listflow resume`."
        )


def write_record(run: Run, sources: Sources) -> None:
    """inputs.json, then config.json, which makes the folder that of a run; nothing where they are there."""
    if run.files.config.exists():
        return
    write_json(
        run.files.inputs,
        {
            "format": FORMAT,
            "task": sources.task.model_dump(mode="json"),
            "files": {"labelled": sources.labelled, "unlabelled": list(sources.unlabelled), "test": sources.test},
            "digests": sources.digests,
            "rows": {"labelled": len(run.gold), "unlabelled": run.inputs.built.rows, "test": len(run.inputs.test)},
            "notices": list(run.notices),
        },
    )
    stored = sources.absolute(run.config).model_dump(mode="json")
    record = {"format": FORMAT, "fingerprint": run.fingerprint, "versions": versions(), "config": stored}
    write_json(run.files.config, record)


def strangers_in(folder: Path) -> list[str]:
    """What is in ``folder`` besides what a run has before it is recorded."""
    return [path.name for path in folder.iterdir() if path.name not in BEFORE_RECORD]


def _check_labels(folder: Path, labels: list[str]) -> None:
    """InputError where a saved class would be read as another one's."""
    before = list(read_json(RunFolder(folder).inputs)["task"]["labels"])
    if labels != before and sorted(labels) == sorted(before):
        raise InputError(
            f"{folder} holds a run of the same labels in another order ({', '.join(before)} there, "
            f"{', '.join(labels)} here); restore that order in the task, or choose another --run-dir."
        )


def _check_version(folder: Path, stored: dict[str, Any]) -> None:
    """InputError where a run was begun without values that decide now: its fingerprint cannot come out again."""
    absent = [key for key in RunConfig.model_fields if key not in stored and key not in ASIDE]
    if absent:
        raise InputError(
            f"{folder} was begun by a version whose runs had no {', '.join(absent)}; finish it with that version, or "
            "start anew in another --run-dir."
        )


def _difference(stored: dict[str, Any], config: RunConfig, folder: Path, sources: Sources) -> str:
    # A key that an earlier version did not have had the value that is its default now.
    ours, theirs, default = map(_flat, (config.model_dump(mode="json"), stored["config"], _defaults()))
    theirs = default | theirs
    keys = [k for k in ours if k not in UNDECIDING and ours[k] != theirs.get(k)]
    if keys:
        return f"another config ({keys[0]} is {theirs.get(keys[0])!r} there and {ours[keys[0]]!r} here)"
    if stored["versions"] != versions():
        return f"other versions ({stored['versions']} there, {versions()} here)"
    before = read_json(RunFolder(folder).inputs).get("digests", {})
    changed = [role for role, digest in sources.digests.items() if before.get(role) != digest]
    return f"other input files ({', '.join(changed) or 'their contents or the task'} changed since)"


def _defaults() -> dict[str, Any]:
    return RunConfig().model_dump(mode="json")


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {k: v for name, item in value.items() for k, v in _flat(item, f"{prefix}.{name}".lstrip(".")).items()}
