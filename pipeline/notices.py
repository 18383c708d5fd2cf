"""What a user should know about the inputs of a run before it starts, a sentence each."""

from __future__ import annotations

from collections.abc import Iterator

from listflow.pipeline.model.config import YTuningHead
from listflow.pipeline.run.continuation import nothing_new
from listflow.pipeline.run.feature_cache import room_notices
from listflow.pipeline.run.run import Run


def notices_of(run: Run) -> tuple[str, ...]:
    """The sentences; NothingNew for a continued run that has nothing new to learn from."""
    return (
        *_new_notices(run),
        *run.inputs.notices,
        *_cut_notices(run),
        *_sample_notices(run),
        *_head_notices(run),
        *room_notices(run),
    )


def _new_notices(run: Run) -> Iterator[str]:
    """What a continued run has that its parent had not; InputError where it is nothing."""
    if run.parent is None:
        return
    fresh = len(run.fresh_rows())
    if not fresh:
        raise nothing_new(run.parent.folder)
    if run.parent.reviewed:
        yield f"{len(run.parent.reviewed)} rows that were labelled in earlier reviews are labelled rows here."
    yield f"{fresh:,} of {len(run.corpus):,} unlabelled rows are new since {run.parent.folder.name}, which goes on."


def _cut_notices(run: Run) -> Iterator[str]:
    limit = run.prompt.max_length
    for name, encoded in (("labelled", run.labelled), ("unlabelled", run.corpus), ("test", run.test)):
        full = 0 if encoded is None else int((encoded.lengths() >= limit).sum())
        if full:
            yield f"{full} {name} text(s) fill all {limit} tokens: what lies beyond is not read (backbone.max_length)."


def _sample_notices(run: Run) -> Iterator[str]:
    rows = run.test_sample(1)
    if rows is not None:
        yield (
            f"zero-shot and students are measured on {len(rows)} of {len(run.inputs.test)} test rows "
            "(rounds.test_rows); labels alone and final on all of them."
        )


def _head_notices(run: Run) -> Iterator[str]:
    head, backbone = run.config.head, run.backbone
    if isinstance(head, YTuningHead) and head.reads_words and backbone.word_rows.shape[1] != backbone.hidden_size:
        yield "label vectors start at random: the word embeddings of this backbone are narrower than its features."
