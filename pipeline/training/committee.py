"""Several views as one: how far each is believed, decided once in round 0, and what they say together."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from listflow.pipeline.method.mixture import believed, mixed, nll, say, temperature
from listflow.pipeline.model.classifier import logits_of
from listflow.pipeline.run.run import Run
from listflow.pipeline.run.wording import percent
from listflow.pipeline.storage.checkpoint import load_tensors, new_folder, read_json, save_tensors, verified, write_json
from listflow.pipeline.storage.pseudo_labels import Weighed, load_meta_weights, mean_over, mean_weights
from listflow.pipeline.storage.run_folder import EVIDENCE, MIXTURE
from listflow.pipeline.training.label_vectors import folds_of, has_label_vectors, held_out
from listflow.pipeline.training.models import cross_validated, metrics_of

Facts = dict[str, Any]


@dataclass(frozen=True)
class Voice:
    """How far a view is believed: its ``weight`` of 1 in all, 0 for no say.

    Its round-0 teacher is believed by ``belief``, at a temperature of its own; ``right`` of the K labelled rows it knew
    without their own label.
    """

    view: str
    weight: float
    temperature: float
    nll: float
    right: int
    belief: float


@dataclass(frozen=True)
class Mixture:
    """The views of a run by their weights, and how these were decided."""

    voices: tuple[Voice, ...]
    decided_by: str = ""

    def speaking(self, run: Run) -> list[tuple[Run, Voice]]:
        """The views of ``run`` that have a say."""
        return [(view, voice) for view, voice in zip(run.views, self.voices, strict=True) if voice.weight > 0]

    @property
    def heard(self) -> list[Voice]:
        """Those that have a say."""
        return [voice for voice in self.voices if voice.weight > 0]

    def temperatures(self, number: int) -> list[float]:
        """Those of the views that have a say in a round.

        Students of all views learn the same soft labels, so that their logits are of one scale.
        """
        return [1.0 if number else voice.temperature for voice in self.heard]

    def weights(self, number: int) -> list[float]:
        """Those of the views that have a say in a round, 1 in all."""
        found = [voice.weight if number else voice.belief for voice in self.heard]
        return [weight / sum(found) for weight in found]

    def logits(self, number: int, by_view: Sequence[Tensor]) -> Tensor:
        """(N, C) logits of a round's committee, from those of the views that have a say; a lone view's own."""
        if len(by_view) == 1:
            return by_view[0]
        return mixed(by_view, self.temperatures(number), self.weights(number))


def weigh_views(run: Run) -> Facts:
    """Round 0: the manifest of the committee's folder, made or found; nothing for a run of one view."""
    if not run.others:
        return {}
    folder = run.round(0).committee
    inputs = {view.view: view.weights_digest(0) for view in run.views}
    done = verified(folder)
    if done and done["inputs"] == inputs:
        return done
    began = time.monotonic()
    mixture, known = _taken_over(run), dict[str, Tensor]()
    if mixture is None:
        known = {view.view: without_own_label(view) for view in run.views}
        mixture = _decided(run, list(known.values()))
    with new_folder(folder, {"inputs": inputs, "seconds": time.monotonic() - began}) as aside:
        write_json(aside / MIXTURE, {"format": 1, **asdict(mixture)})
        if known:
            save_tensors(aside / EVIDENCE, known)
    return verified(folder) or {}


def mixture_of(run: Run) -> Mixture:
    """What was decided in round 0; a single view is believed alone."""
    if not run.others:
        return Mixture((Voice(run.view, 1.0, 1.0, math.nan, 0, 1.0),))
    stored = read_json(run.round(0).committee / MIXTURE)
    return Mixture(tuple(Voice(**voice) for voice in stored["voices"]), stored["decided_by"])


def speaking(run: Run) -> list[Run]:
    """The views that have a say."""
    return [view for view, _ in mixture_of(run).speaking(run)]


def said_of(run: Run, number: int, name: str) -> Tensor:
    """(N, C) logits of a round's committee that its folders hold as ``name``."""
    mixture = mixture_of(run)
    found = [load_tensors(view.round(number).evidence)[name] for view, _ in mixture.speaking(run)]
    return mixture.logits(number, found)


def reached(run: Run, number: int) -> Facts | None:
    """What a round's committee reaches on the test rows that it was measured on; that of round 0 knows the pool."""
    if run.test_gold is None:
        return None
    rows = run.test_sample(number)
    return metrics_of(said_of(run, number, "test"), run.test_gold if rows is None else run.test_gold[rows])


def reached_by_labels(run: Run) -> Facts | None:
    """What labelled rows and names alone reach, mixed by the final weights."""
    if run.test_gold is None:
        return None
    views = speaking(run)
    names = ["labelled_only" if has_label_vectors(view) and run.parent is None else "test" for view in views]
    kept = [load_tensors(view.round(0).evidence)[name] for view, name in zip(views, names, strict=True)]
    return metrics_of(mixture_of(run).logits(0, kept), run.test_gold)


def reasons(run: Run) -> list[str]:
    """Of each of two views, a sentence on why it is believed as far as it is."""
    voices, folds = mixture_of(run).voices, folds_of(run)
    rows = sum(map(len, folds)) or len(run.gold)
    return [_reason(own, other, rows, bool(folds)) for own, other in zip(voices, voices[::-1], strict=True)]


def _reason(own: Voice, other: Voice, rows: int, held_out: bool) -> str:
    how = "without their own label" if held_out else "before any label is used (there are too few to hold some out)"
    sure, less = (percent(math.exp(-voice.nll)) for voice in (own, other))
    silent = "" if own.weight else "; too little for a say, so it is not computed after the start"
    return (
        f"{own.right} of {rows} labelled rows right {how}, the other {other.right}; "
        f"it gives the true class a probability of {sure}, the other {less} (geometric means){silent}."
    )


def meta_weights_of(run: Run, number: int) -> list[pa.Table]:
    """The meta weights that each view with a say gave in a round."""
    return [load_meta_weights(view.round(number).meta_weights) for view in speaking(run)]


def mean_meta_weights(run: Run, *numbers: int) -> Weighed:
    """(rows that were reweighted in these rounds, ascending; the mean over views with a say of each one's mean)."""
    by_view = zip(*(meta_weights_of(run, number) for number in numbers), strict=True)
    return mean_over([mean_weights(tables) for tables in by_view])


def mean_shares(run: Run, number: int) -> Weighed:
    """(rows that were reweighted in a round, ascending; what each weighed there, 1 being an equal share of a step).

    The mean over views with a say, whose steps need not be of the same size.
    """
    by_view = []
    for view, table in zip(speaking(run), meta_weights_of(run, number), strict=True):
        rows, weights = mean_weights([table])
        by_view.append((rows, min(view.config.student.batch, len(view.corpus)) * weights))
    return mean_over(by_view)


def _taken_over(run: Run) -> Mixture | None:
    """That of the run that this one goes on from; None where the labelled rows are others now."""
    parent = run.parent
    if parent is None or not parent.has_labels_of(run.config, run.inputs.digests):
        return None
    return _for_models(run, Mixture(tuple(Voice(**voice) for voice in parent.voices), parent.decided_by))


def _for_models(run: Run, mixture: Mixture) -> Mixture:
    """``mixture`` with the temperatures of the models that were taken over, where some were."""
    parent = run.parent
    if parent is None:
        return mixture
    voices = []
    for voice in mixture.voices:
        model = parent.model_of(voice.view)
        belief = voice.weight if model.is_student else voice.belief
        voices.append(replace(voice, temperature=model.temperature, belief=belief))
    return replace(mixture, voices=tuple(voices))


def without_own_label(view: Run) -> Tensor:
    """(K, C) logits of the labelled rows without their own label."""
    # What is known of a model that was taken over may be of other labelled rows.
    known = load_tensors(view.round(0).evidence) if view.parent is None else {}
    if "labelled" in known:
        return known["labelled"]
    if has_label_vectors(view):
        return held_out(view)
    stored, folds = (verified(view.round(0).model) or {}).get("offset"), folds_of(view)
    offset = None if stored is None else torch.tensor(stored)
    if not folds:
        return logits_of(view.new_classifier(0, offset), view.labelled)
    return cross_validated(view, offset, folds)


def _decided(run: Run, unseen: Sequence[Tensor]) -> Mixture:
    folds = folds_of(run)
    rows = np.sort(np.concatenate(folds)) if folds else np.arange(len(run.gold))
    gold, unseen = run.gold[rows], [logits[rows] for logits in unseen]
    temperatures = scales = [temperature(logits, gold) for logits in unseen]
    told = [nll((z / t).log_softmax(-1), gold) for z, t in zip(unseen, temperatures, strict=True)]
    if not folds:
        # What names say sets no temperature for a teacher of labels, which is one by itself.
        temperatures = [1.0 if has_label_vectors(view) else t for view, t in zip(run.views, temperatures, strict=True)]
    silent = any(bool((z == z[:, :1]).all()) for z in unseen)
    first = believed(unseen[0], unseen[1], gold, scales)
    right = [int((z.argmax(-1) == gold).sum()) for z in unseen]
    weight = say(first, [0.0, 0.0] if silent else told, len(run.labels), run.config.mixture.smallest)
    facts = zip(run.views, (weight, 1 - weight), temperatures, told, right, (first, 1 - first), strict=True)
    voices = [Voice(view.view, *rest) for view, *rest in facts]
    decided_by = "rows held out" if folds else "what is said before any label is used"
    return _for_models(run, Mixture(tuple(voices), decided_by))
