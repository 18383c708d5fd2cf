"""The flow of a run that a person starts from the Prefect pages: a form of few fields, named as in `listflow run`."""

from typing import Any, Literal

from prefect import flow
from prefect.serializers import JSONSerializer
from prefect.states import Failed, State
from pydantic import Field

from listflow.data.errors import InputError
from listflow.data.schema import Section
from listflow.flows.run.naming import introduce
from listflow.flows.run.self_training import train
from listflow.flows.run.session import looked_up
from listflow.pipeline.run.config import BackboneConfig, RoundsConfig, RunConfig
from listflow.pipeline.run.opening import look_up
from listflow.pipeline.run.presets import build_config


class NewRun(Section):
    """A run from labelled and unlabelled texts. Files and folders are those of the machine that serves."""

    labelled: str = Field(min_length=1, description="File of labelled rows, or a hub data set.")
    unlabelled: list[str] = Field(
        [""], description="Files of unlabelled rows, or folders of corpora that `listflow ingest` made."
    )
    test: str = Field("", description="File of labelled test rows, for the report only.")
    task: str = Field("", description="Built-in task or a YAML file. Empty: the labels that the labelled file has.")
    folder: str = Field("", description="Where the run is kept, such as runs/tickets. Empty: runs/TASK-ID.")
    preset: Literal["fast", "released", "published"] = Field("fast", description="Values for all that is not set.")
    rounds: int = Field(6, ge=0, le=50, description="Rounds of self-training.")
    seed: int = Field(1, ge=0, le=2**31, description="Decides every draw.")
    settings: dict[str, Any] = Field(
        default_factory=dict,
        description='Any other values, such as {"student": {"steps": 300}}; they lie over the fields above.',
    )

    @staticmethod
    def like(config: RunConfig) -> dict[str, Any]:
        """What the form holds before anybody fills it in: the texts of a run of ``config``, and how they are read."""
        data, backbone = config.data, config.backbone.name
        settings: dict[str, Any] = {"data": {"columns": data.columns}} if data.columns else {}
        if backbone != BackboneConfig().name:
            settings["backbone"] = {"name": backbone}
        texts = {"labelled": data.labelled, "unlabelled": list(data.unlabelled), "test": data.test, "task": config.task}
        rounds = config.rounds.count if config.rounds.count != RoundsConfig().count else None
        own = {**texts, "rounds": rounds, "settings": settings}
        return {name: value for name, value in own.items() if value}

    def to_config(self) -> RunConfig:
        """Preset, then the fields, then the settings; InputError for what does not fit."""
        data = {"labelled": self.labelled, "unlabelled": [*filter(None, self.unlabelled)], "test": self.test or None}
        named = {"task": self.task or None, "run_dir": self.folder or None}
        own = {"data": data, **named, "rounds": {"count": self.rounds}, "seed": self.seed}
        return build_config(self.preset, own, self.settings)


# As in self_training.py: types and not text as annotations, and no pickle of exceptions.
@flow(name="listflow-start", persist_result=False, result_serializer=JSONSerializer())
def start(run: NewRun) -> dict[str, Any] | State[None]:
    """Trains a classifier from few labelled and many unlabelled texts, as `listflow run` does.

    The same values again go on where an interrupted run stopped. Ends as Failed, with one sentence, for what a person
    can mend.
    """
    try:
        config = run.to_config()
        introduce(config.title, config)
        with looked_up(look_up(config)):
            return train(config)
    except InputError as error:
        return Failed(message=str(error))
