"""``adapt``: continued masked-LM training of a backbone on plain text."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from typer import Argument, Option

from listflow.data.schema import refusal
from listflow.flows.cli.console import INTERRUPTED, Count, fail, plain_console, prepare
from listflow.flows.cli.options import AsJson, Values, Verbose, given_values

if TYPE_CHECKING:
    from listflow.pipeline.pretraining.adapt import AdaptOutcome, AdaptTick
    from listflow.pipeline.pretraining.subspace import SubspaceOutcome

def subspace(
    runs: Annotated[list[Path], Argument(metavar="RUN...", help="Runs with --stage soft_prompt or ptuning.")],
    out: Annotated[Path, Option(help="A new folder for the subspace; the same again goes on.")],
    dim: Annotated[int | None, Option(help="Coordinates of a prompt. Default: 50.")] = None,
    steps: Annotated[int | None, Option(help="Optimiser steps. Default: 2000.")] = None,
    evaluate: Annotated[
        bool, Option("--evaluate", help="Also the five settings: each task in turn left out. Takes a while.")
    ] = False,
    seed: Annotated[int | None, Option(help="Decides every draw. Default: 1.")] = None,
    set: Annotated[
        list[str] | None, Option("--set", metavar="KEY=VALUE", help="Any other value, such as hidden=256; repeatable.")
    ] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Find the subspace that trained prompts share, so that a new task tunes a few numbers."""
    prepare(verbose)
    console = plain_console(stderr=as_json)
    given = given_values({"dim": dim, "steps": steps, "seed": seed}, set or ())
    try:
        outcome = _find(runs, out, given, evaluate, console)
    except KeyboardInterrupt:
        fail("interrupted; the same command goes on from the last checkpoint.", INTERRUPTED)
    _show(outcome, console)
    if as_json:
        print(json.dumps(asdict(outcome), default=str))


def _find(runs: list[Path], out: Path, values: Values, evaluate: bool, console: Console) -> SubspaceOutcome:
    """The outcome of the training, watched on ``console``."""
    from pydantic import ValidationError

    from listflow.data.schema import refusal
    from listflow.pipeline.pretraining.msf import MsfTick, SubspaceConfig
    from listflow.pipeline.pretraining.subspace import make_subspace

    try:
        config = SubspaceConfig.model_validate(values)
    except ValidationError as error:
        raise refusal(error, SubspaceConfig) from error
    with Count(console, "load the runs") as count:

        def on_step(left_out: str, tick: MsfTick) -> None:
            words = f"subspace without {left_out}" if left_out else "subspace"
            count.show(tick.step, tick.steps, words, f"loss {tick.loss:.3f}")

        def on_score(left_out: str, done: int, total: int) -> None:
            count.show(done, total, f"settings without {left_out}")

        return make_subspace(runs, out, config, evaluate, on_step, on_score)


def _show(outcome: SubspaceOutcome, console: Console) -> None:
    tasks = ", ".join(outcome.tasks)
    console.print(
        f"{outcome.prompts} prompts of {outcome.tokens} tokens ({tasks}) in {outcome.dim} coordinates; "
        f"{100 * outcome.unexplained:.1f} % of their variance is lost", soft_wrap=True, highlight=False,
    )  # fmt: skip
    if outcome.scores:
        console.print(_table(outcome))
    console.print(
        f"use it with: --stage ipt --set stage.subspace={outcome.folder} --set stage.tokens={outcome.tokens}",
        soft_wrap=True, highlight=False,
    )  # fmt: skip


def _table(outcome: SubspaceOutcome) -> Table:
    """The five settings: accuracy as a share of that of the whole prompt, over all tasks left out."""
    from listflow.pipeline.pretraining.subspace import SETTINGS, relative

    table = Table("setting", "what it shows", "scores", "relative to the whole prompt")
    for setting, meaning in SETTINGS.items():
        scores = [score for score in outcome.scores if score.setting == setting]
        share = relative(scores)
        table.add_row(setting, meaning, str(len(scores)), "-" if share is None else f"{100 * share:.1f} %")
    return table


def adapt(
    sources: Annotated[list[str], Argument(metavar="FILE...", help="Texts: .txt with a paragraph a line, csv, ...")],
    out: Annotated[Path, Option(help="A new folder for the result; the same again resumes.")],
    backbone: Annotated[str, Option(help="minilm, an update of it, a local folder, or a hub id.")] = "minilm",
    steps: Annotated[int | None, Option(help="Optimiser steps. Default: 7000.")] = None,
    columns: Annotated[str | None, Option(help="Column names, such as text=body.")] = None,
    seed: Annotated[int | None, Option(help="Decides every draw. Default: 1.")] = None,
    set: Annotated[
        list[str] | None, Option("--set", metavar="KEY=VALUE", help="Any other value, such as batch=16; repeatable.")
    ] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Teach a backbone the words of a domain before a run."""
    prepare(verbose)
    console = plain_console(stderr=as_json)
    values: Values = {"steps": steps, "seed": seed, "columns": _columns(columns)}
    given = given_values(values, set or ())
    try:
        outcome = _follow(backbone, sources, out, given, console)
    except KeyboardInterrupt:
        fail("interrupted; the same command goes on from the last checkpoint.", INTERRUPTED)
    before, after = asdict(outcome.before), asdict(outcome.after)
    for name in before:
        console.print(f"{name}: {before[name]:.4g} before, {after[name]:.4g} after", highlight=False)
    console.print(f"use it with: --backbone {outcome.path}", soft_wrap=True, highlight=False)
    if as_json:
        print(json.dumps(asdict(outcome), default=str))


def _columns(text: str | None) -> Values | None:
    from listflow.data.task import parse_columns

    return parse_columns(text).model_dump() if text else None


def _follow(backbone: str, sources: list[str], out: Path, values: Values, console: Console) -> AdaptOutcome:
    """The outcome of the training, watched on ``console``."""
    from listflow.pipeline.pretraining.adapt import adapt as train
    from listflow.pipeline.pretraining.learner import AdaptConfig

    try:
        config = AdaptConfig.model_validate(values)
    except ValidationError as error:
        raise refusal(error, AdaptConfig) from error
    with Count(console, "load the backbone and the texts") as count:

        def on_step(tick: AdaptTick) -> None:
            count.show(tick.step, tick.steps, "masked-LM training", f"loss {tick.loss:.3f}")

        return train(backbone, sources, out, config, on_step)
