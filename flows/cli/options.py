"""Options that commands share, and the configuration that ``run`` and ``plan`` ask for.

Values are given as a user writes them: YAML files, and ``a.b=value`` on the command line.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from typer import Argument, Option

from listflow.data import files
from listflow.data.documents import parse_yaml, read_yaml
from listflow.data.errors import InputError, shortened
from listflow.pipeline.run.config import RunConfig
from listflow.pipeline.run.presets import build_config

Values = dict[str, Any]
LONGEST = 80  # characters of an option that a sentence repeats
RunPath = Annotated[Path, Argument(help="The folder of a run.")]
TextColumns = Annotated[str | None, Option(help="Column names, such as text=body.")]
Seed = Annotated[int | None, Option(help="Decides every draw. Default: 1.")]
Verbose = Annotated[bool, Option("--verbose", help="Show what Prefect logs, and tracebacks.")]
AsJson = Annotated[bool, Option("--json", help="Print the result as one line of JSON, and all else on stderr.")]


def set_option(words: str) -> Any:
    """The option --set KEY=VALUE of a command, explained by ``words``."""
    return Option("--set", metavar="KEY=VALUE", help=f"{words}; repeatable.")


@dataclass(frozen=True)
class Asked:
    """What a user asks for; None leaves it to the configuration file, then to the preset."""

    task: Annotated[str | None, Option(help="Built-in task or a YAML file; without it, the demo.")] = None
    labelled: Annotated[str | None, Option(help="File or hub data set of labelled rows.")] = None
    unlabelled: Annotated[list[str] | None, Option(help="File of unlabelled rows; repeatable.")] = None
    test: Annotated[str | None, Option(help="File of labelled test rows, for the report only.")] = None
    columns: Annotated[str | None, Option(help='Column names, as text=body,label="a, b".')] = None
    shots: Annotated[int | None, Option(help="Draw this many labelled rows in total.")] = None
    balanced: Annotated[
        bool | None, Option("--balanced/--natural", help="Draw the same number per class, or as they come.")
    ] = None
    backbone: Annotated[str | None, Option(help="minilm or minilm-2 (embedded), a local folder, or a hub id.")] = None
    stage: Annotated[str | None, Option(help="The trainable tensors inside the backbone.")] = None
    head: Annotated[str | None, Option(help="What turns features into class logits.")] = None
    preset: Annotated[
        Literal["fast", "released", "published"] | None, Option(help="Values for all that is not set. Default: fast.")
    ] = None
    rounds: Annotated[int | None, Option(help="Rounds of self-training. Default: 6.")] = None
    engine: Annotated[
        Literal["fused", "higher", "jvp"] | None, Option(help="How meta weights are computed. Default: fused.")
    ] = None
    promote: Annotated[
        Literal["always", "gated"] | None, Option(help="Every student, or only one not worse. Default: always.")
    ] = None
    seed: Seed = None
    continues: Annotated[
        Path | None,
        Option("--continue", metavar="RUN", help="Go on from a finished run with rows that are new since. Gated."),
    ] = None
    run_dir: Annotated[str | None, Option(help="Where the run is kept. Default: runs/<task>-<id>.")] = None
    config: Annotated[Path | None, Option(help="YAML file of configuration values; options lie over it.")] = None
    set: Annotated[list[str] | None, set_option("Any value, such as student.steps=300")] = None

    def to_config(self) -> RunConfig:
        """Preset, then file, then options, then ``--set``; InputError for what does not fit."""
        file = _read_yaml(self.config) if self.config else {}
        preset = self.preset or file.pop("preset", None) or "fast"
        before = _continued(self.continues) if self.continues else {}
        return build_config(str(preset), before, file, self._overlay(), *map(parse_set, self.set or ()))

    def _overlay(self) -> Values:
        dotted = {
            "task": self.task,
            "data.labelled": self.labelled,
            "data.unlabelled": self.unlabelled or None,
            "data.test": self.test,
            "data.columns": self.columns,
            "data.shots": self.shots,
            "data.balanced": self.balanced,
            "backbone.name": self.backbone,
            "stage.kind": self.stage,
            "head.kind": self.head,
            "rounds.count": self.rounds,
            "rounds.promote": self.promote,
            "reweight.engine": self.engine,
            "seed": self.seed,
            "run_dir": self.run_dir,
        }
        overlay: Values = {}
        for key, value in dotted.items():
            section, _, name = key.rpartition(".")
            if value is not None:
                (overlay.setdefault(section, {}) if section else overlay)[name] = value
        return overlay


def asks(command: Callable[..., None]) -> Callable[..., None]:
    """Decorator: ``command(asked, ...)`` with one option for each field of ``Asked``, for typer to see."""
    hints = get_type_hints(Asked, include_extras=True)
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    kind = inspect.Parameter.KEYWORD_ONLY
    shared = [inspect.Parameter(f.name, kind, default=f.default, annotation=hints[f.name]) for f in fields(Asked)]

    def with_options(**values: Any) -> None:
        rest = {parameter.name: values.pop(parameter.name) for parameter in own}
        command(Asked(**values), **rest)

    with_options.__name__, with_options.__doc__ = command.__name__, command.__doc__
    parameters = [*shared, *(parameter.replace(kind=kind) for parameter in own)]
    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_options


def at_home(command: Callable[..., None]) -> Callable[..., None]:
    """Decorator: a ``~`` that begins a path is the home folder, also where the shell leaves it, as in --output=~/x."""

    @wraps(command)
    def with_home(**values: Any) -> None:
        command(**{name: _at_home(value) for name, value in values.items()})

    return with_home


def given_values(options: Values, items: Iterable[str]) -> Values:
    """What a user gave: ``options`` that are not None, and ``--set`` items over them."""
    given = {name: value for name, value in options.items() if value is not None}
    for item in items:
        given |= parse_set(item)
    return given


def parse_set(item: str) -> Values:
    """The nested dict that ``a.b=value`` means, the value read as YAML; InputError for another shape."""
    key, equals, text = item.partition("=")
    if not (key and equals):
        raise InputError(f"--set {item!r} is not KEY=VALUE; write for example student.steps=300.")
    value = parse_yaml(text, f"--set {shortened(item, LONGEST)!r}", has_lines=False)
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


def _read_yaml(path: Path) -> Values:
    """The nested values of a YAML file; InputError when there are none to read."""
    values = read_yaml(path, "pass a YAML file to --config")
    if values is not None and not isinstance(values, dict):
        raise InputError(f"{path}: must hold keys with values, such as 'rounds: {{count: 3}}'.")
    return values or {}


def _at_home(value: Any) -> Any:
    if isinstance(value, Path):
        return Path(files.at_home(value))
    return [*map(_at_home, value)] if isinstance(value, list) else value


def _continued(folder: Path) -> Values:
    """The values of a run that goes on from the one in ``folder``."""
    from listflow.pipeline.run.lineage import continued

    return continued(folder, None).model_dump(mode="json")
