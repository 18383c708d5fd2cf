"""A predictor goes to another process: pickled, spawned, forked, in a data loader; its logits are the same."""

from __future__ import annotations

import copy
import gc
import multiprocessing
import pickle
import shutil
import weakref
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from operator import methodcaller
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forks import apart
from loaders import labels_by_loader
from pseudo_token_models import make_subspace
from tiny import tiny_backbone, tiny_overlay

from listflow import InputError, Predictor, Predictors, build_config, self_train
from listflow.pipeline.backbone.backbone import load_backbone

TEXTS = ["w1 fine w2", "poor w3", "w4 w5 w6 w7 w8 w9 fine"]
MANY = [f"w{i % 40} fine w{i % 7} poor w{i % 11}" for i in range(600)]  # enough that torch splits the work
WAIT = 120
Finish = Callable[[str], Path]

STAGES: dict[str, dict[str, Any]] = {
    "list": {},
    "mam": {"stage": {"kind": "mam", "width": 4}},
    "ptuning": {"stage": {"kind": "ptuning", "tokens": 3, "hidden": 4}},
    "ytuning": {"stage": {"kind": "none"}, "head": {"kind": "ytuning", "width": 16}},
    "ipt": {"stage": {"kind": "ipt", "tokens": 3}},
    "two views": {"second": {"face": "text", "student": {"steps": 8, "batch": 6, "tail_epochs": 1}}},
}


def travelled(thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing))  # noqa: S301  (what this test itself pickled)


def sizes(run: Path) -> int:
    """Bytes of the files that a pickle holds."""
    return sum((run / "final" / name).stat().st_size for name in ("weights.safetensors", "model.json", "manifest.json"))


@pytest.fixture(scope="module")
def finished(tiny_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Finish:
    """The folder of a finished run with the stage of that name."""
    folder = tmp_path_factory.mktemp("runs")
    found: dict[str, Path] = {}

    def run(stage: str) -> Path:
        if stage not in found:
            overlay = tiny_overlay(tiny_files, folder / stage) | STAGES[stage]
            if stage == "ipt":
                overlay["stage"] = STAGES[stage]["stage"] | {"subspace": str(a_subspace(folder, tiny_files))}
            self_train(build_config("fast", overlay, {"rounds": {"count": 1}}))
            found[stage] = folder / stage
        return found[stage]

    return run


def a_subspace(folder: Path, files: dict[str, Path]) -> Path:
    """A subspace of 3 tokens, as a run of stage ipt needs one."""
    backbone = load_backbone(str(files["backbone"]), "fp32", "cpu")
    make_subspace(folder / "space", backbone)
    return folder / "space"


def own(run: Path, folder: Path, files: dict[str, Path]) -> tuple[Path, Path]:
    """Copies of a run and of its backbone, which a test may spoil."""
    shutil.copytree(run / "final", folder / "run" / "final")
    shutil.copytree(files["backbone"], folder / "backbone")
    return folder / "run", folder / "backbone"


@pytest.mark.parametrize("stage", STAGES)
def test_logits_are_equal_after_a_pickle(finished: Finish, stage: str) -> None:
    predictor = Predictor.open(finished(stage))
    again = travelled(predictor)
    assert again.backbone is not predictor.backbone
    assert np.array_equal(again.logits(TEXTS), predictor.logits(TEXTS))
    assert again.labels == predictor.labels
    assert again.run == predictor.run


@pytest.mark.parametrize("stage", STAGES)
def test_a_pickle_holds_the_final_files_and_no_backbone(finished: Finish, stage: str) -> None:
    assert len(pickle.dumps(Predictor.open(finished(stage)))) < sizes(finished(stage)) + 1000


def test_spawned_processes_answer_the_same(finished: Finish) -> None:
    predictors = [Predictor.open(finished(stage)) for stage in STAGES]
    spawn = multiprocessing.get_context("spawn")
    # A pool is broken where its initialiser fails.
    with ProcessPoolExecutor(1, spawn, methodcaller("predict", TEXTS), (predictors[0],)) as pool:
        found = list(pool.map(methodcaller("logits", TEXTS), predictors, timeout=WAIT))
    for logits, predictor in zip(found, predictors, strict=True):
        assert np.array_equal(logits, predictor.logits(TEXTS))


@pytest.mark.parametrize("stage", ["list", "two views"])
def test_a_forked_process_answers_with_one_thread(finished: Finish, stage: str) -> None:
    """OpenMP's threads are not forked along, and the child would wait for them for ever."""
    predictor = Predictor.open(finished(stage))
    torch.set_num_threads(2)
    with_two = predictor.logits(MANY)
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe()
    child = fork.Process(target=lambda: there.send((torch.get_num_threads(), predictor.logits(MANY))), daemon=True)
    child.start()
    try:
        assert here.poll(WAIT), "the forked process does not answer"
        threads, found = here.recv()
    finally:
        child.kill()
        child.join()
    assert (threads, torch.get_num_threads()) == (1, 2)
    np.testing.assert_allclose(found, with_two, rtol=1e-5, atol=1e-6)
    torch.set_num_threads(1)
    assert np.array_equal(found, predictor.logits(MANY))


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.long)])
def test_a_data_loader_with_workers_holds_a_predictor(finished: Finish, method: str) -> None:
    """In a process of its own: a fork of this one would take along what other tests have started, such as servers."""
    run = finished("list")
    assert apart(labels_by_loader, run, MANY, method, WAIT) == Predictor.open(run).predict(MANY)


def test_the_folder_of_the_run_may_be_gone(finished: Finish, tiny_files: dict[str, Path], tmp_path: Path) -> None:
    run, _ = own(finished("list"), tmp_path, tiny_files)
    predictor = Predictor.open(run)
    packed = pickle.dumps(predictor)
    shutil.rmtree(run)
    expected = predictor.logits(TEXTS)
    for again in (pickle.loads(packed), travelled(predictor), copy.deepcopy(predictor)):  # noqa: S301
        assert np.array_equal(again.logits(TEXTS), expected)


def test_another_backbone_under_the_name_is_refused(
    finished: Finish, tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    run, folder = own(finished("list"), tmp_path, tiny_files)
    predictor = Predictor.open(run, load_backbone(str(folder), "fp32", "cpu"))
    packed = pickle.dumps(predictor)
    assert np.array_equal(pickle.loads(packed).logits(TEXTS), predictor.logits(TEXTS))  # noqa: S301
    tiny_backbone(seed=9).model.save_pretrained(folder)
    with pytest.raises(InputError, match=r"backbone '.*backbone' is not the one this model was trained on"):
        pickle.loads(packed)  # noqa: S301
    shutil.rmtree(folder)
    with pytest.raises(InputError, match="is neither 'minilm' nor a folder"):
        pickle.loads(packed)  # noqa: S301


@pytest.mark.parametrize("name", ["weights.safetensors", "model.json"])
def test_a_damaged_pickle_is_refused(finished: Finish, name: str) -> None:
    rebuild, (run, folder, files, *rest) = Predictor.open(finished("list")).__reduce__()
    damaged = bytearray(files[name])
    damaged[-3] ^= 1
    with pytest.raises(InputError, match=r"the pickled model of .* is damaged"):
        rebuild(run, folder, files | {name: bytes(damaged)}, *rest)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_backbone_that_was_given_is_loaded_again_as_it_was(
    finished: Finish, tiny_files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Any
) -> None:
    monkeypatch.chdir(tiny_files["backbone"].parent)
    predictor = Predictor.open(finished("list"), load_backbone("backbone", precision, "cpu"))
    packed = pickle.dumps(predictor)
    monkeypatch.chdir(tmp_path)
    again = pickle.loads(packed)  # noqa: S301
    assert again.backbone.dtype == predictor.backbone.dtype
    assert np.array_equal(again.logits(TEXTS), predictor.logits(TEXTS))


def test_predictors_that_travel_share_a_backbone_while_they_live(finished: Finish) -> None:
    one, two = (Predictor.open(finished(stage)) for stage in ("list", "mam"))
    pair = travelled([one, two])
    assert pair[0].backbone is pair[1].backbone
    assert [np.array_equal(a.logits(TEXTS), b.logits(TEXTS)) for a, b in zip(pair, (one, two), strict=True)] == [
        True
    ] * 2
    backbone = weakref.ref(pair[0].backbone)
    del pair
    gc.collect()
    assert backbone() is None


def test_several_at_once_travel_as_well(finished: Finish) -> None:
    predictors = Predictors.open([finished("list"), finished("mam")])
    again = travelled(predictors)
    assert again.names == ["list", "mam"]
    assert again.predict(TEXTS) == predictors.predict(TEXTS)
    assert again["list"].backbone is again["mam"].backbone


def test_copies_share_the_backbone(finished: Finish) -> None:
    predictor = Predictor.open(finished("list"))
    shallow, deep = copy.copy(predictor), copy.deepcopy({"it": predictor})["it"]
    assert shallow.model is predictor.model
    assert deep.model is not predictor.model
    assert deep.backbone is predictor.backbone
    assert np.array_equal(deep.logits(TEXTS), predictor.logits(TEXTS))
