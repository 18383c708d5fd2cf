"""scikit-learn's own checks of an estimator: all pass that can be asked of texts.

They know tables of numbers alone, which ``NumbersClassifier`` writes as texts; what is checked besides is the whole of
``TextClassifier``, without a pool, as the checks give none.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from numbers_as_texts import NumbersClassifier
from sklearn.utils.estimator_checks import estimator_checks_generator

# Why a check of scikit-learn cannot pass.
CANNOT = {
    "check_classifiers_classes": "a class of it is -1, which is refused: it may mean a text without a label",
}
# Those that train nothing, or once or twice on few rows: the others take seconds each, minutes in all.
QUICK = {
    "check_estimator_cloneable", "check_estimator_tags_renamed", "check_valid_tag_types", "check_estimator_repr",
    "check_no_attributes_set_in_init", "check_estimators_unfitted", "check_do_not_raise_errors_in_init_or_set_params",
    "check_mixin_order", "check_complex_data", "check_estimators_empty_data_messages", "check_estimator_sparse_tag",
    "check_classifiers_one_label", "check_classifiers_regression_target", "check_supervised_y_no_nan",
    "check_parameters_default_constructible", "check_fit2d_1sample", "check_get_params_invariance",
    "check_set_params", "check_dict_unchanged", "check_fit1d", "check_requires_y_none",
}  # fmt: skip


def name_of(check: Any) -> str:
    return str(getattr(check, "func", check).__name__)


def checks(**settings: Any) -> Iterator[tuple[NumbersClassifier, Callable[[Any], None]]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield from estimator_checks_generator(NumbersClassifier(**settings))


NAMES = [name_of(check) for _, check in checks()]


def run_check(files: dict[str, Path], place: int) -> None:
    """The check at ``place`` among all, on the tiny random backbone and one view, which needs no steps."""
    backbone = {"name": str(files["backbone"]), "precision": "fp32", "device": "cpu"}
    found = list(checks(backbone=backbone, head="prototypes", second=None, verbose=False))
    estimator, check = found[place]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        check(estimator)


def test_there_are_checks_and_each_that_cannot_pass_is_one_of_them() -> None:
    assert len(NAMES) > 50
    assert set(NAMES) >= CANNOT.keys() | QUICK


@pytest.mark.parametrize("place", [place for place, name in enumerate(NAMES) if name in QUICK], ids=NAMES.__getitem__)
def test_it_passes_the_quick_checks_of_scikit_learn(tiny_files: dict[str, Path], place: int) -> None:
    run_check(tiny_files, place)


@pytest.mark.long
@pytest.mark.parametrize(
    "place", [place for place, name in enumerate(NAMES) if name not in QUICK | CANNOT.keys()], ids=NAMES.__getitem__
)
def test_it_passes_the_checks_of_scikit_learn_that_train(tiny_files: dict[str, Path], place: int) -> None:
    run_check(tiny_files, place)


@pytest.mark.long
@pytest.mark.parametrize("name", CANNOT)
def test_what_cannot_pass_fails_for_the_reason_that_is_given(tiny_files: dict[str, Path], name: str) -> None:
    with pytest.raises(ValueError, match="which may mean a text without a label"):
        run_check(tiny_files, NAMES.index(name))
