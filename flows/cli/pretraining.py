"""``adapt`` and ``subspace``: what is trained before a run, on a domain's words or on the prompts of other runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

from pydantic import BaseModel, ValidationError
from rich.console import Console
from rich.table import Table
from typer import Argument, Option

from listflow.data.schema import refusal
from listflow.flows.cli.console import Count, interrupted, plain_console, prepare, print_json, print_line
from listflow.flows.cli.options import AsJson, Seed, TextColumns, Values, Verbose, given_values, set_option
from listflow.pipeline.run.wording import percent

if TYPE_CHECKING:
    from listflow.pipeline.pretraining.adapt import AdaptOutcome, AdaptTick
    from listflow.pipeline.pretraining.subspace import SubspaceOutcome

Config = TypeVar("Config", bound=BaseModel)


def adapt(
    sources: Annotated[list[str], Argument(metavar="FILE...", help="Texts: .txt with a paragraph a line, csv, ...")],
    out: Annotated[Path, Option(help="A new folder for the result; the same again resumes.")],
    backbone: Annotated[
        str, Option(help="minilm, minilm-2, an update of them, a local folder, or a hub id.")
    ] = "minilm",
    steps: Annotated[int | None, Option(help="Optimiser steps. Default: 7000.")] = None,
    columns: TextColumns = None,
    seed: Seed = None,
    set: Annotated[list[str] | None, set_option("Any other value, such as batch=16")] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Teach a backbone the words of a domain before a run."""
    prepare(verbose)
    console = plain_console(stderr=as_json)
    given = given_values({"steps": steps, "seed": seed, "columns": _columns(columns)}, set or ())
    with _resumable():
        outcome = _adapt(backbone, sources, out, given, console)
    before, after = asdict(outcome.before), asdict(outcome.after)
    for name in before:
        console.print(f"{name}: {before[name]:.4g} before, {after[name]:.4g} after", highlight=False)
    _end(outcome, f"--backbone {outcome.path}", console, as_json)


def subspace(
    runs: Annotated[list[Path], Argument(metavar="RUN...", help="Runs with --stage soft_prompt or ptuning.")],
    out: Annotated[Path, Option(help="A new folder for the subspace; the same again goes on.")],
    dim: Annotated[int | None, Option(help="Coordinates of a prompt. Default: 50.")] = None,
    steps: Annotated[int | None, Option(help="Optimiser steps. Default: 2000.")] = None,
    evaluate: Annotated[
        bool, Option("--evaluate", help="Also the five settings: each task in turn left out. Takes a while.")
    ] = False,
    seed: Seed = None,
    set: Annotated[list[str] | None, set_option("Any other value, such as hidden=256")] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Find the subspace that trained prompts share, so that a new task tunes a few numbers."""
    prepare(verbose)
    console = plain_console(stderr=as_json)
    given = given_values({"dim": dim, "steps": steps, "seed": seed}, set or ())
    with _resumable():
        outcome = _find(runs, out, given, evaluate, console)
    tasks = ", ".join(outcome.tasks)
    prompts = f"{outcome.prompts} prompts of {outcome.tokens} tokens ({tasks}) in {outcome.dim} coordinates"
    print_line(console, f"{prompts}; {percent(outcome.unexplained)} of their variance is lost")
    if outcome.scores:
        console.print(_settings(outcome))
    use = f"--stage ipt --set stage.subspace={outcome.folder} --set stage.tokens={outcome.tokens}"
    _end(outcome, use, console, as_json)


@contextmanager
def _resumable() -> Iterator[None]:
    """A training of which the same command makes what Ctrl-C has left, and says so."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        interrupted(stopped, "the same command goes on from the last checkpoint.")


def _end(outcome: AdaptOutcome | SubspaceOutcome, use: str, console: Console, as_json: bool) -> None:
    """How a run uses what was trained, and all facts as JSON where they are asked for."""
    print_line(console, f"use it with: {use}")
    if as_json:
        print_json(asdict(outcome))


def _adapt(backbone: str, sources: list[str], out: Path, values: Values, console: Console) -> AdaptOutcome:
    """The outcome of the training, watched on ``console``."""
    from listflow.pipeline.pretraining.adapt import adapt as train
    from listflow.pipeline.pretraining.learner import AdaptConfig

    config = _validated(AdaptConfig, values)
    with Count(console, "load the backbone and the texts") as count:

        def on_step(tick: AdaptTick) -> None:
            count.show(tick.step, tick.steps, "masked-LM training", f"loss {tick.loss:.3f}")

        return train(backbone, sources, out, config, on_step)


def _find(runs: list[Path], out: Path, values: Values, evaluate: bool, console: Console) -> SubspaceOutcome:
    """The outcome of the training, watched on ``console``."""
    from listflow.pipeline.pretraining.msf import MsfTick, SubspaceConfig
    from listflow.pipeline.pretraining.subspace import make_subspace

    config = _validated(SubspaceConfig, values)
    with Count(console, "load the runs") as count:

        def on_step(left_out: str, tick: MsfTick) -> None:
            words = f"subspace without {left_out}" if left_out else "subspace"
            count.show(tick.step, tick.steps, words, f"loss {tick.loss:.3f}")

        def on_score(left_out: str, done: int, total: int) -> None:
            count.show(done, total, f"settings without {left_out}")

        return make_subspace(runs, out, config, evaluate, on_step, on_score)


def _columns(text: str | None) -> Values | None:
    from listflow.data.task import parse_columns

    return parse_columns(text).model_dump() if text else None


def _validated(kind: type[Config], values: Values) -> Config:
    """The configuration that ``values`` mean; InputError for one that does not fit."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise refusal(error, kind) from error


def _settings(outcome: SubspaceOutcome) -> Table:
    """The five settings: accuracy as a share of that of the whole prompt, over all tasks left out."""
    from listflow.pipeline.pretraining.subspace import SETTINGS, relative

    table = Table("setting", "what it shows", "scores", "relative to the whole prompt")
    for setting, meaning in SETTINGS.items():
        scores = [score for score in outcome.scores if score.setting == setting]
        table.add_row(setting, meaning, str(len(scores)), percent(relative(scores)))
    return table
