"""``adapt``: continued masked-LM training of a backbone on plain text."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import ValidationError
from rich.console import Console
from typer import Argument, Option

from listflow.flows.cli.console import INTERRUPTED, fail
from listflow.flows.cli.options import AsJson, Verbose
from listflow.flows.counting import Count
from listflow.flows.environment import prepare
from listflow.flows.plain_console import plain_console
from listflow.flows.values import Values, given_values
from listflow.pipeline.config_errors import refusal

if TYPE_CHECKING:
    from listflow.pipeline.pretraining.adapt import AdaptOutcome, AdaptTick


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
    from listflow.pipeline.adapt_config import AdaptConfig
    from listflow.pipeline.pretraining.adapt import adapt as train

    try:
        config = AdaptConfig.model_validate(values)
    except ValidationError as error:
        raise refusal(error, AdaptConfig) from error
    with Count(console, "load the backbone and the texts") as count:

        def on_step(tick: AdaptTick) -> None:
            count.show(tick.step, tick.steps, "masked-LM training", f"loss {tick.loss:.3f}")

        return train(backbone, sources, out, config, on_step)
