"""Self-training as an estimator of scikit-learn: ``fit`` makes a run, ``predict`` asks its final model."""

from __future__ import annotations

import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted
from tqdm.auto import tqdm

from listflow.data.errors import InputError
from listflow.data.values import known_label
from listflow.pipeline.given import Given, in_python, items_of, labels_of
from listflow.pipeline.results.predictor import Predictor
from listflow.pipeline.results.rendering import ShownReport
from listflow.pipeline.run.opening import open_run
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.run.run import Progress
from listflow.pipeline.self_training import train

# Sections and values of the configuration that are the estimator's parameters by the same name.
SETTINGS = (
    "task", "seed", "backbone", "face", "stage", "head", "second", "mixture", "teacher", "student", "pseudo",
    "reweight", "rounds", "dropout", "clip",
)  # fmt: skip


class TextClassifier(ClassifierMixin, BaseEstimator):
    """Learns from a few labelled texts and many unlabelled ones (LiST, arXiv 2110.06274).

    ``unlabelled`` are texts without labels, here or in ``fit``; without any there are no rounds, and a warning says so.
    ``task`` is a built-in task, or a file that says what the labels mean. ``run_dir`` keeps the run, so that a ``fit``
    that was interrupted goes on and its report can be opened; without it the run is gone after ``fit``. ``verbose``
    shows how far it is. All else is set as in the configuration of that name: a value, a name, or a dict such as
    ``rounds={"count": 3}``; None leaves it to the ``preset``.

    After ``fit``: ``classes_``, ``report_`` (shown as a page in a notebook; ``report_.estimate`` is the accuracy
    that the labels tell) and ``predictor_``, the final model.
    """

    def __init__(
        self,
        unlabelled: Any = None,
        *,
        preset: str = "fast",
        task: str | None = None,
        seed: int = 1,
        backbone: str | dict[str, Any] | None = None,
        face: str | None = None,
        stage: Any = None,
        head: Any = None,
        second: dict[str, Any] | None = None,
        mixture: dict[str, Any] | None = None,
        teacher: dict[str, Any] | None = None,
        student: dict[str, Any] | None = None,
        pseudo: dict[str, Any] | None = None,
        reweight: dict[str, Any] | None = None,
        rounds: dict[str, Any] | None = None,
        dropout: bool | None = None,
        clip: float | None = None,
        run_dir: str | Path | None = None,
        verbose: bool = True,
    ) -> None:
        self.unlabelled = unlabelled
        self.preset = preset
        self.task = task
        self.seed = seed
        self.backbone = backbone
        self.face = face
        self.stage = stage
        self.head = head
        self.second = second
        self.mixture = mixture
        self.teacher = teacher
        self.student = student
        self.pseudo = pseudo
        self.reweight = reweight
        self.rounds = rounds
        self.dropout = dropout
        self.clip = clip
        self.run_dir = run_dir
        self.verbose = verbose

    def fit(self, texts: Any, labels: Any, unlabelled: Any = None) -> Self:
        """Learns from ``texts``, one label each, and ``unlabelled`` ones, by default those of the constructor.

        Lists, arrays and columns of texts; of pairs, two columns or tuples. InputError for what cannot be used, with
        the index of the item: nothing is trained then. What is used but should be known is a warning.
        """
        labels = labels_of(labels)
        given = Given.of(texts, labels, self._pool() if unlabelled is None else unlabelled)
        classes = _classes(labels, given.labels)
        with _folder(self.run_dir) as folder, given.kept_in(folder) as data, _bar(self.verbose) as shown:
            config = build_config(self.preset, self._overlay(folder, data))
            with open_run(config, shown) as run:
                report = ShownReport.of(train(run))
                # On the backbone that is loaded: a second one would be the peak of memory.
                predictor = Predictor.open(run.folder, run.backbone)
        self.predictor_, self.report_ = predictor, report
        self.classes_ = np.array(list(classes.values()))
        # The task may write a label in another way, and have labels that no text has here.
        self._columns = [predictor.labels.index(known_label(name, predictor.labels) or name) for name in classes]
        for notice in report.notices:
            warnings.warn(in_python(notice), stacklevel=2)
        return self

    def predict(self, texts: Any) -> np.ndarray:
        """(N,) the most probable class of each text."""
        soft = self.predict_proba(texts)
        return np.asarray(self.classes_[soft.argmax(1)])

    def predict_proba(self, texts: Any) -> np.ndarray:
        """(N, C) probabilities, in the order of ``classes_``."""
        check_is_fitted(self)
        soft = self.predictor_.probabilities(items_of(texts))
        own = soft[:, self._columns]
        return own if own.shape == soft.shape else own / own.sum(1, keepdims=True)

    def set_params(self, **params: Any) -> Self:
        """As scikit-learn's; ``rounds__count=3`` sets a value within a section of the configuration."""
        plain: dict[str, Any] = {}
        for name, value in params.items():
            section, _, within = name.partition("__")
            if within and section in SETTINGS:
                before = plain.get(section, getattr(self, section))
                value = _within(section, before, within.split("__"), value)
            plain[section if within else name] = value
        super().set_params(**plain)
        return self

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        return tags

    def _pool(self) -> Any:
        if isinstance(self.unlabelled, Iterator):
            raise InputError(
                "unlabelled is a generator, which can be read once only; pass a list, or give it to fit instead."
            )
        return self.unlabelled

    def _overlay(self, folder: Path, data: dict[str, Any]) -> dict[str, Any]:
        asked = {name: value for name in SETTINGS if (value := getattr(self, name)) is not None}
        if isinstance(self.backbone, str):
            asked["backbone"] = {"name": self.backbone}
        if "unlabelled" not in data:
            asked["rounds"] = {**(self.rounds or {}), "count": 0}
        return {**asked, "run_dir": str(folder), "data": data}


def _classes(labels: list[Any], names: list[str]) -> dict[str, Any]:
    """By name, in the order of ``classes_``, each class as it was given; InputError for what are no classes."""
    found: dict[str, Any] = {}
    for value, name in zip(labels, names, strict=True):
        if found.setdefault(name, value) != value:
            raise InputError(f"labels {found[name]!r} and {value!r} are both called '{name}'; give them other names.")
        if isinstance(value, float | np.floating) and not float(value).is_integer():
            raise InputError(f"labels hold {value}, a continuous number; pass classes, as text or as whole numbers.")
    kinds = {_kind(value) for value in found.values()}
    if len(kinds) > 1:
        raise InputError(f"labels are of several kinds ({', '.join(sorted(kinds))}); pass all of them as text.")
    if len(found) < 2:
        raise InputError(f"all labels are '{next(iter(found))}', which is one class; add texts of another class.")
    return dict(sorted(found.items(), key=lambda item: item[1]))


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "text"
    return "true or false" if isinstance(value, bool | np.bool_) else "numbers"


def _within(section: str, before: Any, path: list[str], value: Any) -> dict[str, Any]:
    """What ``before`` has of a section, a name alone too, with the value at ``path`` in it."""
    named = {"name" if section == "backbone" else "kind": before} if isinstance(before, str) else before
    kept = dict(named) if isinstance(named, dict) else {}
    kept[path[0]] = _within(path[0], kept.get(path[0]), path[1:], value) if len(path) > 1 else value
    return kept


@contextmanager
def _folder(run_dir: str | Path | None) -> Iterator[Path]:
    """The folder of a run; one that nobody named is gone afterwards."""
    if run_dir is not None:
        yield Path(run_dir).expanduser()
        return
    folder = Path(mkdtemp(prefix="listflow-"))
    try:
        yield folder / "run"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Bar:
    """A bar for each part of a run, where somebody sees it."""

    def __init__(self, bar: Any) -> None:
        self._bar, self._part = bar, ("", 0, "")

    def __call__(self, progress: Progress) -> None:
        part = (progress.view, progress.round, progress.phase)
        if part != self._part:
            self._part = part
            words = " ".join(filter(None, (f"round {progress.round}", progress.view, progress.phase)))
            self._bar.set_description(words, refresh=False)
            self._bar.reset(progress.total)
        self._bar.update(progress.done - self._bar.n)


@contextmanager
def _bar(verbose: bool) -> Iterator[_Bar]:
    # A notebook's streams are no terminal, and are seen.
    is_seen = sys.stderr.isatty() or "ipykernel" in sys.modules
    with tqdm(total=0, leave=False, disable=not (verbose and is_seen)) as bar:
        yield _Bar(bar)
