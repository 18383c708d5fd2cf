"""Opening a run: every input checked, its folder claimed, its texts tokenised and passed through the frozen layers.

Nothing is trained before all of this has succeeded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from listflow.data.errors import InputError
from listflow.data.files import missing, take_back
from listflow.data.inputs import open_inputs
from listflow.data.rows import Row
from listflow.pipeline.backbone.backbone import Backbone, load_backbone
from listflow.pipeline.backbone.prompt import Prompt
from listflow.pipeline.carried import digest_of, keep_rows
from listflow.pipeline.corpus_tokens import encode_corpus
from listflow.pipeline.label_words import word_ids_for
from listflow.pipeline.notices import notices_of
from listflow.pipeline.pseudo_tokens import Intrinsic, PTuning
from listflow.pipeline.run.config import RunConfig
from listflow.pipeline.run.continuation import pinned_parent
from listflow.pipeline.run.feature_cache import keeps_features, with_kept_features
from listflow.pipeline.run.run import Notify, Run, counter
from listflow.pipeline.run.sources import Sources, located, resolve_sources, spell_out
from listflow.pipeline.stages.config import AnyStage, pseudo_tokens
from listflow.pipeline.stages.prompt_start import check_start, pinned_start
from listflow.pipeline.storage.checkpoint import FORMAT, read_json, single_writer, write_json
from listflow.pipeline.subspace import check_subspace, pinned
from listflow.pipeline.template_start import spell_start

# What a run has that was refused, or killed, before it was recorded.
BEFORE_RECORD = {".lock", "inputs", "inputs.json", "inputs.json.part", "config.json.part"}
UNDECIDING = {"run_dir", "checkpoint_seconds", "review.timeout"}  # values that a run can change and stay the same run


@contextmanager
def open_run(
    config: RunConfig,
    notify: Notify = lambda progress: None,
    keep_features: bool = True,
    backbone: Backbone | None = None,
) -> Iterator[Run]:
    """The run of ``config``, locked for one writer. InputError for every input that cannot be used.

    ``keep_features`` passes every text through the frozen layers once, unless that was done before. ``backbone`` is the
    one that the configuration names, where it is loaded already.
    """
    config = located(config)
    sources = resolve_sources(config)
    config, parent = pinned_parent(config.model_copy(update={"stage": tuple(map(_pinned, config.stage))}))
    backbone = backbone or load_backbone(config.backbone.name, config.backbone.precision, config.backbone.device)
    sources, words_notices = spell_out(sources, config.head, backbone)
    config = _spelled(config, sources, backbone)
    reviewed = parent.reviewed if parent else ()
    if parent is not None:
        parent.check(config, list(sources.task.labels), sources.digests)
        sources = replace(sources, digests=sources.digests | digest_of(reviewed))
    fingerprint = fingerprint_of(config, sources, backbone)
    folder = Path(config.run_dir or f"runs/{sources.task.name}-{fingerprint[:12]}").resolve()
    _check_owner(folder, fingerprint, config, sources)
    absent = missing(folder)
    with single_writer(folder), _leaving_no_stub(folder, absent):
        run = _assemble(config, sources, reviewed, backbone, folder, fingerprint, notify)
        run = replace(run, parent=parent and parent.knowing(run.inputs.corpus))
        check_subspace(config.stage, backbone, run.prompt)
        check_start(config.stage, backbone)
        run = replace(run, notices=(*words_notices, *notices_of(run)))
        run.new_classifier(0, None)  # a stage or head that does not fit the backbone is refused here
        keep_rows(folder, reviewed)
        _record(run, sources)
        yield with_kept_features(run) if keep_features and keeps_features(run) else run


@contextmanager
def _leaving_no_stub(folder: Path, absent: Sequence[Path]) -> Iterator[None]:
    """Inside the lock: a run that is refused before it is recorded takes the folders back that were ``absent``."""
    try:
        yield
    except InputError:
        if absent and not _strangers(folder):
            take_back(absent)
        raise


def _strangers(folder: Path) -> list[str]:
    """What is in ``folder`` besides what a run has before it is recorded."""
    return [path.name for path in folder.iterdir() if path.name not in BEFORE_RECORD]


def _pinned(stage: AnyStage) -> AnyStage:
    """A stage that is made from files of another run, held to their present content."""
    if isinstance(stage, Intrinsic):
        return pinned(stage)
    return pinned_start(stage) if isinstance(stage, PTuning) else stage


def _spelled(config: RunConfig, sources: Sources, backbone: Backbone) -> RunConfig:
    stage = spell_start(config.stage, sources.task, backbone.tokenizer, _length(config, backbone))
    return config.model_copy(update={"stage": stage})


def _length(config: RunConfig, backbone: Backbone) -> int:
    return min(config.backbone.max_length, backbone.max_length)


def load_config(folder: Path) -> RunConfig:
    """The configuration that the run in ``folder`` was started with, for that folder."""
    stored = read_json(folder / "config.json")
    return RunConfig.model_validate(stored["config"]).model_copy(update={"run_dir": str(folder.resolve())})


def fingerprint_of(config: RunConfig, sources: Sources, backbone: Backbone) -> str:
    """sha256 over everything that decides the outcome: configuration, contents of inputs and backbone, versions."""
    aside = {"run_dir", "checkpoint_seconds", "data", "review"}
    decisive = config.model_dump(mode="json", exclude=aside)
    if config.review.rows:
        # How long a run waits decides nothing: answers do, and the folders that they change record them.
        decisive["review"] = config.review.model_dump(mode="json", exclude={"timeout"})
    kept = {"max_length": config.backbone.max_length, "cache_gb": config.backbone.cache_gb}
    decisive["backbone"] = {**kept, "checksum": backbone.checksum()}
    decisive["data"] = config.data.model_dump(include={"columns", "shots", "balanced"})
    decisive["task"] = sources.task.model_dump(mode="json")
    decisive["labels"] = list(sources.task.labels)  # their order is that of the classes, and sorted keys lose it
    decisive["inputs"] = sources.digests
    decisive["versions"] = versions()
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def versions() -> dict[str, str]:
    """Versions of what computes: a run resumed under others is another run."""
    return {name: metadata.version(name) for name in ("listflow", "torch", "transformers")}


def _check_owner(folder: Path, fingerprint: str, config: RunConfig, sources: Sources) -> None:
    if not (folder / "config.json").exists():
        strangers = _strangers(folder) if folder.is_dir() else []
        if strangers:
            raise InputError(
                f"{folder} is not a run directory (it holds {strangers[0]}); choose a new or empty --run-dir."
            )
        return
    stored = read_json(folder / "config.json")
    if stored["fingerprint"] != fingerprint:
        _check_labels(folder, list(sources.task.labels))
        raise InputError(
            f"{folder} holds a run of {_difference(stored, config, folder, sources)}; choose another --run-dir, "
            "or go on with that run by `listflow resume`."
        )


def _check_labels(folder: Path, labels: list[str]) -> None:
    """InputError where a saved class would be read as another one's."""
    before = list(read_json(folder / "inputs.json")["task"]["labels"])
    if labels != before and sorted(labels) == sorted(before):
        raise InputError(
            f"{folder} holds a run of the same labels in another order ({', '.join(before)} there, "
            f"{', '.join(labels)} here); restore that order in the task, or choose another --run-dir."
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
    before = read_json(folder / "inputs.json").get("digests", {})
    changed = [role for role, digest in sources.digests.items() if before.get(role) != digest]
    return f"other input files ({', '.join(changed) or 'their contents or the task'} changed since)"


def _defaults() -> dict[str, Any]:
    return RunConfig().model_dump(mode="json")


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {k: v for name, item in value.items() for k, v in _flat(item, f"{prefix}.{name}".lstrip(".")).items()}


def _assemble(
    config: RunConfig,
    sources: Sources,
    reviewed: tuple[Row, ...],
    backbone: Backbone,
    folder: Path,
    fingerprint: str,
    notify: Notify,
) -> Run:
    task, data = sources.task, config.data
    prompt = Prompt(task, backbone.tokenizer, _length(config, backbone), pseudo_tokens(config.stage))
    inputs = open_inputs(
        task, sources.labelled, sources.unlabelled, sources.test, columns=sources.columns, shots=sources.shots,
        balanced=data.balanced, seed=config.seed, folder=folder / "inputs", digests=sources.digests,
        reviewed=reviewed,
    )  # fmt: skip
    if len(inputs.corpus) == 0:
        raise InputError("no unlabelled row is left to learn from; pass a file with other texts to --unlabelled.")
    on_rows = counter(notify, 0, "tokenise", len(inputs.corpus))
    corpus = encode_corpus(inputs.corpus, prompt, folder / "inputs" / "tokens", fingerprint, on_rows)
    index = {label: i for i, label in enumerate(task.labels)}
    test = prompt.encode([(row.text, row.pair) for row in inputs.test]) if inputs.test else None
    return Run(
        config=config, folder=folder, fingerprint=fingerprint, inputs=inputs, backbone=backbone, prompt=prompt,
        word_ids=word_ids_for(config.head, task, backbone),
        labelled=prompt.encode([(row.text, row.pair) for row in inputs.labelled]),
        gold=torch.tensor([index[row.label or ""] for row in inputs.labelled]), corpus=corpus, test=test,
        test_gold=torch.tensor([index[row.label or ""] for row in inputs.test]) if inputs.test else None,
        notices=(), notify=notify,
    )  # fmt: skip


def _record(run: Run, sources: Sources) -> None:
    if (run.folder / "config.json").exists():
        return
    write_json(
        run.folder / "inputs.json",
        {
            "format": FORMAT,
            "task": sources.task.model_dump(mode="json"),
            "files": {"labelled": sources.labelled, "unlabelled": list(sources.unlabelled), "test": sources.test},
            "digests": sources.digests,
            "rows": {"labelled": len(run.gold), "unlabelled": len(run.corpus), "test": len(run.inputs.test)},
            "notices": list(run.notices),
        },
    )
    stored = sources.absolute(run.config).model_dump(mode="json")
    record = {"format": FORMAT, "fingerprint": run.fingerprint, "versions": versions(), "config": stored}
    write_json(run.folder / "config.json", record)
