"""Orders, soft labels, the gate, checkpoints and the configuration: closed forms and refusals."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from listflow.data.errors import InputError
from listflow.pipeline.method.gate import Evidence, folds, gate
from listflow.pipeline.method.sampling import bucketed, by_length, epochs, generator_for, seed_for
from listflow.pipeline.method.soft_labels import shift_to, soft_labels, standard_errors, teacher_prior
from listflow.pipeline.run.config import PRESETS, RunConfig, build_config
from listflow.pipeline.storage.checkpoint import load_tensors, new_folder, save_tensors, verified


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 50), st.integers(1, 30), st.integers(1, 9), st.integers(0, 99))
def test_batches_pass_over_all_rows_evenly(rows: int, steps: int, batch: int, seed: int) -> None:
    lengths = np.arange(rows) % 7 + 1
    plain = epochs(rows, steps, batch, np.random.default_rng(seed))
    for order in (plain, bucketed(lengths, steps, batch, np.random.default_rng(seed))):
        counts = np.bincount(np.concatenate(order), minlength=rows)
        assert [len(b) for b in order] == [batch] * steps
        assert counts.max() - counts.min() <= 1


def test_buckets_waste_little_padding() -> None:
    lengths = np.random.default_rng(0).integers(4, 100, 5000)
    padded = sum(len(b) * lengths[b].max() for b in bucketed(lengths, 100, 32, np.random.default_rng(1)))
    real = sum(lengths[b].sum() for b in bucketed(lengths, 100, 32, np.random.default_rng(1)))
    assert padded / real < 1.1


def test_inference_batches_hold_every_row_once_within_the_token_limit() -> None:
    lengths = np.random.default_rng(0).integers(4, 100, 999)
    batches = by_length(lengths, 512)
    assert sorted(np.concatenate(batches)) == list(range(999))
    assert max(len(b) * lengths[b].max() for b in batches) <= 512


def test_seeds_depend_on_every_part_of_the_purpose() -> None:
    purposes: list[tuple[int, ...]] = [(1, 2, 3), (1, 2, 4), (1, 3, 3), (2, 2, 3), (12, 3), (1, 23)]
    assert len({seed_for(*purpose) for purpose in purposes}) == len(purposes)
    assert generator_for(1, "x").integers(1000) == generator_for(1, "x").integers(1000)


def test_soft_labels_meet_the_prior() -> None:
    logits = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) + torch.tensor([3.0, 0.0, -1.0])
    prior = torch.tensor([0.2, 0.5, 0.3])
    torch.testing.assert_close((logits + shift_to(logits, prior)).softmax(-1).mean(0), prior, atol=1e-4, rtol=0)
    assert torch.equal(soft_labels(logits, 1.0, None), logits.softmax(-1))
    torch.testing.assert_close(soft_labels(logits, 0.5, prior).mean(0), prior, atol=1e-4, rtol=0)


def test_prior_is_equal_shares_only_where_the_labels_cannot_tell() -> None:
    """Counts 3, 1 and Laplace: e = sqrt(1/4 + 1/2) for both, so log odds up to 2 e are no evidence."""
    gold = torch.tensor([0, 0, 0, 1])
    torch.testing.assert_close(standard_errors(gold, 2), torch.full((2,), (1 / 4 + 1 / 2) ** 0.5))
    bound = 2 * (1 / 4 + 1 / 2) ** 0.5
    inside, outside = torch.tensor([[bound - 0.01, 0.0]]), torch.tensor([[bound + 0.01, 0.0]])
    torch.testing.assert_close(teacher_prior(inside, gold, 0.5, 1.0), torch.tensor([0.5, 0.5]))
    torch.testing.assert_close(teacher_prior(outside, gold, 0.5, 1.0), (outside[0] / 0.5).softmax(0))
    torch.testing.assert_close(teacher_prior(inside, gold, 1.0, 0.0), inside[0].softmax(0))


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


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), new_folder(tmp_path / "stage", {}) as aside:
        shutil.copy(__file__, aside / "missing" / "half")
    assert not (tmp_path / "stage").exists()
    with new_folder(tmp_path / "stage", {"round": 3}) as aside:
        (aside / "whole").write_text("x")
    manifest = verified(tmp_path / "stage")
    assert manifest is not None
    assert manifest["round"] == 3
    (tmp_path / "stage" / "whole").write_text("y")
    assert verified(tmp_path / "stage") is None


def test_truncated_weights_are_one_clear_sentence(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_tensors(path, {"a": torch.ones(100)})
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(InputError, match=r"weights\.safetensors is damaged or cut short"):
        load_tensors(path)


def test_a_full_disk_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No space left on device"), new_folder(tmp_path / "stage", {}):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert verified(tmp_path / "stage") is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_weights_on_a_really_full_disk_are_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors.part").symlink_to("/dev/full")
    with pytest.raises(InputError, match="No space left on device"):
        save_tensors(tmp_path / "weights.safetensors", {"a": torch.ones(1_000_000)})
    assert not (tmp_path / "weights.safetensors").exists()


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_valid_and_survive_json(preset: str) -> None:
    config = build_config(preset)
    assert RunConfig.model_validate_json(config.model_dump_json()) == config


def test_released_preset_is_what_the_public_script_does() -> None:
    config = build_config("released")
    assert (config.teacher.learning_rate, config.teacher.epochs, config.teacher.batch) == (5e-6, 50, 4)
    assert (config.student.learning_rate, config.student.steps, config.student.batch) == (1e-4, 1000, 16)
    assert (config.student.warmup, config.student.tail_epochs, config.stage[0].width) == (0.6, 50, 128)
    assert (config.stage[0].init_std, config.reweight.eps, config.pseudo.confidence) == (2e-4, 0.2, 0.0)
    published = build_config("published")
    assert (published.teacher.epochs, published.stage[0].init_std, published.pseudo.confidence) == (400, 0.02, 0.8)


@pytest.mark.parametrize("overlay", [{"studnt": {}}, {"student": {"stps": 1}}, {"rounds": {"count": 0}}])
def test_unknown_keys_and_bad_values_name_the_key(overlay: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"config key '(studnt|student\.stps|rounds\.count)'"):
        build_config("fast", overlay)
