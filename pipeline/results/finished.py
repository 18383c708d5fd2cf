"""The final model of a run on disk: what final/ holds of its views, and what reads it.

weights.safetensors has the tensors of every view that has a say, model.json is the card that says how to read them,
manifest.json their digests. A run of one view names its tensors as they are; of two, the text view's begin with
``text.``, and the card lists the views.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load
from torch import Tensor

from listflow.data.errors import InputError
from listflow.data.files import at_home
from listflow.data.task import Columns, Task, parse_columns
from listflow.pipeline.backbone.backbone import Backbone, Identity, Precision, load_backbone
from listflow.pipeline.backbone.prompt import Prompt
from listflow.pipeline.backbone.text_face import TextFace, text_face_of
from listflow.pipeline.model.arithmetic import Arithmetic
from listflow.pipeline.model.classifier import Classifier, flat
from listflow.pipeline.model.committee import Committee, View
from listflow.pipeline.model.config import AnyHead, reads_middle
from listflow.pipeline.model.unpadded import reading_by
from listflow.pipeline.model.verbalizer import word_ids_for
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.run.run import Run
from listflow.pipeline.stages.config import AnyStage
from listflow.pipeline.stages.presets import pseudo_tokens
from listflow.pipeline.storage.checkpoint import MANIFEST, json_of, read_json, undisturbed, verified
from listflow.pipeline.storage.run_folder import CARD, WEIGHTS, RunFolder
from listflow.pipeline.training.committee import mixture_of, speaking
from listflow.pipeline.training.rounds import load_model

Facts = dict[str, Any]
Files = Mapping[str, bytes]
_MODEL = {WEIGHTS, CARD}  # what a manifest must speak of


@dataclass(frozen=True)
class FinishedView:
    """A view of a finished run: what its card says of it. ``prefix`` begins the names of its tensors."""

    face: str
    stage: tuple[AnyStage, ...]
    head: AnyHead
    max_length: int
    prefix: str = ""
    weight: float = 1.0
    temperature: float = 1.0

    @staticmethod
    def of(card: dict[str, Any]) -> FinishedView:
        """The view that ``card`` is of: a whole card, where a run has one view, or what it says of each."""
        face = card.get("face", "prompt")
        config = build_config("released", {"face": face, "stage": card["stage"], "head": card["head"]})
        rest = {name: card[name] for name in ("prefix", "weight", "temperature") if name in card}
        return FinishedView(face, config.stage, config.head, card["max_length"], **rest)


@dataclass(frozen=True)
class Finished:
    """The final model of a run. ``run`` is the folder that was asked for, ``trained_on`` the card of its backbone.

    ``columns`` are those that its texts were read from, ``temperature`` that of its logits. ``files`` are the bytes of
    its weights, its card and its manifest, which say all of it.
    """

    run: Path
    folder: Path
    task: Task
    views: tuple[FinishedView, ...]
    trained_on: dict[str, Any]
    columns: Columns
    temperature: float
    files: Files = field(repr=False)

    @staticmethod
    def open(run_dir: str | Path) -> Finished:
        """The final model of a run, or of its ``final`` folder moved elsewhere.

        InputError when the folder is no finished run, or a file of it is damaged.
        """
        run = Path(at_home(run_dir))
        inside = RunFolder(run).final
        folder = inside if inside.is_dir() else run
        if not (folder / CARD).exists():
            raise InputError(_why_none(run))
        manifest = verified(folder) or {"files": {}}
        if not manifest["files"].keys() >= _MODEL or not are_whole(files := files_of(folder), folder):
            raise InputError(f"a file in {folder} is damaged or changed; make it again with `listflow resume RUN`.")
        return Finished.of(run, folder, files, _columns_told(folder))

    @staticmethod
    def of(run: Path, folder: Path, files: Files, columns: Columns | None = None) -> Finished:
        """The final model of ``run`` that ``folder`` held as ``files``; ``columns`` where its card does not say."""
        card = json_of(folder / CARD, files[CARD])
        views = tuple(map(FinishedView.of, card.get("views", [card])))
        task = Task.model_validate(card["task"])
        said = Columns.model_validate(card["columns"]) if "columns" in card else columns
        return Finished(
            run, folder, task, views, card["backbone"], said or task.columns, card.get("temperature", 1.0), files
        )

    @property
    def stage(self) -> tuple[AnyStage, ...]:
        """That of its first view."""
        return self.views[0].stage

    @property
    def head(self) -> AnyHead:
        """That of its first view."""
        return self.views[0].head

    @property
    def reads_text(self) -> bool:
        """Whether a view of it reads the text face of the backbone."""
        return bool(self.trained_on.get("text"))

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        whole = self.run.resolve()
        return whole.parent.name if whole.name == RunFolder(whole.parent).final.name else whole.name

    def digest(self) -> str:
        """sha256 over the model: its weights, its task, and the checksum of the backbone that it needs."""
        files = (hashlib.sha256(self.files[name]).hexdigest() for name in (WEIGHTS, CARD))
        return hashlib.sha256("".join(files).encode()).hexdigest()

    def load_backbone(
        self, precision: Precision | None = None, device: str | None = None, name: str | None = None
    ) -> Backbone:
        """The backbone that the run was trained on, as it was or as asked; InputError when it is another one now."""
        card = self.trained_on
        name = name or str(card["name"])
        backbone = load_backbone(name, precision or card["precision"], device or card["device"])
        if not backbone.identity().is_of(Identity.of(card)):
            raise InputError(f"backbone '{name}' is not the one this model was trained on; restore that version.")
        self.check_text(backbone)
        return backbone

    def check_text(self, backbone: Backbone) -> None:
        """InputError where the text face of ``backbone`` is not the one that a view of the run reads.

        Of the same parameters it differs by the files that say how they are pooled.
        """
        if self.reads_text and text_face_of(backbone, backbone.max_length).checksum() != self.trained_on["text"]:
            raise InputError(
                f"backbone '{backbone.name}' makes other sentence embeddings than those this model was trained on; "
                "restore its sentence files (modules.json, 1_Pooling/config.json and those beside them)."
            )

    def committee(self, backbone: Backbone, arithmetic: Arithmetic = "padded") -> Committee:
        """The trained views, on ``backbone``, whose frozen layers are read by ``arithmetic``."""
        with undisturbed():
            tensors = load(self.files[WEIGHTS])
        views = tuple(self._view(view, backbone, tensors, arithmetic) for view in self.views)
        return Committee(views, self.temperature)

    def _view(self, view: FinishedView, backbone: Backbone, tensors: dict[str, Tensor], arithmetic: Arithmetic) -> View:
        model = Classifier(backbone, view.stage, view.head, word_ids_for(view.head, self.task, backbone))
        others = [other.prefix for other in self.views if other.prefix and other is not view]
        own = {
            name.removeprefix(view.prefix): value
            for name, value in tensors.items()
            if name.startswith(view.prefix) and not name.startswith(tuple(others))
        }
        model.load(own)
        encoder = reading_by(arithmetic, model, self._encoder(view, backbone), backbone)
        return View(model, encoder, view.weight, view.temperature)

    def _encoder(self, view: FinishedView, backbone: Backbone) -> Prompt | TextFace:
        if view.face == "text":
            return text_face_of(backbone, view.max_length, reads_middle(view.head))
        return Prompt(self.task, backbone.tokenizer, view.max_length, pseudo_tokens(view.stage))

    def word_ids(self, backbone: Backbone) -> tuple[tuple[int, ...], ...]:
        """The token ids of each label's word, in label order; see ``word_ids_for``."""
        return word_ids_for(self.head, self.task, backbone)


def files_of(folder: Path) -> Files:
    """What ``Finished`` keeps of ``folder``; nothing where a file has gone meanwhile."""
    try:
        return {name: (folder / name).read_bytes() for name in (WEIGHTS, CARD, MANIFEST)}
    except OSError:
        return {}


def are_whole(files: Files, folder: Path) -> bool:
    """Whether all are there, and are what the manifest among them says, as ``verified`` asks of a folder."""
    if files.keys() != {WEIGHTS, CARD, MANIFEST}:
        return False
    digests = json_of(folder / MANIFEST, files[MANIFEST])["files"]
    return all(hashlib.sha256(files[name]).hexdigest() == digests.get(name) for name in _MODEL)


def _columns_told(folder: Path) -> Columns | None:
    """What the run around ``folder`` was told of columns, for a card that is older than that; None for nothing."""
    try:
        told = read_json(RunFolder(folder.resolve().parent).config)["config"]["data"]["columns"]
        return parse_columns(told) if told else None
    except (InputError, KeyError, TypeError):
        return None  # the model was moved away, or its run is damaged, which is no matter here


def _why_none(run: Path) -> str:
    """Why there is no model in ``run``, and what to do."""
    if not run.is_dir():
        return f"there is no folder {run}; give that of a finished run."
    if not RunFolder(run).config.exists():
        return f"{run} is no run and holds no finished model; give the folder of a finished run."
    return f"{run} holds no finished model; finish the run with `listflow resume {run}`."


def model_digest(run: Run, number: int) -> str:
    """sha256 of a round's model: of its weights, or of those of all views that have a say."""
    digests = [view.weights_digest(number) for view in speaking(run)]
    return digests[0] if not run.others else hashlib.sha256(" ".join(digests).encode()).hexdigest()


def shipped(run: Run, number: int, temperature: float = 1.0) -> tuple[dict[str, Tensor], Facts]:
    """(tensors, card) of the model of round ``number``, its logits at a ``temperature``: all that a Predictor needs
    besides the backbone.
    """
    mixture, tensors, views = mixture_of(run), dict[str, Tensor](), list[Facts]()
    scales = zip(mixture.temperatures(number), mixture.weights(number), strict=True)
    for (view, _), (own_temperature, weight) in zip(mixture.speaking(run), scales, strict=True):
        stages, own = flat(load_model(view, number), view.config.stage)
        prefix = "text." if view.suffix else ""
        tensors |= {prefix + name: value for name, value in own.items()}
        views.append(
            {
                "face": view.view, "stage": [stage.model_dump(mode="json") for stage in stages],
                "head": view.config.head.model_dump(mode="json"), "max_length": (view.face or view.prompt).max_length,
                "prefix": prefix, "weight": weight, "temperature": own_temperature,
            }
        )  # fmt: skip
    card = _card(run, views)
    return tensors, card if temperature == 1 else {**card, "temperature": temperature}


def _card(run: Run, views: list[Facts]) -> Facts:
    first, data = views[0], run.config.data
    told = data.columns if data.labelled else None
    card = {
        "format": 1,
        "task": run.inputs.task.model_dump(mode="json"),
        "backbone": {**run.config.backbone.model_dump(mode="json"), **_identity(run)},
        "stage": first["stage"],
        "head": first["head"],
        "max_length": first["max_length"],
    } | ({"columns": parse_columns(told).model_dump(mode="json")} if told else {})
    return card if [view["face"] for view in views] == ["prompt"] and not run.others else {**card, "views": views}


def _identity(run: Run) -> Facts:
    faces = [view.face.checksum() for view in speaking(run) if view.face is not None]
    return run.backbone.identity().model_dump(exclude={"text"}) | ({"text": faces[0]} if faces else {})
