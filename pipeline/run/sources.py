"""Which task and which files a configuration means: the embedded demo, or the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from listflow.data.errors import InputError
from listflow.data.files import STDIN
from listflow.data.formats import is_hub_id
from listflow.data.pools.inputs import check_apart, source_digests
from listflow.data.rows import Labelled, LabelledFile, source_names
from listflow.data.shards import MANIFEST, is_corpus, read_manifest
from listflow.data.task import Columns, Task, infer_task, load_task, parse_columns
from listflow.data.values import known_label
from listflow.pipeline.backbone.backbone import absolute_backbone
from listflow.pipeline.model.label_names import fill_in_words
from listflow.pipeline.run.config import RunConfig
from listflow.pipeline.storage.checkpoint import read_json
from listflow.pipeline.storage.run_folder import RunFolder

DEMO_SHOTS = 30
DEMO, IN_PYTHON = "the embedded demo", "given in Python"

Stamp = tuple[int, int, int]


@dataclass(frozen=True)
class Sources:
    """The task and the files of a run. ``inferred``: the task was made from the labelled file alone.

    ``rows`` is what the labelled file holds where it had to be read for that. ``stamps`` tell whether a file was
    touched since it was looked at.
    """

    task: Task
    labelled: str
    unlabelled: tuple[str, ...]
    test: str | None
    columns: Columns
    shots: int | None
    digests: dict[str, str]
    inferred: bool
    rows: Labelled | None = None
    stamps: tuple[Stamp | None, ...] = ()

    def are_current(self) -> bool:
        """Whether no file was touched since it was found and digested."""
        return self.stamps == _stamps(self.labelled, self.unlabelled, self.test)

    def absolute(self, config: RunConfig) -> RunConfig:
        """``config`` with paths that still hold when a run is resumed from another folder."""
        if config.data.labelled is None:
            return config
        data = config.data.model_copy(
            update={
                "labelled": _absolute(self.labelled),
                "unlabelled": tuple(_absolute(path) for path in self.unlabelled),
                "test": _absolute(self.test) if self.test else None,
            }
        )
        task = _absolute(config.task) if config.task and Path(config.task).is_file() else config.task
        return config.model_copy(update={"data": data, "task": task})


def names_of_files(config: RunConfig) -> dict[str, tuple[str, ...]]:
    """What a reader may call the labelled, unlabelled and test files: their names without folders, and ids of a hub.

    config.json of the run has them whole. Nothing for a kind of which no file is given.
    """
    data = config.data
    if data.labelled is None:
        return {"labelled": (DEMO,)}
    given = RunFolder(Path(config.run_dir)).given.resolve() if config.run_dir else None
    if given is not None and Path(data.labelled).resolve().parent == given:
        return {"labelled": (IN_PYTHON,)}
    kinds = {"labelled": (data.labelled,), "unlabelled": data.unlabelled, "test": (data.test,) if data.test else ()}
    # An id of a hub is no absolute path, and says what it is as a whole.
    return {
        kind: tuple(Path(path).name if Path(path).is_absolute() else path for path in paths)
        for kind, paths in kinds.items()
        if paths
    }


def located(config: RunConfig) -> RunConfig:
    """``config`` with a local backbone, and the folder of kept features, by paths that hold in any folder."""
    own = config.backbone
    cache = str(Path(own.cache_dir).expanduser().resolve()) if own.cache_dir else ""
    backbone = own.model_copy(update={"name": absolute_backbone(own.name), "cache_dir": cache})
    return config.model_copy(update={"backbone": backbone})


def resolve_sources(config: RunConfig) -> Sources:
    """The task and files of ``config``; with neither task nor files, the embedded demo.

    Of a corpus, a run that is in its folder already has the rows that were there when it was first opened.
    """
    data = config.data
    if data.labelled is None:
        return _demo(config)
    if not data.unlabelled and config.rounds.count:
        raise InputError(
            "no unlabelled file is given; self-training needs one: pass --unlabelled FILE, or the labelled file again "
            "where some of its rows have no label."
        )
    if STDIN in (data.labelled, *data.unlabelled, data.test):
        raise InputError("- is standard input, which a run could not read again; save it to a file and pass that.")
    columns, rows = parse_columns(data.columns) if data.columns else None, None
    stamps = _stamps(data.labelled, data.unlabelled, data.test)
    if config.task:
        task = load_task(config.task)
    else:
        task, rows = _infer(data.labelled, columns or Columns(), _labels_before(config))
    digests = source_digests(data.labelled, data.unlabelled, data.test, _recorded(config))
    check_apart(data.labelled, data.unlabelled, columns or task.columns, digests, is_pair=task.is_pair)
    return Sources(
        task, data.labelled, data.unlabelled, data.test, columns or task.columns, data.shots, digests,
        inferred=config.task is None, rows=rows, stamps=stamps,
    )  # fmt: skip


def spell_out(sources: Sources, config: RunConfig) -> Sources:
    """``sources``, whose inferred task has its name as the word of every label, if the head reads words.

    A run that was begun before keeps the words that it had, however names are tidied now.
    """
    if not (sources.inferred and config.head.reads_words):
        return sources
    begun = _record_of(config).get("task", {}).get("labels", {})
    same = list(begun) == list(sources.task.labels)
    task = sources.task.model_copy(update={"labels": begun}) if same else sources.task
    return replace(sources, task=fill_in_words(task))


def rows_since(config: RunConfig) -> int:
    """How many rows the corpora of a run have got since it was first opened."""
    recorded, sources = _recorded(config), config.data.unlabelled
    grown = 0
    for name, source in zip(source_names(sources), sources, strict=True):
        if is_corpus(source):
            now = read_manifest(Path(source))
            then = now.as_of(recorded.get(f"unlabelled/{name}", ""))
            grown += now.rows - then.rows if then else 0
    return grown


def _demo(config: RunConfig) -> Sources:
    if config.task not in {None, "demo"}:
        raise InputError(f"task '{config.task}' brings no texts; pass --labelled FILE and --unlabelled FILE.")
    if config.data.unlabelled or config.data.test:
        raise InputError("no labelled file is given; pass --labelled FILE with your own texts.")
    task = load_task("demo")
    folder = Path(str(resources.files("listflow.data") / "demo"))
    labelled, unlabelled, test = (str(folder / f"{role}.jsonl") for role in ("labelled", "unlabelled", "test"))
    stamps = _stamps(labelled, [unlabelled], test)
    digests = source_digests(labelled, [unlabelled], test)
    shots = config.data.shots or DEMO_SHOTS
    return Sources(task, labelled, (unlabelled,), test, task.columns, shots, digests, inferred=False, stamps=stamps)


def _recorded(config: RunConfig) -> dict[str, str]:
    """The digests of the run that ``config`` goes on with; none for a new one."""
    return dict(_record_of(config).get("digests", {}))


def _record_of(config: RunConfig) -> dict[str, Any]:
    """inputs.json of the run that ``config`` goes on with; nothing for a new one."""
    files = RunFolder(Path(config.run_dir)) if config.run_dir else None
    return dict(read_json(files.inputs)) if files is not None and files.config.exists() else {}


def _stamps(labelled: str, unlabelled: Sequence[str], test: str | None) -> tuple[Stamp | None, ...]:
    """When each file was last changed, its size, and which file it is; None for what is no file here."""
    return tuple(map(_stamp, (labelled, *unlabelled, *([test] if test else []))))


def _stamp(source: str) -> Stamp | None:
    path = Path(source)
    try:
        found = (path / MANIFEST if is_corpus(source) else path).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _labels_before(config: RunConfig) -> list[str]:
    """The labels of the run that ``config`` goes on with or continues; none for a new one."""
    inputs = RunFolder(Path(config.continues)).inputs if config.continues else None
    record = _record_of(config) or (read_json(inputs) if inputs is not None and inputs.exists() else {})
    return list(record.get("task", {}).get("labels", {}))


def _infer(labelled: str, columns: Columns, before: Sequence[str]) -> tuple[Task, Labelled]:
    """(the plainest task for a labelled file: its labels, in alphabetical order, and a general template; its rows).

    Labels are spelled as in ``before`` where a run has them already: an earlier version wrote some of them otherwise.
    """
    try:
        found, is_pair = LabelledFile(labelled, columns, is_pair=False).whole(), False
    except InputError as single:
        try:
            found, is_pair = LabelledFile(labelled, columns, is_pair=True).whole(), True
        except InputError:
            raise single from None
    spelled = _spelled_as(before, {row.label or "" for row in found.rows})
    rows = tuple(replace(row, label=spelled[row.label or ""]) for row in found.rows)
    labels = sorted(set(spelled.values()))
    if len(labels) < 2:
        raise InputError(f"{labelled}: all rows have the label {labels[0]!r}; add rows of another class.")
    return infer_task(labels, is_pair), replace(found, rows=rows)


def _spelled_as(before: Sequence[str], labels: set[str]) -> dict[str, str]:
    known = {label: known_label(label, before) or label for label in labels}
    return known if len(set(known.values())) == len(labels) else {label: label for label in labels}


def _absolute(path: str) -> str:
    return path if is_hub_id(path) else str(Path(path).expanduser().resolve())
