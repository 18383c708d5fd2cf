"""Encoders without a masked-LM head serve the heads that read none; what a process pays for the memory of tensors."""

from __future__ import annotations

import copy
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from meta_step import TASK
from safetensors.torch import load_file, save_file
from tiny import CONFIGS, tiny_backbone, tiny_overlay

from listflow.data.errors import InputError
from listflow.pipeline.backbone.backbone import Backbone, load_backbone
from listflow.pipeline.backbone.masked_lm import fill_mask
from listflow.pipeline.backbone.prompt import Prompt
from listflow.pipeline.model.classifier import Classifier
from listflow.pipeline.model.config import AnyHead, LinearHead, VerbalizerHead, YTuningHead
from listflow.pipeline.model.verbalizer import label_word_ids
from listflow.pipeline.pretraining.adapt import adapt
from listflow.pipeline.pretraining.learner import AdaptConfig
from listflow.pipeline.results.predictor import Predictor
from listflow.pipeline.run.opening import open_run
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.self_training import self_train
from listflow.pipeline.stages.presets import stages

HEADS: list[AnyHead] = [LinearHead(), YTuningHead(width=16)]
FAULTS = """
import resource, sys, torch
from listflow.pipeline.backbone.backbone import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
for _ in range(20):
    torch.zeros(2**20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    torch.zeros(2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def saved(folder: Path, family: str, head: bool) -> str:
    """A folder with the tiny backbone of ``family``, whose masked-LM head is left out or not."""
    backbone = tiny_backbone(family)
    (backbone.model if head else backbone.model.base_model).save_pretrained(folder)
    backbone.tokenizer.save_pretrained(folder)
    return str(folder)


def loaded(name: str, seed: int) -> Backbone:
    torch.manual_seed(seed)
    return load_backbone(name, "fp32", "cpu")


def classifier(backbone: Backbone, head: AnyHead) -> Classifier:
    words = label_word_ids(TASK, backbone.tokenizer)
    return Classifier(backbone, stages("list", width=4, init_std=0.1), head, words, seed=1)


@pytest.mark.parametrize("family", CONFIGS)
def test_a_view_is_a_deep_copy_around_the_same_tensors(family: str) -> None:
    backbone = tiny_backbone(family)
    model = backbone.model.base_model
    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    view, copied = backbone.view(), copy.deepcopy(model, tensors)
    for (name, part), (its_name, its), source in zip(
        view.named_modules(), copied.named_modules(), model.modules(), strict=True
    ):
        assert (name, type(part), vars(part).keys()) == (its_name, type(its), vars(its).keys())
        assert part is not source
        for key, value in vars(part).items():
            assert type(value) is type(vars(its)[key]), f"{name}.{key}"
            assert (value is vars(source)[key]) == (vars(its)[key] is vars(source)[key]), f"{name}.{key}"
    for found, own in ((view.parameters(), model.parameters()), (view.buffers(), model.buffers())):
        assert all(a is b for a, b in zip(found, own, strict=True))


@pytest.mark.parametrize("family", CONFIGS)
def test_two_loads_are_one_backbone_though_the_unused_head_differs(family: str, tmp_path: Path) -> None:
    name = saved(tmp_path, family, head=False)
    first, second = (loaded(name, seed) for seed in (1, 2))
    unused = [backbone.model.get_submodule(backbone.family.head_dense).weight for backbone in (first, second)]
    assert not torch.equal(*unused)
    assert not first.has_head
    assert first.checksum() == second.checksum()
    assert first.parameter_count() == sum(p.numel() for p in first.model.base_model.parameters())


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("head", HEADS)
def test_logits_do_not_know_whether_there_was_a_head(family: str, head: AnyHead, tmp_path: Path) -> None:
    found = []
    for number, with_head in enumerate((True, False)):
        backbone = loaded(saved(tmp_path / str(number), family, with_head), number)
        batch = Prompt(TASK, backbone.tokenizer, 32).encode([("w1 w2 good", None), ("w3", None)]).batch([0, 1])
        with torch.no_grad():
            found.append(classifier(backbone, head)(batch))
    assert torch.equal(*found)


@pytest.mark.parametrize("family", CONFIGS)
def test_the_verbalizer_refuses_a_head_that_came_from_nowhere(family: str, tmp_path: Path) -> None:
    backbone = loaded(saved(tmp_path, family, head=False), 0)
    with pytest.raises(InputError, match=r"without a masked-LM head, which head verbalizer needs; use head ytuning"):
        classifier(backbone, VerbalizerHead())
    with pytest.raises(InputError, match="which guessing words needs"):
        fill_mask(backbone, ["it was [MASK]"])


@pytest.mark.parametrize("family", CONFIGS)
def test_a_folder_with_a_head_is_what_it_was(family: str, tmp_path: Path) -> None:
    backbone = loaded(saved(tmp_path, family, head=True), 0)
    assert backbone.has_head
    assert backbone.checksum() == tiny_backbone(family).checksum()
    classifier(backbone, VerbalizerHead())


@pytest.mark.parametrize("head", ["ytuning", "linear"])
def test_two_rounds_on_an_encoder_alone(head: str, tiny_files: dict[str, Path], tmp_path: Path) -> None:
    """As sentence encoders are published: the tensors of the encoder under their bare names, and a pooler."""
    name = saved(tmp_path / "encoder", "bert", head=False)
    assert all(not key.startswith(("bert.", "cls.")) for key in load_file(Path(name) / "model.safetensors"))
    files = tiny_files | {"backbone": Path(name)}
    values = {"head": {"kind": head} | ({"width": 16} if head == "ytuning" else {})}
    config = build_config("fast", tiny_overlay(files, tmp_path / "run"), values)
    assert len(self_train(config).rounds) == 2
    with open_run(config) as run:  # another load of the backbone is the same run
        assert (
            run.backbone.checksum()
            == json.loads((run.folder / "final" / "model.json").read_text())["backbone"]["checksum"]
        )
    assert Predictor.open(tmp_path / "run").logits(["w1 fine"]).shape == (1, 2)


def test_a_run_with_a_verbalizer_is_refused_before_it_is_recorded(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    files = tiny_files | {"backbone": Path(saved(tmp_path / "encoder", "bert", head=False))}
    config = build_config("fast", tiny_overlay(files, tmp_path / "run"))
    with pytest.raises(InputError, match="without a masked-LM head"), open_run(config):
        pass
    assert not (tmp_path / "run" / "config.json").exists()


def test_adapt_trains_the_head_that_is_missing(tmp_path: Path) -> None:
    name, text = saved(tmp_path / "encoder", "bert", head=False), tmp_path / "text.txt"
    text.write_text("it was a fine film\n" * 40)
    outcome = adapt(name, [str(text)], tmp_path / "out", AdaptConfig(steps=2, batch=4, length=16, device="cpu"))
    assert loaded(str(outcome.path), 0).has_head


def test_an_encoder_with_a_hole_is_refused(tmp_path: Path) -> None:
    name = saved(tmp_path, "bert", head=True)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors.pop("bert.encoder.layer.1.output.dense.weight")
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"no weights for bert\.encoder\.layer\.1\.output\.dense\.weight"):
        load_backbone(name)


def test_a_tokenizer_without_a_mask_is_refused(tmp_path: Path) -> None:
    name = saved(tmp_path, "bert", head=True)
    path = tmp_path / "tokenizer_config.json"
    facts = json.loads(path.read_text())
    facts.pop("mask_token")
    path.write_text(json.dumps(facts))
    with pytest.raises(InputError, match="has no mask token"):
        load_backbone(name)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator only")
def test_that_freed_memory_is_used_again_where_the_environment_forbids_it() -> None:
    """A tensor of 4 MiB is a thousand pages; dask starts its workers with this threshold."""
    environment = os.environ | {"MALLOC_TRIM_THRESHOLD_": "65536"}
    faults = {
        kept: int(subprocess.check_output([sys.executable, "-c", FAULTS, kept], env=environment, text=True))
        for kept in ("kept", "not")
    }
    assert faults["kept"] * 10 < faults["not"]


@pytest.mark.parametrize(
    ("family", "longest"),
    [("bert", 64), ("roberta", 65), ("xlm-roberta", 64), ("camembert", 64), ("mpnet", 64), ("albert", 64)],
)
@torch.no_grad()
def test_positions_are_counted_from_behind_that_of_the_padding(family: str, longest: int) -> None:
    """A text of all tokens that the table holds is read, and the next one would be beyond it."""
    backbone = tiny_backbone(family)
    assert backbone.max_length == longest
    ids = torch.randint(5, 40, (1, longest + 1), generator=torch.Generator().manual_seed(0))
    backbone.model(input_ids=ids[:, :longest])
    with pytest.raises((IndexError, RuntimeError)):
        backbone.model(input_ids=ids)
