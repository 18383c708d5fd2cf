"""An opened run: its configuration, its checked inputs, its frozen backbone, and where its parts are kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from listflow.data.errors import InputError
from listflow.data.pools.inputs import Inputs
from listflow.pipeline.backbone.backbone import Backbone
from listflow.pipeline.backbone.batch import Encoded
from listflow.pipeline.backbone.prompt import Prompt
from listflow.pipeline.backbone.text_face import TextFace
from listflow.pipeline.method.sampling import generator_for, seed_for
from listflow.pipeline.model.classifier import Classifier
from listflow.pipeline.run.config import RunConfig
from listflow.pipeline.run.continuation import Parent
from listflow.pipeline.storage.checkpoint import read_json, verified
from listflow.pipeline.storage.run_folder import WEIGHTS, RoundFolder, RunFolder


@dataclass(frozen=True)
class Progress:
    """Where a long piece of work stands; ``loss`` where there is one, ``view`` whose work it is where there are two."""

    round: int
    phase: str
    done: int
    total: int
    loss: float | None = None
    view: str = ""


Notify = Callable[[Progress], None]


def counter(notify: Notify, number: int, phase: str, total: int) -> Callable[[int], None]:
    """A callback that reports the rows of a phase of round ``number`` as they are finished."""
    done = 0

    def on_rows(rows: int) -> None:
        nonlocal done
        done += rows
        notify(Progress(number, phase, done, total))

    return on_rows


@dataclass(frozen=True)
class Run:
    """An opened run. Everything the rounds need; nothing in it changes while it is open.

    It is the run as one view sees it: under ``prompt``, or by ``face`` where the bare text is read; ``others`` is the
    same run as the second view sees it. ``unknown`` is the share of tokens that the tokenizer does not know, by kind of
    rows; ``sampled`` are the rows of ``sample``, where they are kept by themselves. ``said`` remembers what models said
    of the pool, by model and rows: it saves time, and nothing else depends on it.
    """

    config: RunConfig
    folder: Path
    fingerprint: str
    inputs: Inputs
    backbone: Backbone
    prompt: Prompt
    word_ids: tuple[tuple[int, ...], ...]
    labelled: Encoded
    gold: Tensor
    corpus: Encoded
    test: Encoded | None
    test_gold: Tensor | None
    notices: tuple[str, ...]
    notify: Notify = lambda progress: None
    unknown: dict[str, float] = field(default_factory=dict)
    parent: Parent | None = None
    face: TextFace | None = None
    suffix: str = ""
    others: tuple[Run, ...] = ()
    sampled: Encoded | None = None
    said: dict[str, Tensor] = field(default_factory=dict, compare=False, repr=False)

    @property
    def views(self) -> tuple[Run, ...]:
        """The run as each of its views sees it, this one first: another configuration and other features.

        Of two, each says its name with what it does.
        """
        return tuple(view._by_name() for view in (self, *self.others)) if self.others else (self,)

    @property
    def view(self) -> str:
        """What this view is called: the face that it reads."""
        return self.config.face

    @property
    def lone(self) -> bool:
        """Whether no unlabelled text was given: its pool is its labelled texts, and it has no rounds."""
        return self.config.data.labelled is not None and not self.config.data.unlabelled

    @property
    def labels(self) -> list[str]:
        """Class names in the order of the logits."""
        return list(self.inputs.task.labels)

    @property
    def files(self) -> RunFolder:
        """Where its parts are kept."""
        return RunFolder(self.folder)

    def round(self, number: int) -> RoundFolder:
        """Where the parts of a round are kept."""
        return self.files.round(number, self.suffix)

    def teacher_of(self, number: int) -> int:
        """The round whose model teaches round ``number``: the last promoted one before it, or 0."""
        for earlier in range(number - 1, 0, -1):
            if read_json(self.round(earlier).verdict)["promoted"]:
                return earlier
        return 0

    def teachers_of(self, number: int) -> list[int]:
        """The rounds whose models label the rows of round ``number``, the latest last."""
        last = self.teacher_of(number)
        if self.config.pseudo.teachers == "last":
            return [last]
        return sorted({self.teacher_of(earlier) for earlier in range(1, number + 1)})

    def weights_digest(self, number: int) -> str:
        """sha256 of the weights of a round's model; InputError when that model is not complete."""
        model = self.round(number).model
        manifest = verified(model)
        if manifest is None:
            raise InputError(f"{model} is missing or damaged; resume the run to make it again.")
        return str(manifest["files"][WEIGHTS])

    def _by_name(self) -> Run:
        return replace(self, notify=lambda progress: self.notify(replace(progress, view=self.view)))

    def seed(self, *purpose: str | int) -> int:
        own = (self.suffix,) if self.suffix else ()
        return seed_for(self.config.seed, *purpose, *own)

    def new_classifier(self, number: int, offset: Tensor | None) -> Classifier:
        """A freshly drawn classifier for a round; teacher and students never share trainable tensors."""
        config, seed = self.config, self.seed(number, "init")
        return Classifier(self.backbone, config.stage, config.head, self.word_ids, seed, offset)

    def sample(self) -> np.ndarray:
        """The fixed unlabelled rows on which agreement is measured."""
        count = min(self.config.rounds.sample, len(self.corpus))
        return np.sort(generator_for(self.config.seed, "sample").permutation(len(self.corpus))[:count])

    def judged_by(self) -> Encoded:
        """The texts of ``sample``."""
        return self.corpus.take(self.sample()) if self.sampled is None else self.sampled

    def fresh_rows(self) -> np.ndarray:
        """The corpus rows that ``parent`` did not have, ascending; all rows without a parent."""
        pool, last = self.inputs.pool, self.parent.last_rows if self.parent else {}
        parts = [np.array(span)[pool.upto(span, last.get(name, 0)) :] for name, span in pool.spans().items()]
        return np.concatenate(parts).astype(np.int64)

    @property
    def news(self) -> int:
        """How many rows of the sources ``parent`` did not have; all of them without a parent."""
        built = self.inputs.built
        return len(self.fresh_rows()) if built.news is None else built.news

    def test_sample(self, number: int) -> np.ndarray | None:
        """The test rows that a round's student is measured on; None for all, as for the round-0 teacher."""
        wanted = self.config.rounds.test_rows
        if number == 0 or wanted is None or wanted >= len(self.inputs.test):
            return None
        return np.sort(generator_for(self.config.seed, "test").permutation(len(self.inputs.test))[:wanted])
