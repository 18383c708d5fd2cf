"""Opening a run: every input checked, its folder claimed, its texts tokenised and passed through the frozen layers.

Nothing is trained before all of this has succeeded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from listflow.data.errors import InputError
from listflow.data.files import missing, take_back
from listflow.data.pools.inputs import open_inputs
from listflow.pipeline.backbone.backbone import Backbone, load_backbone
from listflow.pipeline.backbone.cache import encode_pool
from listflow.pipeline.backbone.prompt import Prompt
from listflow.pipeline.model.config import PrototypesHead, YTuningHead
from listflow.pipeline.model.label_names import silent_notice
from listflow.pipeline.model.verbalizer import word_ids_for, word_notices
from listflow.pipeline.run.config import RunConfig
from listflow.pipeline.run.continuation import Parent, digest_of, keep_rows, nothing_new, pinned_parent
from listflow.pipeline.run.feature_cache import carried_from, keeps_features, room_notices, with_kept_features
from listflow.pipeline.run.lineage import check_familiar
from listflow.pipeline.run.record import check_owner, fingerprint_of, strangers_in, write_record
from listflow.pipeline.run.run import Notify, Run, counter
from listflow.pipeline.run.sources import Sources, located, resolve_sources, spell_out
from listflow.pipeline.run.views import suited, with_views
from listflow.pipeline.run.wording import percent
from listflow.pipeline.stages.config import AnyStage, Intrinsic, PTuning
from listflow.pipeline.stages.ipt import check_subspace, pinned
from listflow.pipeline.stages.presets import pseudo_tokens
from listflow.pipeline.stages.prompt_start import check_start, pinned_start, spell_start
from listflow.pipeline.storage.checkpoint import single_writer
from listflow.pipeline.storage.run_folder import RunFolder, default_folder

# Shares of unknown tokens: above the first a reader is told, from the second on a run is refused.
NOTICED_UNKNOWN, REFUSED_UNKNOWN = 0.05, 0.9


@dataclass(frozen=True)
class Found:
    """What the configuration ``asked`` names, by paths that hold in any folder; its model where it is loaded."""

    asked: RunConfig
    config: RunConfig
    sources: Sources
    parent: Parent | None
    backbone: Backbone | None = None

    def with_backbone(self) -> Found:
        """The same with its model; InputError where that cannot be loaded."""
        return replace(self, backbone=_load(self.config))

    def answers(self, config: RunConfig) -> bool:
        """Whether ``config`` is what was asked, and its files are still what was found."""
        return self.asked == config and self.sources.are_current()

    def check_news(self) -> None:
        """NothingNew for a continued run on the same text; InputError where it cannot go on from its parent."""
        if self.parent is not None:
            self.parent.check(self.config, list(self.sources.task.labels), self.sources.digests)


def look_up(config: RunConfig) -> Found:
    """The files and the finished run that ``config`` names, each found and digested once, for ``open_run``.

    InputError for what is not there or cannot be used.
    """
    here = located(config)
    sources = resolve_sources(here)
    here, parent = pinned_parent(here)
    return Found(config, here, sources, parent)


@contextmanager
def open_run(
    config: RunConfig,
    notify: Notify = lambda progress: None,
    keep_features: bool = True,
    backbone: Backbone | None = None,
    found: Found | None = None,
    claim: Callable[[Path], AbstractContextManager[object]] = nullcontext,
) -> Iterator[Run]:
    """The run of ``config``, locked for one writer. InputError for every input that cannot be used.

    ``keep_features`` passes every text through the frozen layers once, unless that was done before. ``backbone`` is the
    one that the configuration names, where it is loaded already; ``found`` what it names, where that was looked up.
    ``claim`` makes a block that is entered with the folder as soon as it is locked.
    """
    found = found if found is not None and found.answers(config) else look_up(config)
    config, sources, parent = found.config, found.sources, found.parent
    config = config.model_copy(update={"stage": tuple(map(_pinned, config.stage))})
    backbone = backbone or found.backbone or _load(config)
    config = suited(config, backbone, sources.task)
    sources = spell_out(sources, config)
    config = _spelled(config, sources, backbone)
    reviewed = parent.reviewed if parent else ()
    if parent is not None:
        parent.check(config, list(sources.task.labels), sources.digests)
        sources = replace(sources, digests=sources.digests | digest_of(reviewed))
    fingerprint = fingerprint_of(config, sources, backbone)
    folder = (Path(config.run_dir) if config.run_dir else default_folder(sources.task.name, fingerprint)).resolve()
    check_owner(folder, fingerprint, config, sources)
    absent = missing(folder)
    with single_writer(folder), _leaving_no_stub(folder, absent), claim(folder):
        run = _assemble(config, sources, parent, backbone, folder, fingerprint, notify)
        run = replace(run, parent=parent and parent.knowing(run.inputs.built))
        check_subspace(config.stage, backbone, run.prompt)
        check_start(config.stage, backbone)
        run = replace(run, unknown=_unknown(run))
        _check_known(run, sources)
        run = replace(run, notices=_notices(run))
        check_familiar(run)
        run.new_classifier(0, None)  # a stage or head that does not fit the backbone is refused here
        keep_rows(folder, reviewed)
        write_record(run, sources)
        yield _read(run) if keep_features else run


def _load(config: RunConfig) -> Backbone:
    return load_backbone(config.backbone.name, config.backbone.precision, config.backbone.device)


def _read(run: Run) -> Run:
    """The run with what its frozen parts give for all texts at hand, for each view."""
    return with_views(with_kept_features(run) if run.config.face == "prompt" and keeps_features(run) else run)


@contextmanager
def _leaving_no_stub(folder: Path, absent: Sequence[Path]) -> Iterator[None]:
    """Inside the lock: a run that is refused before it is recorded takes the folders back that were ``absent``."""
    try:
        yield
    except InputError:
        if absent and not strangers_in(folder):
            take_back(absent)
        raise


def _assemble(
    config: RunConfig,
    sources: Sources,
    parent: Parent | None,
    backbone: Backbone,
    folder: Path,
    fingerprint: str,
    notify: Notify,
) -> Run:
    task, data, files = sources.task, config.data, RunFolder(folder)
    prompt = Prompt(task, backbone.tokenizer, _length(config, backbone), pseudo_tokens(config.stage))
    inputs = open_inputs(
        task, sources.labelled, sources.unlabelled, sources.test, columns=sources.columns, shots=sources.shots,
        balanced=data.balanced, seed=config.seed, folder=files.kept_inputs, digests=sources.digests,
        known=sources.rows, reviewed=parent.reviewed if parent else (), most=config.most_rows,
        before=parent.before if parent else None,
    )  # fmt: skip
    if len(inputs.pool) == 0:
        raise InputError("no unlabelled row is left to learn from; pass a file with other texts to --unlabelled.")
    on_rows = counter(notify, 0, "tokenise", len(inputs.pool))
    carried = carried_from(parent, inputs.built)
    corpus = encode_pool(inputs.pool, prompt, files.tokens, fingerprint, on_rows, carried)
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


def _notices(run: Run) -> tuple[str, ...]:
    """The sentences; NothingNew for a continued run that has nothing new to learn from."""
    return (
        *_word_notices(run),
        *_unknown_notices(run),
        *_new_notices(run),
        *_view_notices(run),
        *run.inputs.notices,
        *_cut_notices(run),
        *_sample_notices(run),
        *_head_notices(run),
        *room_notices(run),
    )


def _unknown(run: Run) -> dict[str, float]:
    """The share of the tokens that the backbone's tokenizer does not know, for each kind of rows that there is."""
    given = {"labelled": run.labelled, "unlabelled": run.corpus, "test": run.test}
    return {name: run.prompt.tally(encoded).share for name, encoded in given.items() if encoded is not None}


def _check_known(run: Run, sources: Sources) -> None:
    """InputError for a run that is not begun yet, and whose backbone knows next to nothing of its texts."""
    files = {"labelled": sources.labelled, "unlabelled": ", ".join(sources.unlabelled)}
    for name, file in files.items():
        if run.unknown[name] >= REFUSED_UNKNOWN and not run.files.config.exists():
            raise InputError(
                f"{file}: backbone '{run.backbone.name}' does not know {percent(run.unknown[name])} of the tokens of "
                f"the {_called(run, name)} rows, and cannot tell them apart; pass --backbone with an encoder of their "
                "language."
            )


def _unknown_notices(run: Run) -> Iterator[str]:
    shares = ((_called(run, name), share) for name, share in run.unknown.items())
    many = [f"{percent(share)} of the {called}" for called, share in shares if share > NOTICED_UNKNOWN]
    if many:
        yield (
            f"backbone '{run.backbone.name}' does not know {' and '.join(many)} tokens: rows that differ in these "
            "alone are the same to it, and an encoder of their language would tell them apart (--backbone)."
        )


def _called(run: Run, name: str) -> str:
    """The ``name`` of a kind of rows, which says where only a sample of them was looked at."""
    return f"sampled {name}" if name == "unlabelled" and run.inputs.built.is_sample else name


def _word_notices(run: Run) -> Iterator[str]:
    if run.config.head.reads_words:
        yield from word_notices(run.inputs.task, run.backbone.tokenizer)


def _new_notices(run: Run) -> Iterator[str]:
    """What a continued run has that its parent had not; InputError where it is nothing."""
    if run.parent is None:
        return
    fresh = run.news
    if not fresh:
        raise nothing_new(run.parent.folder)
    if run.parent.silent:
        yield f"the {run.parent.silent} view had no say in {run.parent.folder.name}, and is not computed here."
    if run.parent.reviewed:
        yield f"{len(run.parent.reviewed)} rows that were labelled in earlier reviews are labelled rows here."
    rows, parent = run.inputs.built.rows, run.parent.folder.name
    yield f"{fresh:,} of {rows:,} unlabelled rows are new since {parent}, which goes on."


def _cut_notices(run: Run) -> Iterator[str]:
    limit = run.prompt.max_length
    for name, encoded in (("labelled", run.labelled), ("unlabelled", run.corpus), ("test", run.test)):
        full = 0 if encoded is None else int((encoded.lengths() >= limit).sum())
        if full:
            what = f"{full} {_called(run, name)} text(s) fill all {limit} tokens"
            yield f"{what}: what lies beyond is not read (backbone.max_length)."


def _sample_notices(run: Run) -> Iterator[str]:
    rows = run.test_sample(1)
    if rows is not None:
        yield (
            f"zero-shot and students are measured on {len(rows)} of {len(run.inputs.test)} test rows "
            "(rounds.test_rows); labels alone and final on all of them."
        )


def _view_notices(run: Run) -> Iterator[str]:
    own = run.config.face == "text" and isinstance(run.config.head, PrototypesHead)
    reads_names = own or run.config.second is not None
    silent = silent_notice(run.inputs.task, run.backbone.tokenizer)
    if reads_names and silent and not run.inputs.task.is_pair:
        yield silent
    if run.config.face == "text" and not run.backbone.has_head:
        yield (
            f"backbone '{run.backbone.name}' has no trained masked-LM head, so that a prompt would say nothing: the "
            "bare text's sentence embedding is read alone."
        )


def _head_notices(run: Run) -> Iterator[str]:
    head, backbone = run.config.head, run.backbone
    if isinstance(head, YTuningHead) and head.reads_words and backbone.word_rows.shape[1] != backbone.hidden_size:
        yield "label vectors start at random: the word embeddings of this backbone are narrower than its features."
