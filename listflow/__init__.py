"""listflow: thirty labels, a heap of unlabelled text, more coming every week.

Train with ``self_train(build_config("fast", {...}))``, which makes a run; use a finished run with ``Predictor``.
What is rarer is found by its folder: ``listflow.data`` (texts, labels, corpora), ``listflow.pipeline`` (the method),
``listflow.flows`` (Prefect and the command line).
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from listflow.data.errors import InputError
    from listflow.data.task import Task
    from listflow.pipeline.estimator import TextClassifier
    from listflow.pipeline.results.predictor import Predictor
    from listflow.pipeline.results.predictors import Predictors
    from listflow.pipeline.results.report import RunReport
    from listflow.pipeline.run.config import RunConfig
    from listflow.pipeline.run.presets import build_config
    from listflow.pipeline.self_training import self_train

    __version__: str

__all__ = [
    "InputError",
    "Predictor",
    "Predictors",
    "RunConfig",
    "RunReport",
    "Task",
    "TextClassifier",
    "__version__",
    "build_config",
    "self_train",
]

_HOMES = {
    "InputError": "data.errors",
    "Predictor": "pipeline.results.predictor",
    "Predictors": "pipeline.results.predictors",
    "RunConfig": "pipeline.run.config",
    "RunReport": "pipeline.results.report",
    "Task": "data.task",
    "TextClassifier": "pipeline.estimator",
    "build_config": "pipeline.run.presets",
    "self_train": "pipeline.self_training",
}


def __getattr__(name: str) -> Any:
    """A public name, loaded when it is asked for: whoever wants a configuration should not wait for torch."""
    if name == "__version__":
        return version("listflow")
    if name not in _HOMES:
        raise AttributeError(f"module 'listflow' has no attribute {name!r}")
    return getattr(import_module(f"listflow.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
