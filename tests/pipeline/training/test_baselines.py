"""What people would use instead: on the same vectors, with every label, and never a reason to fail."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import tiny_overlay

from listflow.pipeline.backbone.batch import Encoded, one_vector_each
from listflow.pipeline.method.metrics import Metrics, measure
from listflow.pipeline.run.opening import open_run
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.run.run import Run
from listflow.pipeline.training import baselines
from listflow.pipeline.training.baselines import REGRESSION, SPREADING, baselines_of

TEXT_ALONE = {"face": "text", "stage": {"kind": "none"}, "head": {"kind": "prototypes"}}


@pytest.fixture(scope="module")
def run(tiny_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A text view whose vectors the tests replace."""
    folder = tmp_path_factory.mktemp("baselines") / "run"
    overlay = {name: part for name, part in tiny_overlay(tiny_files, folder).items() if name != "stage"}
    with open_run(build_config("fast", overlay, TEXT_ALONE)) as opened:
        return opened


def with_vectors(run: Run, labelled: list[int], test: list[int], pool: int = 60) -> Run:
    """Rows of two classes that lie apart, and a pool of both in turn."""
    rng = np.random.default_rng(0)

    def rows(classes: list[int]) -> np.ndarray:
        return (np.eye(2)[classes] * 4 + rng.normal(size=(len(classes), 2))).astype(np.float32)

    return replace(
        run,
        labelled=one_vector_each(rows(labelled)), gold=torch.tensor(labelled),
        corpus=one_vector_each(rows([i % 2 for i in range(pool)])),
        test=one_vector_each(rows(test)), test_gold=torch.tensor(test),
    )  # fmt: skip


def test_both_tell_classes_apart_that_lie_apart(run: Run) -> None:
    found = baselines_of(with_vectors(run, [0, 1] * 4, [0, 1] * 20))
    assert list(found) == [REGRESSION, SPREADING]
    assert all(metrics and metrics.accuracy > 0.95 for metrics in found.values())


def test_they_are_what_scikit_learn_says(run: Run) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.semi_supervised import LabelSpreading

    given = with_vectors(run, [0, 1, 1, 0, 1], [0, 1] * 20)
    labelled, pool, test = (part.features.values for part in (given.labelled, given.corpus, given.test))
    gold, truth = given.gold.numpy(), given.test_gold.numpy()
    regression = LogisticRegression(C=10, max_iter=1000).fit(labelled, gold)
    spreading = LabelSpreading(kernel="knn", n_neighbors=15, alpha=0.2, max_iter=100)
    spreading.fit(np.concatenate([labelled, pool]), [*gold, *[-1] * len(pool)])
    assert baselines_of(given) == {
        REGRESSION: measure(regression.predict_proba(test), truth),
        SPREADING: measure(spreading.predict_proba(test), truth),
    }


def test_they_read_the_sentence_embedding_and_not_the_layer_beside_it(run: Run) -> None:
    alone = with_vectors(run, [0, 1, 1, 0, 1], [0, 1] * 20)
    noise = np.random.default_rng(1).normal(size=(100, run.backbone.hidden_size)).astype(np.float32)

    def beside(part: Encoded) -> Encoded:
        values = part.features.values
        filled = np.pad(values, ((0, 0), (0, run.backbone.hidden_size - values.shape[1])))
        return one_vector_each(np.concatenate([filled, noise[: len(values)]], 1))

    given = {name: beside(getattr(alone, name)) for name in ("labelled", "corpus", "test")}
    assert run.config.head.reads_middle
    found, expected = baselines_of(replace(alone, **given)), baselines_of(alone)
    for name in (REGRESSION, SPREADING):
        one, other = found[name], expected[name]
        assert isinstance(one, Metrics)
        assert isinstance(other, Metrics)
        assert vars(one) == pytest.approx(vars(other), abs=1e-5)


@pytest.mark.filterwarnings("error")
def test_few_rows_are_few_neighbours_and_a_row_that_no_label_reaches_is_anyones(run: Run) -> None:
    found = baselines_of(with_vectors(run, [0, 1], [0, 1], pool=3))
    assert isinstance(found[SPREADING], Metrics)
    far = with_vectors(run, [0, 1], [0, 1], pool=60)
    pool = np.random.default_rng(1).normal(size=(60, 2)).astype(np.float32) + 100
    lonely = replace(far, corpus=one_vector_each(pool), test=one_vector_each(pool[:2] + 1))
    found = baselines_of(lonely)[SPREADING]
    assert found is not None
    assert found.accuracy == 0.5


def test_a_label_without_a_row_is_never_given(run: Run) -> None:
    given = with_vectors(run, [0, 1] * 4, [0, 1] * 10)
    task = given.inputs.task.model_copy(update={"labels": {"none": None, "negative": None, "positive": None}})
    given = replace(
        given, inputs=replace(given.inputs, task=task), gold=given.gold + 1, test_gold=torch.tensor([1, 2] * 10)
    )
    assert all(metrics and metrics.accuracy > 0.95 for metrics in baselines_of(given).values())


def test_one_class_fits_nothing(run: Run) -> None:
    assert baselines_of(with_vectors(run, [1, 1, 1], [0, 1])) == {REGRESSION: None, SPREADING: None}


def test_nothing_without_test_rows_or_a_text_view(run: Run) -> None:
    assert baselines_of(replace(run, test=None, test_gold=None)) == {}
    assert baselines_of(replace(run, config=run.config.model_copy(update={"face": "prompt"}))) == {}


def test_labels_spread_over_a_seeded_part_of_a_large_pool(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    given, seen = with_vectors(run, [0, 1] * 4, [0, 1] * 10), list[np.ndarray]()

    def spreading(labelled: np.ndarray, gold: np.ndarray, pool: np.ndarray, test: np.ndarray) -> np.ndarray:
        seen.append(pool)
        return np.full((len(test), 2), 0.5)

    monkeypatch.setattr(baselines, "MOST_POOL", 7)
    monkeypatch.setattr(baselines, "_spreading", spreading)
    baselines_of(given), baselines_of(given)
    assert seen[0].shape == (7, 2)
    assert np.array_equal(*seen)
