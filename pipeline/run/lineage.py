"""Runs that go on from one another: what the next one has to do, on which text, and what all of them came to."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from torch import Tensor

from listflow.data.errors import InputError, shortened
from listflow.data.files import short
from listflow.data.pool import Pool, Texts
from listflow.data.pools.record import POOL_FILE
from listflow.pipeline.method.drift import LEAST, ROWS, Words, drawn, is_foreign, unseen_share, words_of
from listflow.pipeline.run.config import RunConfig
from listflow.pipeline.run.record import BEFORE_RECORD, load_config
from listflow.pipeline.run.run import Run
from listflow.pipeline.run.status import RunStatus, status_of
from listflow.pipeline.storage.checkpoint import load_tensors, read_json, verified
from listflow.pipeline.storage.lineage import Lineage, folders, read_lineage, step_of
from listflow.pipeline.storage.run_folder import TEST_LOGITS, RunFolder

SHOWN_TEXT = 60


def lineage(first: Path) -> list[RunStatus]:
    """The run in ``first``, the one named ``first``-NNN that went on from it, and so on; of several the last number.

    A run of another name, such as one that a person continued, is no part of it.
    """
    found, folders = [status_of(first)], _numbered(first).values()
    recorded = [files for files in map(RunFolder, folders) if files.config.exists()]
    children = {read_json(files.config)["config"].get("continues"): files.path for files in recorded}
    while (child := children.pop(str(found[-1].folder), None)) is not None:
        found.append(status_of(child))
    return found


@dataclass(frozen=True)
class Next:
    """The configuration of the next run of a lineage, or None and why there is nothing to do now."""

    config: RunConfig | None
    words: str


def next_of(first: Path) -> Next:
    """What comes after the run in ``first`` and its lineage: the newest is resumed, or continued.

    InputError when ``first`` is no run.
    """
    first = first.resolve()
    runs = lineage(first)
    newest = runs[-1]
    if newest.state == "running":
        return Next(None, f"{newest.folder.name} is running")
    if newest.state == "interrupted":
        return Next(load_config(newest.folder), f"resumes {newest.folder.name}")
    return Next(continued(newest.folder, _free(first)), f"continues {newest.folder.name}")


def _numbered(first: Path) -> dict[int, Path]:
    """Whatever is named ``first``-NNN, by its number, in ascending order."""
    # Not 12 digits: they end the name that a run gets by itself, and may all be decimal.
    named = re.compile(rf"{re.escape(first.name)}-([0-9]{{3,9}})")
    found = ((named.fullmatch(path.name), path) for path in first.parent.iterdir())
    return dict(sorted((int(match[1]), path) for match, path in found if match))


def _free(first: Path) -> Path:
    """The place after the last that is taken, so that numbers ascend even where a run was removed."""
    last = max((number for number, path in _numbered(first).items() if _is_taken(path)), default=1)
    return first.with_name(f"{first.name}-{last + 1:03d}")


def _is_taken(path: Path) -> bool:
    """Whether it holds more than what a run leaves that was killed before it was recorded."""
    return not path.is_dir() or any(inside.name not in BEFORE_RECORD for inside in path.iterdir())


def continued(before: Path, folder: Path | None) -> RunConfig:
    """The configuration of a run that goes on from the one in ``before``: the same, and gated."""
    config = load_config(before)
    rounds = config.rounds.model_copy(update={"promote": "gated", "foreign": "refuse"})
    where = None if folder is None else str(folder)
    own = {"continues": str(before), "continues_model": "", "rounds": rounds, "run_dir": where}
    return config.model_copy(update=own)


def check_familiar(run: Run) -> None:
    """InputError where a run that is not begun yet goes on with text that is foreign to the run before.

    ``rounds.foreign`` lets it. No model is asked: samples of both runs' words and tokens say enough.
    """
    if run.parent is None or run.config.rounds.foreign == "train" or run.files.config.exists():
        return
    before, seed = Pool(RunFolder(run.parent.folder).kept_inputs / POOL_FILE), run.config.seed
    rows = drawn(seed, "old", range(len(before)), 2 * ROWS)
    vocabulary = set(words_of(before.texts(rows[::2].tolist())))
    some = drawn(seed, "new", run.fresh_rows()).tolist()
    new_texts = run.inputs.pool.texts(some)
    old, new = (_words(run, texts, vocabulary) for texts in (before.texts(rows[1::2].tolist()), new_texts))
    if is_foreign(old, new):
        strangest = max(range(len(some)), key=lambda place: unseen_share(words_of([new_texts[place]]), vocabulary))
        raise InputError(_foreign(run, old, new, some[strangest]))


def _words(run: Run, texts: Texts, vocabulary: set[str]) -> Words:
    words = words_of(texts)
    if not words:
        return Words(0, 0.0, 0.0)
    return Words(len(words), unseen_share(words, vocabulary), run.prompt.tally(run.prompt.encode(texts)).share)


def _foreign(run: Run, old: Words, new: Words, row: int) -> str:
    """The sentence that refuses new text, with the one row of it that shows why."""
    assert run.parent is not None
    pool, parent = run.inputs.pool, run.parent.folder
    ids, text = pool.row_ids([int(run.fresh_rows()[0]), row]), " ".join(pool.texts([row])[0][0].split())
    beside = f" --run-dir {short(run.folder)}" if run.folder.parent == parent.parent else ""
    tokens = ""
    if new.unknown - old.unknown > LEAST:
        tokens = f", and the backbone does not know {new.unknown:.0%} of its tokens, where {old.unknown:.0%} is usual"
    return (
        f"the new text looks foreign to {parent.name} and is not trained on: {new.unseen:.0%} of its words were never "
        f"seen, where {old.unseen:.0%} is usual{tokens}; "
        f"look at the rows from {ids[0]} on, such as {ids[1]}, '{shortened(text, SHOWN_TEXT)}', "
        f"and to train on them all the same add `--set rounds.foreign=train` to "
        f"`listflow run --continue {short(parent)}{beside}`."
    )


def lineage_of(run: Run, report: dict[str, Any]) -> Lineage | None:
    """What the lineage of ``run`` came to, with ``report`` as its own; None for a run that goes on from none."""
    if run.parent is None:
        return None
    before = read_lineage(run.parent.folder)
    inputs = {"digests": run.inputs.digests}
    own = replace(step_of(run.folder.name, report, inputs), new_rows=run.news)
    return _with_error(run, Lineage((*before.steps, own), before.ended))


def _with_error(run: Run, found: Lineage) -> Lineage:
    """``found`` with the standard error of what its last run lost on the best, where what both said can be read."""
    best = found.best
    if best is None or best is found.last or run.test_gold is None:
        return found
    assert run.parent is not None
    steps_back = len(found.steps) - 2 - found.steps.index(best)
    place = next(islice(folders(run.parent.folder), steps_back, None), None)
    own, theirs = _wrong(run.folder, run.test_gold), _wrong(place, run.test_gold)
    if own is None or theirs is None:
        return found
    more = own - theirs
    return replace(found, error=float(more.std(correction=0)) / len(more) ** 0.5)


def _wrong(folder: Path | None, gold: Tensor) -> Tensor | None:
    """(N,) 1 for every test row that the final model of a run has wrong; None where its folder does not say it."""
    try:
        if folder is None or verified(RunFolder(folder).final) is None:
            return None
        logits = load_tensors(RunFolder(folder).final / TEST_LOGITS)["logits"]
    except (InputError, KeyError, OSError):
        return None
    return (logits.argmax(-1) != gold).double() if len(logits) == len(gold) else None
