"""``export``: a finished run as a plain transformers model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

from listflow.flows.cli.options import Verbose
from listflow.flows.cli.run import RunFolder
from listflow.flows.environment import prepare
from listflow.flows.plain_console import plain_console


def export(
    folder: RunFolder,
    output: Annotated[Path, Option(help="A new folder for the model.")],
    verbose: Verbose = False,
) -> None:
    """Merge a run's final model into a plain transformers folder."""
    prepare(verbose)
    from listflow.pipeline.results.export import export as write

    with plain_console(stderr=True).status("merge the model"):
        write(folder, output)
    said = f"plain model in {output}; the code to use it is in {output / 'README.md'}"
    plain_console().print(said, soft_wrap=True, highlight=False)
