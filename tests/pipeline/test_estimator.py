"""The estimator is what users of scikit-learn expect, and the run underneath is the same run."""

from __future__ import annotations

import asyncio
import json
import sys
from operator import attrgetter, methodcaller
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from forks import apart
from pictures import with_pictures
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from tiny import sentences

from listflow import Predictor, TextClassifier, build_config, self_train
from listflow.data.errors import InputError
from listflow.pipeline.given import Given, in_python, labels_of
from listflow.pipeline.results.outcome import report_of

ROWS, POOL, NEW = sentences(16, 1), sentences(60, 2, labelled=False), sentences(10, 3)
TEXTS, LABELS = [row["text"] for row in ROWS], [row["label"] for row in ROWS]
MORE, TESTS = [row["text"] for row in POOL], [row["text"] for row in NEW]
DEMO = Path(__file__).parents[2] / "data" / "demo"
PAIRS = [(text, text.replace("w", "v")) for text in TEXTS]


def small(files: dict[str, Path], **settings: Any) -> TextClassifier:
    """An estimator of seconds, of the committee, on a tiny random backbone."""
    student = {"steps": 6, "batch": 6, "tail_epochs": 1}
    own: dict[str, Any] = {
        "backbone": {"name": str(files["backbone"]), "precision": "fp32", "device": "cpu"},
        "teacher": {"epochs": 1}, "student": student, "second": {"student": student},
        "rounds": {"count": 1, "sample": 20}, "verbose": False,
    }  # fmt: skip
    return TextClassifier(**(own | settings))


@pytest.fixture(scope="module")
def fitted(tiny_files: dict[str, Path]) -> TextClassifier:
    with with_pictures():
        return small(tiny_files).fit(TEXTS, LABELS, unlabelled=MORE)


def test_it_learns_and_says_what_it_knows(drawn: None, fitted: TextClassifier) -> None:
    assert fitted.classes_.tolist() == ["negative", "positive"]
    soft = fitted.predict_proba(TESTS)
    assert soft.shape == (10, 2)
    np.testing.assert_allclose(soft.sum(1), 1, rtol=1e-5)
    assert fitted.predict(TESTS).tolist() == fitted.classes_[soft.argmax(1)].tolist()
    assert 0 <= fitted.score(TESTS, [row["label"] for row in NEW]) <= 1
    assert fitted.predict([]).shape == (0,)
    assert [view.view for view in fitted.report_.views] == ["prompt", "text"]
    page = fitted.report_._repr_html_()
    assert page.startswith("<iframe srcdoc=")
    assert "<!doctype" not in page.lower()  # escaped, so that it is a page of its own


def test_it_is_the_same_run_as_of_files(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    model = small(tiny_files, run_dir=tmp_path / "own").fit(TEXTS, LABELS, unlabelled=MORE)
    (labelled,) = (tmp_path / "own" / "inputs" / "given").glob("labelled-*.jsonl")
    (pool,) = (tmp_path / "own" / "inputs" / "given").glob("unlabelled-*.jsonl")
    settings = {name: getattr(model, name) for name in ("backbone", "teacher", "student", "second", "rounds")}
    data = {"labelled": str(labelled), "unlabelled": [str(pool)]}
    self_train(build_config("fast", settings, {"run_dir": str(tmp_path / "run"), "data": data}))
    weights = [tmp_path / name / "final" / "weights.safetensors" for name in ("own", "run")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    expected = Predictor.open(tmp_path / "run").probabilities(TESTS)
    np.testing.assert_array_equal(model.predict_proba(TESTS), expected)
    assert report_of(tmp_path / "own").run_id == model.report_.run_id


def test_an_interrupted_fit_goes_on(
    tiny_files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = small(tiny_files, run_dir=tmp_path / "whole").fit(TEXTS, LABELS, unlabelled=MORE)
    model = small(tiny_files, run_dir=tmp_path / "run")
    with monkeypatch.context() as patched:
        patched.setattr("listflow.pipeline.self_training.judge", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model.fit(TEXTS, LABELS, unlabelled=MORE)
    students = list((tmp_path / "run" / "round-01").glob("student*/weights.safetensors"))
    made = [student.stat().st_mtime_ns for student in students]
    assert made
    model.fit(TEXTS, LABELS, unlabelled=MORE)
    assert [student.stat().st_mtime_ns for student in students] == made
    np.testing.assert_array_equal(model.predict_proba(TESTS), whole.predict_proba(TESTS))


def interrupted(*given: Any) -> None:
    raise KeyboardInterrupt


def test_without_a_pool_there_are_no_rounds_and_it_says_so(tiny_files: dict[str, Path]) -> None:
    with pytest.warns(UserWarning, match="No unlabelled texts are given: the start is made of the labelled rows alone"):
        model = small(tiny_files).fit(TEXTS, LABELS)
    assert model.report_.rounds == ()
    assert model.report_.data.unlabelled == 0
    assert model.predict_proba(TESTS).shape == (10, 2)
    assert "without unlabelled ones there are no rounds" in model.report_._repr_html_()


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([10, 2] * 8, [2, 10]),
        (np.array([True, False] * 8), [False, True]),
        (pd.Series(["ü", "b"] * 8, index=range(5, 21)), ["b", "ü"]),
        (np.array([1.0, 0.0] * 8), [0.0, 1.0]),
    ],
)
def test_classes_are_those_that_were_given(tiny_files: dict[str, Path], labels: Any, classes: list[Any]) -> None:
    model = small(tiny_files, head="prototypes", second=None).fit(np.array(TEXTS), labels, unlabelled=MORE)
    assert model.classes_.tolist() == classes
    assert type(model.classes_.tolist()[0]) is type(classes[0])
    assert set(model.predict(pd.Series(TESTS))) <= set(classes)
    right = model.predict_proba(TEXTS)[:, classes.index(next(iter(labels)))]
    assert right[::2].mean() > right[1::2].mean()


@pytest.mark.parametrize("pairs", [PAIRS, np.array(PAIRS), pd.DataFrame(PAIRS, columns=["a", "b"])])
def test_pairs_are_two_columns(tiny_files: dict[str, Path], pairs: Any) -> None:
    pool = [(text, text) for text in MORE]
    model = small(tiny_files, head="prototypes", second=None).fit(pairs, LABELS, unlabelled=pool)
    assert model.predictor_.task.is_pair
    assert model.predict_proba(pairs).shape == (16, 2)


def test_it_fits_what_scikit_learn_does_with_estimators(tiny_files: dict[str, Path]) -> None:
    model = small(tiny_files, head="prototypes")
    model.set_params(unlabelled=MORE, second=None, rounds__count=2)
    assert clone(model).get_params() == model.get_params()
    assert model.rounds == {"count": 2, "sample": 20}
    scores = cross_val_score(model, TEXTS, LABELS, cv=2)
    assert scores.shape == (2,)
    assert not np.isnan(scores).any()
    found = GridSearchCV(model, {"rounds__count": [1, 2]}, cv=2).fit(TEXTS, LABELS)
    assert found.best_estimator_.rounds["count"] in {1, 2}
    steps = Pipeline([("lower", FunctionTransformer(_lowered)), ("model", model)])
    assert steps.fit(TEXTS, LABELS).predict(TESTS).shape == (10,)


def _lowered(texts: list[str]) -> list[str]:
    return [text.lower() for text in texts]


def test_a_pickle_holds_all_of_it(fitted: TextClassifier) -> None:
    """In another process, which is sent one."""
    soft = apart(methodcaller("predict_proba", TESTS), fitted)
    np.testing.assert_allclose(soft, fitted.predict_proba(TESTS), rtol=1e-5)
    assert apart(attrgetter("report_.run_id"), fitted) == fitted.report_.run_id


def test_it_works_where_an_event_loop_runs(tiny_files: dict[str, Path]) -> None:

    async def cell() -> Any:
        return small(tiny_files, head="prototypes", second=None).fit(TEXTS, LABELS, MORE).predict(TESTS)

    assert asyncio.run(cell()).shape == (10,)


def test_before_it_is_fitted_it_says_so() -> None:
    with pytest.raises(NotFittedError, match="not fitted yet"):
        TextClassifier().predict(["a text"])


@pytest.mark.parametrize(
    ("texts", "labels", "said"),
    [
        (TEXTS, LABELS[:5], "16 texts and 5 labels are given; pass one label for each text."),
        ([], [], "no labelled text is given"),
        ("one text", LABELS, r"one text is given where a list of texts is read; put it in a list: \[text\]."),
        ([*TEXTS[:3], None, *TEXTS[4:]], LABELS, r"texts\[3\] is missing"),
        ([*TEXTS[:3], "  ", *TEXTS[4:]], LABELS, r"texts\[3\] is blank"),
        ([*TEXTS[:3], b"bytes", *TEXTS[4:]], LABELS, r"texts\[3\] holds a bytes"),
        (TEXTS, [*LABELS[:3], None, *LABELS[4:]], r"labels\[3\] is missing; pass texts without a label as unlabelled."),
        (TEXTS, [0, 1, -1, 0] * 4, r"labels\[2\] is -1, which may mean a text without a label"),
        (TEXTS, [1, "1"] * 8, "labels 1 and '1' are both called '1'"),
        (TEXTS, [1, "a"] * 8, r"labels are of several kinds \(numbers, text\)"),
        (TEXTS, [True, 0] * 8, r"labels are of several kinds \(numbers, true or false\)"),
        (TEXTS, [0.5, 1.0] * 8, "labels hold 0.5, a continuous number; pass classes"),
        (TEXTS, [b"a", b"b"] * 8, r"labels\[0\] holds a bytes; it must hold text"),
        (TEXTS, [0.0, -1.0] * 8, r"labels\[1\] is -1, which may mean a text without a label"),
        (TEXTS, np.array([[0, 1]] * 16), "a table of 2 columns is given as labels; pass one column"),
        (TEXTS, "positive", r"one label is given where a list of labels is read; put it in a list: \[label\]."),
        (TEXTS, set(LABELS), "labels is a set, which has no order; pass a list"),
        (set(TEXTS), LABELS, "texts is a set, which has no order; pass a list"),
        (list(range(16)), LABELS, r"texts\[0\] is a number, 0; pass texts."),
        (np.zeros(16), LABELS, r"texts\[0\] is a number, 0.0; pass texts."),
        (np.zeros((16, 2)), LABELS, r"texts\[0\] is a number, 0.0; pass texts."),
        (pd.DataFrame({"text": TEXTS, "label": LABELS}), LABELS, "the second column of texts is the labels"),
        (pd.DataFrame({"text": TEXTS, "a": 1, "b": 2}), LABELS, "a table of 3 columns is given"),
        (TEXTS, ["a"] * 16, "all labels are 'a', which is one class; add texts of another class"),
        (np.zeros((16, 3)), LABELS, "a table of 3 columns is given; pass one column of texts, or the two of pairs."),
        ({"text": TEXTS}, LABELS, "a dict is given where a list of texts is read"),
    ],
)
def test_what_cannot_be_used_is_said_in_a_sentence(
    tiny_files: dict[str, Path], tmp_path: Path, texts: Any, labels: Any, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        small(tiny_files, run_dir=tmp_path / "run").fit(texts, labels, unlabelled=MORE)
    assert not (tmp_path / "run").exists()


def test_a_folder_of_another_run_is_left_as_it_was(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    model = small(tiny_files, head="prototypes", second=None, run_dir=tmp_path / "run")
    model.fit(TEXTS, LABELS, unlabelled=MORE)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=r"holds a run of another config \(data\.labelled is "):
        model.fit(TEXTS[:8], LABELS[:8], unlabelled=MORE)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_pool_that_holds_the_labelled_texts_is_told(tiny_files: dict[str, Path]) -> None:
    model = small(tiny_files, head="prototypes", second=None).fit(TEXTS, LABELS, unlabelled=[*TEXTS, *MORE])
    assert "16 unlabelled row(s) repeat a labelled text and were left out." in model.report_.notices


@pytest.mark.parametrize(
    ("pool", "said"),
    [
        ([*MORE, None], r"unlabelled\[60\] is missing"),
        ([*MORE, 5], r"unlabelled\[60\] is a number, 5; pass texts."),
        ([*MORE, b"bytes"], r"unlabelled\[60\] holds a bytes"),
        ([("w1", "w2")], r"unlabelled\[0\] has a second text where the task reads one"),
        (set(MORE), "unlabelled is a set, which has no order; pass a list."),
        ("pool.jsonl", "one text is given where a list of texts is read"),
        (TEXTS, "^the unlabelled texts: no unlabelled row is left .*16 among the labelled rows"),
        (iter(MORE), "unlabelled is a generator, which can be read once only"),
    ],
)
def test_an_unlabelled_text_that_cannot_be_used_is_said_in_a_sentence(
    tiny_files: dict[str, Path], tmp_path: Path, pool: Any, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        small(tiny_files, unlabelled=pool, run_dir=tmp_path / "run").fit(TEXTS, LABELS)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_a_file_is_said_in_a_sentence(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(InputError, match=r"cannot write to .*run"):
        small(tiny_files, run_dir=tmp_path / "run").fit(TEXTS, LABELS, unlabelled=MORE)
    assert (tmp_path / "run").read_text() == "mine"


@pytest.mark.parametrize("texts", [[1, 2], [None], [b"a"], "a text", pd.DataFrame({"a": ["x"], "b": 1, "c": 2})])
def test_what_cannot_be_predicted_is_said_in_a_sentence(fitted: TextClassifier, texts: Any) -> None:
    with pytest.raises(InputError, match=r"pass|put|must hold text"):
        fitted.predict(texts)


@pytest.mark.parametrize(
    "kind",
    [
        iter, pa.array, lambda items: pd.Series(items, index=range(90, 90 + len(items)), dtype="string"),
        lambda items: pd.DataFrame({"only": items}), lambda items: np.array(items, dtype=object)[:, None],
    ],
)  # fmt: skip
def test_texts_and_labels_come_in_many_kinds(kind: Any) -> None:
    assert Given.of(kind(TEXTS), labels_of(kind(LABELS)), kind(MORE)) == Given.of(TEXTS, LABELS, MORE)


def test_a_fit_that_fails_leaves_what_was_learned(fitted: TextClassifier) -> None:
    before = fitted.predict_proba(TESTS)
    with pytest.raises(InputError, match="16 texts and 3 labels"):
        fitted.fit(TEXTS, LABELS[:3])
    np.testing.assert_array_equal(fitted.predict_proba(TESTS), before)


def test_a_setting_within_a_section_keeps_the_name_of_the_section() -> None:
    model = TextClassifier(head="linear", backbone="minilm").set_params(head__bias=True, backbone__precision="fp32")
    assert (model.head, model.backbone) == (
        {"kind": "linear", "bias": True},
        {"name": "minilm", "precision": "fp32"},
    )


def test_a_task_with_more_labels_than_the_texts_have(tiny_files: dict[str, Path]) -> None:
    labels = [{"negative": "World", "positive": "Sports"}[label] for label in LABELS]
    with pytest.warns(UserWarning, match="No labelled row has one of 2 labels"):
        model = small(tiny_files, head="prototypes", second=None, task="agnews").fit(TEXTS, labels, MORE)
    assert model.classes_.tolist() == ["Sports", "World"]
    np.testing.assert_allclose(model.predict_proba(TESTS).sum(1), 1, rtol=1e-5)


def test_a_sentence_names_settings_as_python_does() -> None:
    assert in_python("choose another --run-dir (--backbone), or so.") == "choose another run_dir (backbone), or so."


def test_an_interrupt_leaves_no_folder(
    tiny_files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("listflow.pipeline.self_training.judge", interrupted)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        small(tiny_files, head="prototypes", second=None).fit(TEXTS, LABELS, unlabelled=MORE)
    assert not list(tmp_path.glob("listflow-*"))


@pytest.mark.long
def test_folds_in_processes_of_their_own(tiny_files: dict[str, Path]) -> None:
    model = small(tiny_files, unlabelled=MORE, head="prototypes", second=None)
    alone, apart = (cross_val_score(model, TEXTS, LABELS, cv=2, n_jobs=jobs, error_score="raise") for jobs in (1, 2))
    np.testing.assert_array_equal(alone, apart)


@pytest.mark.long
def test_folds_of_sixty_rows_say_how_good_it_is() -> None:
    labelled, pool = (
        [json.loads(line) for line in (DEMO / f"{name}.jsonl").read_text("utf-8").splitlines()]
        for name in ("labelled", "unlabelled")
    )
    model = TextClassifier([row["text"] for row in pool[:300]], head="prototypes", second=None, verbose=False)
    texts, labels = [row["text"] for row in labelled], [row["label"] for row in labelled]
    assert len(texts) == 60
    assert cross_val_score(model, texts, labels, cv=3, error_score="raise").mean() > 0.6


@pytest.mark.parametrize(("verbose", "seen"), [(True, True), (False, False)])
def test_a_notebook_shows_how_far_it_is(
    tiny_files: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    verbose: bool,
    seen: bool,
) -> None:
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    small(tiny_files, head="prototypes", second=None, verbose=verbose).fit(TEXTS, LABELS, unlabelled=MORE)
    assert ("round 0 match" in capsys.readouterr().err) == seen
