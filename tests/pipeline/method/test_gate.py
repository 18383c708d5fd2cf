"""The gate: who may replace a teacher, and on which rows that is judged."""

from __future__ import annotations

import numpy as np

from listflow.pipeline.method.gate import Evidence, folds, gate


def evidence(errors: list[int], sample: list[int]) -> Evidence:
    return Evidence(np.array(errors, dtype=bool), np.array(sample))


def test_gate_keeps_the_teacher_of_a_worse_student() -> None:
    teacher, sample = evidence([1, 1, 0, 0, 0, 0, 0, 0], [0, 1] * 10), [0, 1] * 10
    worse = gate(teacher, evidence([1, 1, 1, 1, 1, 0, 0, 0], sample), 2)
    assert not worse.promote
    assert worse.reason == "5 of 8 labelled rows wrong before the tail, the teacher 2"
    # One error more, one fewer: within the standard error of the paired differences.
    assert gate(teacher, evidence([1, 0, 1, 0, 0, 0, 0, 0], sample), 2).promote
    assert gate(teacher, evidence([0] * 8, sample), 2).promote


def test_gate_keeps_the_teacher_when_a_class_vanishes() -> None:
    kept = gate(evidence([0, 1], [0, 1] * 10), evidence([0, 1], [0] * 20), 2)
    assert not kept.promote
    assert "vanished" in kept.reason


def test_folds_cover_every_row_once() -> None:
    parts = folds(10, 3, np.random.default_rng(0))
    assert sorted(np.concatenate(parts)) == list(range(10))
    assert len(folds(2, 3, np.random.default_rng(0))) == 2


def test_the_gate_compares_rows_that_both_have() -> None:
    sample = np.array([0, 1])
    teacher = Evidence(np.array([False, True]), sample)
    student = Evidence(np.array([False, True, True, True, True]), sample)
    judged = gate(teacher, student, 2)
    assert (judged.promote, judged.reason) == (True, "1 of 2 labelled rows wrong before the tail, the teacher 1")
