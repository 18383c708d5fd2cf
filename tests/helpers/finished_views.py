"""Finished runs of one or two views, far from where training starts, made in milliseconds."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from merged_models import LABELS, TASK, VERBALIZER, backbone_of, of
from pydantic import TypeAdapter
from stage_models import perturb
from tiny import tiny_overlay

from listflow.data.task import Task
from listflow.pipeline.backbone.backbone import Backbone, load_backbone
from listflow.pipeline.backbone.text_face import text_face_of
from listflow.pipeline.model.classifier import Classifier
from listflow.pipeline.model.config import AnyHead, PrototypesHead, VerbalizerHead
from listflow.pipeline.model.verbalizer import label_word_ids
from listflow.pipeline.stages.config import AnyStage, NoStage
from listflow.pipeline.storage.checkpoint import new_folder, save_tensors, verified, write_json
from listflow.pipeline.storage.run_folder import MIXTURE, RunFolder

PAIRS = Task(name="pairs", template="{text_b:lower_first} ? {mask} , {text_a:drop_last} .", labels=LABELS, lower=True)
MAX_LENGTH = 48


def sentence_files(
    folder: Path,
    pooling: Mapping[str, Any] | None = None,
    normalised: bool = True,
    limits: Mapping[str, Any] | None = None,
    prompts: Mapping[str, Any] | None = None,
) -> Path:
    """The files by which the makers of a sentence encoder say how its tokens become a vector, in ``folder``."""
    kinds = ["Transformer", "Pooling", *(["Normalize"] if normalised else [])]
    modules = [
        {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    (folder / "1_Pooling").mkdir(parents=True, exist_ok=True)
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling or {"pooling_mode_mean_tokens": True}))
    if limits is not None:
        (folder / "sentence_bert_config.json").write_text(json.dumps(limits))
    if prompts is not None:
        (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    return folder


def two_views(files: dict[str, Path], folder: Path) -> dict[str, Any]:
    """A configuration overlay for a run of seconds and of both views on ``tiny_files``."""
    student = {"steps": 8, "batch": 6, "tail_epochs": 1, "tail_batch": 4}
    return tiny_overlay(files, folder) | {"second": {"face": "text", "student": student}}


def believe(run: Path, **weights: float) -> None:
    """Has the views of the run in ``run`` believed otherwise than its labels say."""
    folder = RunFolder(run).round(0).committee
    manifest = verified(folder)
    assert manifest is not None
    kept = {name: (folder / name).read_bytes() for name in manifest["files"]}
    mixture = json.loads(kept.pop(MIXTURE))
    voices = [voice | {"weight": weights[voice["view"]]} for voice in mixture["voices"]]
    with new_folder(folder, {"inputs": manifest["inputs"], "seconds": 0.0}) as aside:
        write_json(aside / MIXTURE, mixture | {"voices": voices})
        for name, content in kept.items():
            (aside / name).write_bytes(content)


def saved_backbone(folder: Path, family: str = "bert") -> Path:
    """The folder of a tiny backbone."""
    backbone = backbone_of(family)
    backbone.model.save_pretrained(folder)
    backbone.tokenizer.save_pretrained(folder)
    return folder


def finished(
    folder: Path, family: str, chosen: tuple[AnyStage, ...], head: dict[str, Any] = VERBALIZER, task: Task = TASK
) -> Path:
    """A run's folder with a model that is far from its start."""
    backbone = backbone_of(family)
    backbone.model.save_pretrained(folder / "backbone")
    backbone.tokenizer.save_pretrained(folder / "backbone")
    config: AnyHead = TypeAdapter(AnyHead).validate_python(head)
    words = label_word_ids(task, backbone.tokenizer)
    model = perturb(Classifier(backbone, chosen, config, words), std=0.1)
    facts = {"precision": "fp32", "device": "cpu", "dtype": "float32", "checksum": backbone.checksum()}
    card = {
        "format": 1, "task": task.model_dump(mode="json"), "max_length": 48,
        "backbone": {"name": str(folder / "backbone"), **facts},
        "stage": [stage.model_dump(mode="json") for stage in chosen], "head": config.model_dump(mode="json"),
    }  # fmt: skip
    with new_folder(folder / "run" / "final", {}) as aside:
        save_tensors(aside / "weights.safetensors", model.tensors())
        write_json(aside / "model.json", card)
    return folder / "run"


def committee_run(
    folder: Path, backbone: Path | str, views: Sequence[str] = ("prompt", "text"), task: Task = TASK,
    family: str = "bert", seed: int = 0, middle: float = 0.0, temperature: float = 1.0, std: float = 0.1,
) -> Path:  # fmt: skip
    """The folder of a run whose final model has these views, on the backbone in a folder of its own, or of a name."""
    made = {"prompt": partial(_prompt, std=std), "text": partial(_text, middle=middle)}
    own = load_backbone(backbone, "fp32", "cpu") if isinstance(backbone, str) else backbone_of(family)
    own = Backbone(own.model, own.tokenizer, str(backbone))
    tensors, cards = dict[str, torch.Tensor](), []
    for view in views:
        model, card = made[view](own, task, seed)
        prefix = "text." if view == "text" else ""
        tensors |= {prefix + name: value for name, value in model.tensors().items()}
        weight = 1.0 if len(views) == 1 else {"prompt": 0.6, "text": 0.4}[view]
        cards.append({"face": view, "max_length": MAX_LENGTH, "prefix": prefix, "weight": weight, **card})
    identity = own.identity().model_dump()
    if "text" in views:
        identity["text"] = text_face_of(own, MAX_LENGTH).checksum()
    first = {name: cards[0][name] for name in ("stage", "head", "max_length")}
    backbone_card = {"name": str(backbone), "precision": "fp32", "device": "cpu", **identity}
    with new_folder(folder / "final", {}) as aside:
        save_tensors(aside / "weights.safetensors", tensors)
        card = {"format": 1, "task": task.model_dump(mode="json"), "backbone": backbone_card, **first, "views": cards}
        write_json(aside / "model.json", card if temperature == 1 else {**card, "temperature": temperature})
    return folder


def code_of(folder: Path) -> dict[str, Any]:
    """What the python code in the folder's README.md defines."""
    found = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert found is not None
    names: dict[str, Any] = {}
    exec(found[1], names)
    return names


def _prompt(backbone: Backbone, task: Task, seed: int, std: float) -> tuple[Classifier, dict[str, Any]]:
    stages = of("none" if backbone.family.shares_layers else "list")  # the former alone merges there
    head = VerbalizerHead()
    model = Classifier(backbone, stages, head, label_word_ids(task, backbone.tokenizer), seed)
    perturb(model, std=std, seed=seed)
    return model, {"stage": [s.model_dump(mode="json") for s in stages], "head": head.model_dump(), "temperature": 1.3}


def _text(backbone: Backbone, task: Task, seed: int, middle: float) -> tuple[Classifier, dict[str, Any]]:
    hidden = backbone.hidden_size * (2 if middle else 1)
    width = 1 + 3 * backbone.hidden_size if task.is_pair else hidden
    head = PrototypesHead(width=width, normalised=not task.is_pair, middle=middle)
    model, generator = Classifier(backbone, (NoStage(),), head, ((),) * len(task.labels)), torch.Generator()
    generator.manual_seed(seed)
    model.load({name: 0.05 * torch.randn(x.shape, generator=generator) for name, x in model.tensors().items()})
    return model, {"stage": [NoStage().model_dump()], "head": head.model_dump(mode="json"), "temperature": 0.7}
