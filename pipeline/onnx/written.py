"""A module of ``graphs.py`` as a file, which is kept only where it gives what the view that it was made of gives."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from listflow.data.errors import InputError, shortened
from listflow.data.task import Task
from listflow.pipeline.backbone.batch import Encoded
from listflow.pipeline.backbone.prompt import Prompt, Text
from listflow.pipeline.backbone.text_face import TextFace
from listflow.pipeline.model.classifier import logits_of
from listflow.pipeline.model.committee import View

OPSET = 18
AT_MOST = 1e-4  # in a probability
# Of unlike lengths, the longest beyond what any backbone reads; with letters and signs that few tokenizers know.
SAMPLES = ("a", "it was not what I hoped for, \u00e9t\u00e9 \U0001f600 \u4e2d", "", "a word and another . " * 900)
SECOND = "second_"
AXES = ({0: "rows", 1: "tokens"}, {0: "rows", 1: "second_tokens"})


def write_graph(graph: nn.Module, view: View, path: Path, task: Task, temperature: float) -> None:
    """Writes ``graph`` to ``path``, with any number of rows and of tokens; the same bytes for the same graph.

    InputError where this torch has no ONNX for a part of it, or where onnxruntime finds other probabilities than
    ``view`` at ``temperature``, by more than 1e-4.
    """
    pairs = zip(SAMPLES, reversed(SAMPLES), strict=True)
    texts: list[Text] = [(text, other if task.is_pair else None) for text, other in pairs]
    try:
        _trace(graph.eval(), inputs_of(view.encoder, texts[:2]), path)
    except (RuntimeError, TypeError) as error:
        raise InputError(_no_graph(view, f"torch {torch.__version__}: {_first_line(error)}")) from error
    expected = (logits_of(view.model, view.encoder.encode(texts)) / temperature).softmax(-1)
    try:
        # In batches that it was not traced with: what was taken for fixed there shows here.
        found = torch.cat([run(path, inputs_of(view.encoder, part)) for part in (texts[:1], texts[1:])]).softmax(-1)
    except Exception as error:  # those of onnxruntime have no other kind in common
        raise InputError(_no_graph(view, f"onnxruntime: {_first_line(error)}")) from error
    off = float((found - expected).abs().max())
    if not off <= AT_MOST:
        raise InputError(_no_graph(view, f"onnxruntime finds other probabilities, by up to {off:.1g}"))


def inputs_of(encoder: Prompt | TextFace, texts: Sequence[Text]) -> dict[str, Tensor]:
    """The inputs of a graph by name, each (N, T) int64: of texts under a prompt, or of single texts or pairs."""
    if isinstance(encoder, Prompt):
        encoded = [encoder.encode(texts)]
    else:
        parts = [[text for text, _ in texts], [pair for _, pair in texts if pair is not None]]
        encoded = [encoder.tokens(part) for part in parts if part]
    named = zip(("", SECOND), encoded, strict=False)
    return {name: tensor for prefix, each in named for name, tensor in _named(prefix, each).items()}


def run(path: Path, given: dict[str, Tensor]) -> Tensor:
    """(N, C) logits that onnxruntime finds."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found: list[np.ndarray] = session.run(None, {name: tensor.numpy() for name, tensor in given.items()})
    return torch.from_numpy(found[0])


@torch.no_grad()
def _trace(graph: nn.Module, given: dict[str, Tensor], path: Path) -> None:
    axes = {name: AXES[name.startswith(SECOND)] for name in given} | {"logits": {0: "rows"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what may be taken for fixed
        # The older of torch's two exporters: a tenth of the time, and the same bytes every time.
        torch.onnx.export(
            graph, tuple(given.values()), str(path), dynamo=False, opset_version=OPSET, input_names=list(given),
            output_names=["logits"], dynamic_axes=axes,
        )  # fmt: skip


def _named(prefix: str, encoded: Encoded) -> dict[str, Tensor]:
    batch = encoded.batch(range(len(encoded)))
    return {f"{prefix}input_ids": batch.ids, f"{prefix}attention_mask": batch.attention}


def _first_line(error: Exception) -> str:
    return shortened((str(error).splitlines() or [type(error).__name__])[0], 200)


def _no_graph(view: View, why: str) -> str:
    kind = "prompt" if isinstance(view.encoder, Prompt) else "text"
    return (
        f"the {kind} view has no form as ONNX here ({why}); use --format transformers, or the run as it is with "
        "`listflow predict`."
    )
