"""A finished run as a folder of plain transformers files, which needs nothing of this project."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from listflow.data.errors import InputError
from listflow.pipeline.finished import Finished
from listflow.pipeline.mergeable import check_mergeable
from listflow.pipeline.model.merge import merge
from listflow.pipeline.plain_usage import card_of, readme
from listflow.pipeline.storage.checkpoint import write_json


def export(run_dir: str | Path, out: str | Path) -> None:
    """Writes the merged fp32 masked LM of a run, its tokenizer, listflow.json and README.md to the new folder ``out``.

    Its logits of the label words at the mask are the run's class logits. InputError where a trained part cannot be
    merged (see ``mergeable``), where ``out`` holds something already, and as ``Finished.open``.
    """
    out = Path(out)
    _check_new(out)
    run = Finished.open(run_dir)
    check_mergeable(run.stage, run.head, str(run_dir))
    backbone = run.load_backbone("fp32", "cpu")
    words, prompt = run.word_ids(backbone), run.prompt(backbone)
    merged = merge(run.classifier(backbone), backbone, words)
    with _aside(out) as folder:
        merged.model.save_pretrained(folder)
        merged.tokenizer.save_pretrained(folder)
        write_json(folder / "listflow.json", card_of(prompt, words))
        (folder / "README.md").write_text(readme(prompt), "utf-8")


def _check_new(out: Path) -> None:
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"{out} exists and is not an empty folder; choose another --output, or move it away.")


@contextmanager
def _aside(out: Path) -> Iterator[Path]:
    """A folder to fill, which appears at ``out`` at the end of the block: never half of it."""
    whole = out.resolve()
    aside = whole.with_name(f".{whole.name}.part")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        yield aside
        os.replace(aside, whole)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise InputError(f"cannot write {out} ({error}); make room for it or choose another --output.") from error
