"""The layers of an encoder on the tokens of all texts in a row: the padding of shorter texts costs nothing.

The modules are those of the encoder, with all that stages have put around them. Only self-attention must know where a
text ends; its module (``attention.py``) is told by ``Seats``. A recording tape must know too, as it gives every text a
gradient of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from listflow.pipeline.backbone.backbone import Backbone
from listflow.pipeline.layers.attention import OnlyMask, opened
from listflow.pipeline.layers.seats import TOKENS_STEP, VECTOR, Seats, seatable
from listflow.pipeline.method import tape


@dataclass(frozen=True)
class InARow:
    """How to run a view of a backbone, or of its upper layers: where the layers are, and what attention is laid out to.

    It holds no module, so that a functional copy of a model runs its own.
    """

    layers_in_view: str
    multiple: int
    grouped: bool

    @staticmethod
    def of(view: nn.Module | None, backbone: Backbone) -> InARow | None:
        """For ``view``, whose attention is written out now; None without one, for a family of another shape, on a GPU.

        There rows of one length are faster.
        """
        if view is None or not seatable(backbone) or backbone.device.type != "cpu":
            return None
        layers = view.get_submodule(backbone.layers_in_view).children()
        attentions = [opened(layer.layer if isinstance(layer, OnlyMask) else layer, backbone) for layer in layers]
        # What a stage adds to attention heads keeps a copy of its tensors for every text of the batch.
        grouped = not any(len(attention.extras) for attention in attentions)
        return InARow(backbone.layers_in_view, VECTOR.get(backbone.dtype, 16), grouped)

    def run(
        self, view: Any, attention: Tensor, visible: Tensor | None, mask_at: Tensor | None = None, **given: Tensor
    ) -> Tensor:
        """The last layer's output, (B, T, D) and 0 at padding, or (B, 1, D) at the places ``mask_at`` (B,).

        ``given`` are the ``input_ids`` (B, T) or the ``inputs_embeds`` (B, T, D); ``attention`` (B, T) are the real
        tokens, and ``visible`` those of them that may be looked at, if not all.
        """
        seats = Seats.of(attention, self.multiple, visible, self.grouped)
        hidden = seats.tokens(embedded(view, **given)).unsqueeze(0)
        tape.in_a_row(attention.sum(1), TOKENS_STEP)
        *below, last = view.get_submodule(self.layers_in_view).children()
        for layer in below:
            hidden = layer(hidden, seats)
        if mask_at is None:
            return seats.padded(last(hidden, seats)[0])
        found: Tensor = last(hidden, seats, mask_at=mask_at)
        return found


def embedded(view: Any, **given: Tensor) -> Tensor:
    """(B, T, D): what the first layer of ``view`` reads, of ``input_ids`` (B, T) or ``inputs_embeds`` (B, T, E)."""
    hidden: Tensor = view.embeddings(**given)
    return view.embeddings_project(hidden) if hasattr(view, "embeddings_project") else hidden
