"""A finished run as a folder of plain transformers files, with a README whose code needs nothing of this project."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from listflow.data.errors import InputError
from listflow.data.template import Part
from listflow.pipeline.backbone.prompt import Prompt
from listflow.pipeline.model.label_names import label_words
from listflow.pipeline.model.merge import check_mergeable, label_tokens, merge
from listflow.pipeline.results.finished import Finished
from listflow.pipeline.storage.checkpoint import write_json

CODE = """\
import json

import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

with open("listflow.json", encoding="utf-8") as file:
    card = json.load(file)
tokenizer = AutoTokenizer.from_pretrained(".")
model = AutoModelForMaskedLM.from_pretrained(".").eval()


def tokens(text):
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def encode({given}):
    pieces, room = card["pieces"], card["room"]
{encode}

@torch.inference_mode()
def probabilities(rows):
    batch = tokenizer.pad({{"input_ids": [encode(*row) for row in rows]}}, return_tensors="pt")
    at_mask = model(**batch).logits[batch["input_ids"] == tokenizer.mask_token_id]
    return at_mask[:, [label["token_id"] for label in card["labels"]]].softmax(-1)


def classify(rows):
    return [card["labels"][best]["label"] for best in probabilities(rows).argmax(-1).tolist()]


print(classify([{example}]))
"""
CUT_ONE = """\
    return pieces[0] + tokens({})[:room] + pieces[1]
"""
CUT_TWO = """\
    first, second = tokens({}), tokens({})
    first = first[: max(room // 2, room - len(second))]
    return pieces[0] + first + pieces[1] + second[: room - len(first)] + pieces[2]
"""
# As in ``data.task.MODIFIERS``, written out for someone who does not have them.
MODIFIED = {None: "{}", "drop_last": "{}[:-1]", "lower_first": "{0}[:1].lower() + {0}[1:]"}


def export(run_dir: str | Path, out: str | Path) -> None:
    """Writes the merged fp32 masked LM of a run, its tokenizer, listflow.json and README.md to the new folder ``out``.

    Its logits of the label words at the mask are the run's class logits. InputError where a trained part cannot be
    merged (see ``check_mergeable``), where ``out`` holds something already, and as ``Finished.open``.
    """
    out = Path(out)
    _check_new(out)
    run = Finished.open(run_dir)
    check_mergeable(run.stage, run.head, str(run_dir))
    backbone = run.load_backbone("fp32", "cpu")
    words, prompt = run.word_ids(backbone), run.prompt(backbone)
    tokens = label_tokens(words, backbone)
    merged = merge(run.classifier(backbone), backbone, words)
    with _aside(out) as folder:
        merged.model.save_pretrained(folder)
        merged.tokenizer.save_pretrained(folder)
        write_json(folder / "listflow.json", card_of(prompt, tokens))
        (folder / "README.md").write_text(readme(prompt), "utf-8")


def card_of(prompt: Prompt, tokens: Sequence[int]) -> dict[str, Any]:
    """listflow.json: the labels in class order with their words and ``tokens``, and the prompt around a text as ids."""
    task = prompt.task
    words = label_words(task, prompt.tokenizer)
    return {
        "format": 1,
        "task": task.name,
        "template": task.template,
        "lower": task.lower,
        "max_length": prompt.max_length,
        "labels": [
            {"label": label, "word": word, "token_id": token}
            for label, word, token in zip(task.labels, words, tokens, strict=True)
        ],
        "pieces": _pieces(prompt),
        "room": prompt.budget,
    }


def readme(prompt: Prompt) -> str:
    """README.md of the exported folder."""
    return f"""# {prompt.task.name}

A text classifier as a plain masked language model: the class is the label word that it finds likeliest at the mask.
listflow.json holds the labels, their words and the prompt. Run this in the folder:

```python
{usage(prompt)}```
"""


def usage(prompt: Prompt) -> str:
    """Python that defines ``probabilities`` and ``classify`` of rows of texts, with torch and transformers alone.

    It makes the tokens of a text and of the words around it apart, and cuts long texts, as ``Prompt`` does.
    """
    texts = [part for part in prompt.parts if part.kind in {"text", "pair"}]
    names = {"text": "text"} if len(texts) == 1 else {"text": "text_a", "pair": "text_b"}
    read = [_read(part, names[part.kind], prompt.task.lower) for part in texts]
    cut = CUT_ONE if len(texts) == 1 else CUT_TWO
    given = ", ".join(names.values())
    example = '("a text",)' if len(texts) == 1 else '("a text", "another text")'
    return CODE.format(given=given, encode=cut.format(*read), example=example)


def _pieces(prompt: Prompt) -> list[list[int]]:
    """The token ids before, between and after the texts."""
    pieces = [[prompt.start]]
    for place, part in enumerate(prompt.parts):
        if part.kind in {"text", "pair"}:
            pieces.append([])
        else:
            pieces[-1] += [prompt.tokenizer.mask_token_id] if part.kind == "mask" else prompt.fixed[place]
    pieces[-1].append(prompt.end)
    return pieces


def _read(part: Part, name: str, lower: bool) -> str:
    """The expression for what is tokenised of the text called ``name``."""
    changed = MODIFIED[part.modifier].format(name)
    changed = f"({changed}).lower()" if lower else changed
    return f"{part.value!r} + {changed}" if part.value else changed


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
