"""A run: its configuration, its checked inputs, its frozen backbone, and the layout of its folder.

    RUN/config.json  inputs.json  inputs/
    RUN/round-00/teacher/   RUN/round-0r/pseudo/  RUN/round-0r/student/  RUN/round-0r/verdict.json
    RUN/final/  RUN/predictions.parquet  RUN/report.json  RUN/report.html  RUN/plots/
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.errors import InputError
from data.inputs import Inputs, open_inputs
from pipeline.backbone import Backbone, load_backbone
from pipeline.checkpoint import FORMAT, read_json, single_writer, verified, write_json
from pipeline.config import RunConfig
from pipeline.corpus_tokens import encode_corpus
from pipeline.model import Classifier
from pipeline.prompt import Encoded, Prompt, label_word_ids
from pipeline.seeds import generator_for, seed_for
from pipeline.sources import Sources, resolve_sources, spell_out


@dataclass(frozen=True)
class Progress:
    """Where a long piece of work stands; ``loss`` where there is one."""

    round: int
    phase: str
    done: int
    total: int
    loss: float | None = None


Notify = Callable[[Progress], None]


@dataclass(frozen=True)
class Run:
    """An opened run. Everything the rounds need; nothing in it changes while it is open."""

    config: RunConfig
    folder: Path
    fingerprint: str
    inputs: Inputs
    backbone: Backbone
    prompt: Prompt
    word_ids: tuple[int, ...]
    labelled: Encoded
    gold: Tensor
    corpus: Encoded
    test: Encoded | None
    test_gold: Tensor | None
    notices: tuple[str, ...]
    notify: Notify = lambda progress: None

    @property
    def labels(self) -> list[str]:
        """Class names in the order of the logits."""
        return list(self.inputs.task.labels)

    def round_folder(self, number: int) -> Path:
        return self.folder / f"round-{number:02d}"

    def model_folder(self, number: int) -> Path:
        """Where the teacher (round 0) or the student of a round is kept."""
        return self.round_folder(number) / ("teacher" if number == 0 else "student")

    def teacher_of(self, number: int) -> int:
        """The round whose model teaches round ``number``: the last promoted one before it, or 0."""
        for earlier in range(number - 1, 0, -1):
            if read_json(self.round_folder(earlier) / "verdict.json")["promoted"]:
                return earlier
        return 0

    def weights_digest(self, number: int) -> str:
        """sha256 of the weights of a round's model; InputError when that model is not complete."""
        manifest = verified(self.model_folder(number))
        if manifest is None:
            raise InputError(f"{self.model_folder(number)} is missing or damaged; resume the run to make it again.")
        return str(manifest["files"]["weights.safetensors"])

    def seed(self, *purpose: str | int) -> int:
        return seed_for(self.config.seed, *purpose)

    def new_classifier(self, number: int, offset: Tensor | None) -> Classifier:
        """A freshly drawn classifier for a round; teacher and students never share trainable tensors."""
        config, seed = self.config, self.seed(number, "init")
        return Classifier(self.backbone, config.stage, config.head, self.word_ids, seed, offset)

    def sample(self) -> np.ndarray:
        """The fixed unlabelled rows on which agreement is measured."""
        count = min(self.config.rounds.sample, len(self.corpus))
        return np.sort(generator_for(self.config.seed, "sample").permutation(len(self.corpus))[:count])


    def test_sample(self, number: int) -> np.ndarray | None:
        """The test rows that a round's student is measured on; None for all, as for the round-0 teacher."""
        wanted = self.config.rounds.test_rows
        if number == 0 or wanted is None or wanted >= len(self.inputs.test):
            return None
        return np.sort(generator_for(self.config.seed, "test").permutation(len(self.inputs.test))[:wanted])


@contextmanager
def open_run(config: RunConfig, notify: Notify = lambda progress: None) -> Iterator[Run]:
    """The run of ``config``, locked for one writer. InputError for every input that cannot be used."""
    sources = resolve_sources(config)
    backbone = load_backbone(config.backbone.name, config.backbone.precision, config.backbone.device)
    sources, words_notices = spell_out(sources, backbone)
    fingerprint = fingerprint_of(config, sources, backbone)
    folder = Path(config.run_dir or f"runs/{sources.task.name}-{fingerprint[:12]}").resolve()
    _check_owner(folder, fingerprint, config)
    with single_writer(folder):
        run = _assemble(config, sources, backbone, folder, fingerprint, notify)
        run = replace(run, notices=(*words_notices, *run.inputs.notices, *_cut_notices(run)))
        _record(run, sources)
        yield run


def load_config(folder: Path) -> RunConfig:
    """The configuration that the run in ``folder`` was started with, for that folder."""
    stored = read_json(folder / "config.json")
    return RunConfig.model_validate(stored["config"]).model_copy(update={"run_dir": str(folder.resolve())})


def fingerprint_of(config: RunConfig, sources: Sources, backbone: Backbone) -> str:
    """sha256 over everything that decides the outcome: configuration, contents of inputs and backbone, versions."""
    decisive = config.model_dump(mode="json", exclude={"run_dir": True, "checkpoint_seconds": True, "data": True})
    decisive["backbone"] = {"max_length": config.backbone.max_length, "checksum": backbone.checksum()}
    decisive["data"] = config.data.model_dump(include={"columns", "shots", "balanced"})
    decisive["task"] = sources.task.model_dump(mode="json")
    decisive["inputs"] = sources.digests
    decisive["versions"] = versions()
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def versions() -> dict[str, str]:
    """Versions of what computes: a run resumed under others is another run."""
    return {name: metadata.version(name) for name in ("listflow", "torch", "transformers")}


def _check_owner(folder: Path, fingerprint: str, config: RunConfig) -> None:
    if not (folder / "config.json").exists():
        strangers = [p.name for p in folder.iterdir() if p.name != ".lock"] if folder.is_dir() else []
        if strangers:
            raise InputError(
                f"{folder} is not a run directory (it holds {strangers[0]}); choose a new or empty --run-dir."
            )
        return
    stored = read_json(folder / "config.json")
    if stored["fingerprint"] != fingerprint:
        raise InputError(
            f"{folder} holds a run of {_difference(stored, config)}; choose another --run-dir, "
            "or go on with that run by `listflow resume`."
        )


def _difference(stored: dict[str, Any], config: RunConfig) -> str:
    ours, theirs = _flat(config.model_dump(mode="json")), _flat(stored["config"])
    keys = [k for k in ours if k not in {"run_dir", "checkpoint_seconds"} and ours[k] != theirs.get(k)]
    if keys:
        return f"another config ({keys[0]} is {theirs.get(keys[0])!r} there and {ours[keys[0]]!r} here)"
    if stored["versions"] != versions():
        return f"other versions ({stored['versions']} there, {versions()} here)"
    return "other input files (their contents or the task changed since)"


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {k: v for name, item in value.items() for k, v in _flat(item, f"{prefix}.{name}".lstrip(".")).items()}


def _assemble(
    config: RunConfig, sources: Sources, backbone: Backbone, folder: Path, fingerprint: str, notify: Notify
) -> Run:
    task, data = sources.task, config.data
    prompt = Prompt(task, backbone.tokenizer, min(config.backbone.max_length, backbone.max_length))
    word_ids = tuple(label_word_ids(task, backbone.tokenizer, backbone.word_rows))
    inputs = open_inputs(
        task, sources.labelled, sources.unlabelled, sources.test, columns=sources.columns, shots=sources.shots,
        balanced=data.balanced, seed=config.seed, folder=folder / "inputs", digests=sources.digests,
    )  # fmt: skip
    done = 0

    def on_rows(rows: int) -> None:
        nonlocal done
        done += rows
        notify(Progress(0, "tokenise", done, len(inputs.corpus)))

    if len(inputs.corpus) == 0:
        raise InputError("no unlabelled row is left to learn from; pass a file with other texts to --unlabelled.")
    corpus = encode_corpus(inputs.corpus, prompt, folder / "inputs" / "tokens", fingerprint, on_rows)
    index = {label: i for i, label in enumerate(task.labels)}
    test = prompt.encode([(row.text, row.pair) for row in inputs.test]) if inputs.test else None
    return Run(
        config=config, folder=folder, fingerprint=fingerprint, inputs=inputs, backbone=backbone, prompt=prompt,
        word_ids=word_ids, labelled=prompt.encode([(row.text, row.pair) for row in inputs.labelled]),
        gold=torch.tensor([index[row.label or ""] for row in inputs.labelled]), corpus=corpus, test=test,
        test_gold=torch.tensor([index[row.label or ""] for row in inputs.test]) if inputs.test else None,
        notices=(), notify=notify,
    )  # fmt: skip


def _cut_notices(run: Run) -> Iterator[str]:
    limit = run.prompt.max_length
    for name, encoded in (("labelled", run.labelled), ("unlabelled", run.corpus), ("test", run.test)):
        full = 0 if encoded is None else int((encoded.lengths() >= limit).sum())
        if full:
            yield f"{full} {name} text(s) fill all {limit} tokens: what lies beyond is not read (backbone.max_length)."


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
