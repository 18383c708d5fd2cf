"""A finished run, opened: what its ``final`` folder says, and the classifier that it holds."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from listflow.data.errors import InputError
from listflow.data.task import Task
from listflow.pipeline.backbone.backbone import Backbone, Precision, load_backbone
from listflow.pipeline.backbone.prompt import Prompt
from listflow.pipeline.identity import Identity
from listflow.pipeline.label_words import word_ids_for
from listflow.pipeline.model.classifier import Classifier
from listflow.pipeline.model.config import AnyHead
from listflow.pipeline.run.config import build_config
from listflow.pipeline.stages.config import AnyStage, pseudo_tokens
from listflow.pipeline.storage.checkpoint import file_digest, load_tensors, read_json, verified


@dataclass(frozen=True)
class Finished:
    """The final model of a run. ``run`` is the folder that was asked for, ``trained_on`` the card of its backbone."""

    run: Path
    folder: Path
    task: Task
    stage: tuple[AnyStage, ...]
    head: AnyHead
    max_length: int
    trained_on: dict[str, Any]

    @staticmethod
    def open(run_dir: str | Path) -> Finished:
        """The final model of a run, or of its ``final`` folder moved elsewhere.

        InputError when the folder is no finished run, or a file of it is damaged.
        """
        run = Path(run_dir)
        folder = run / "final" if (run / "final").is_dir() else run
        if not (folder / "model.json").exists():
            raise InputError(_why_none(run))
        if verified(folder) is None:
            raise InputError(f"a file in {folder} is damaged or changed; make it again with `listflow resume RUN`.")
        card = read_json(folder / "model.json")
        config = build_config("fast", {"stage": card["stage"], "head": card["head"]})
        task = Task.model_validate(card["task"])
        return Finished(run, folder, task, config.stage, config.head, card["max_length"], card["backbone"])

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        whole = self.run.resolve()
        return whole.parent.name if whole.name == "final" else whole.name

    def digest(self) -> str:
        """sha256 over the model: its weights, its task, and the checksum of the backbone that it needs."""
        files = (file_digest(self.folder / name) for name in ("weights.safetensors", "model.json"))
        return hashlib.sha256("".join(files).encode()).hexdigest()

    def load_backbone(self, precision: Precision | None = None, device: str | None = None) -> Backbone:
        """The backbone that the run was trained on, as it was or as asked; InputError when it is another one now."""
        card = self.trained_on
        backbone = load_backbone(card["name"], precision or card["precision"], device or card["device"])
        if not backbone.identity().is_of(Identity.of(card)):
            raise InputError(
                f"backbone '{card['name']}' is not the one this model was trained on; restore that version."
            )
        return backbone

    def classifier(self, backbone: Backbone) -> Classifier:
        """The trained classifier, on ``backbone``."""
        model = Classifier(backbone, self.stage, self.head, self.word_ids(backbone))
        model.load(load_tensors(self.folder / "weights.safetensors"))
        return model

    def prompt(self, backbone: Backbone) -> Prompt:
        """What turns texts into the classifier's input."""
        return Prompt(self.task, backbone.tokenizer, self.max_length, pseudo_tokens(self.stage))

    def word_ids(self, backbone: Backbone) -> tuple[int, ...]:
        """The token id of each label's word, in label order; see ``word_ids_for``."""
        return word_ids_for(self.head, self.task, backbone)


def _why_none(run: Path) -> str:
    """Why there is no model in ``run``, and what to do."""
    if not run.is_dir():
        return f"there is no folder {run}; give that of a finished run."
    if not (run / "config.json").exists():
        return f"{run} is no run and holds no finished model; give the folder of a finished run."
    return f"{run} holds no finished model; finish the run with `listflow resume {run}`."
