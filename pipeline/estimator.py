"""Self-training as an estimator of scikit-learn: ``fit`` makes a run, ``predict`` asks its final model."""

from __future__ import annotations

import shutil
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
from listflow.data.inputs import LONE
from listflow.data.values import listed
from listflow.pipeline.given import Given, unframed
from listflow.pipeline.results.predictor import Predictor
from listflow.pipeline.results.rendering import ShownReport
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.run.run import Progress
from listflow.pipeline.self_training import self_train

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

    After ``fit``: ``classes_``, ``report_`` (shown as a page in a notebook) and ``predictor_``, the final model.
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
        the index of the item: nothing is trained then.
        """
        labels = listed(labels)
        given = Given.of(texts, labels, self.unlabelled if unlabelled is None else unlabelled)
        classes = _classes(labels, given.labels)
        with _folder(self.run_dir) as folder, given.kept_in(folder) as data, _bar(self.verbose) as shown:
            config = build_config(self.preset, self._overlay(folder, data))
            report = self_train(config, shown)
            self.predictor_ = Predictor.open(folder)
        if not given.unlabelled:
            warnings.warn(LONE, stacklevel=2)
        self.report_ = ShownReport.of(report)
        self.classes_ = np.array(list(classes.values()))
        self._columns = [self.predictor_.labels.index(name) for name in classes]
        return self

    def predict(self, texts: Any) -> np.ndarray:
        """(N,) the most probable class of each text."""
        soft = self.predict_proba(texts)
        return np.asarray(self.classes_[soft.argmax(1)])

    def predict_proba(self, texts: Any) -> np.ndarray:
        """(N, C) probabilities, in the order of ``classes_``."""
        check_is_fitted(self)
        return self.predictor_.probabilities(unframed(texts))[:, self._columns]

    def set_params(self, **params: Any) -> Self:
        """As scikit-learn's; ``rounds__count=3`` sets a value within a section of the configuration."""
        plain: dict[str, Any] = {}
        for name, value in params.items():
            section, _, within = name.partition("__")
            if within and section in SETTINGS:
                before = plain.get(section, getattr(self, section))
                value = _within(before, within.split("__"), value)
            plain[section if within else name] = value
        super().set_params(**plain)
        return self

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        return tags

    def _overlay(self, folder: Path, data: dict[str, Any]) -> dict[str, Any]:
        asked = {name: value for name in SETTINGS if (value := getattr(self, name)) is not None}
        if isinstance(self.backbone, str):
            asked["backbone"] = {"name": self.backbone}
        if "unlabelled" not in data:
            asked["rounds"] = {**(self.rounds or {}), "count": 0}
        return {**asked, "run_dir": str(folder), "data": data}


def _classes(labels: list[Any], names: list[str]) -> dict[str, Any]:
    """By name, in the order of ``classes_``, each class as it was given; InputError where two have one name."""
    found: dict[str, Any] = {}
    for value, name in zip(labels, names, strict=True):
        if found.setdefault(name, value) != value:
            raise InputError(f"labels {found[name]!r} and {value!r} are both called '{name}'; give them other names.")
    try:
        return dict(sorted(found.items(), key=lambda item: item[1]))
    except TypeError as error:
        kinds = ", ".join(sorted({type(value).__name__ for value in found.values()}))
        raise InputError(
            f"labels are of several kinds ({kinds}); pass all of them as text, or all as numbers."
        ) from error


def _within(before: Any, path: list[str], value: Any) -> dict[str, Any]:
    kept = dict(before) if isinstance(before, dict) else {}
    kept[path[0]] = _within(kept.get(path[0]), path[1:], value) if len(path) > 1 else value
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
            self._bar.reset(progress.total)
            self._bar.set_description(
                " ".join(filter(None, (f"round {progress.round}", progress.view, progress.phase)))
            )
        self._bar.update(progress.done - self._bar.n)


@contextmanager
def _bar(verbose: bool) -> Iterator[_Bar]:
    with tqdm(total=0, leave=False, disable=None if verbose else True) as bar:
        yield _Bar(bar)
