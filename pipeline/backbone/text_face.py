"""The text face of a backbone: the sentence embedding of the bare text, by the encoder as its makers left it.

Nothing is trained through it, so that a text is one vector, computed once: of a pair, what both embeddings have in
common and what not (pooling.joined). With ``middle`` the mean of the middle layer's tokens stands beside the embedding
of a single text: what the last layers drop, such as how a question begins. The other face is the masked LM at the mask
under the prompt (prompt.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from listflow.pipeline.backbone.backbone import Backbone
from listflow.pipeline.backbone.batch import Batch, Encoded, Tally, one_vector_each
from listflow.pipeline.backbone.pooling import Pooling, joined, read_pooling
from listflow.pipeline.backbone.prompt import Text
from listflow.pipeline.method.sampling import by_length, tokens_at_once

TOKENS_A_BATCH = 2048
BESIDE = Pooling()  # of the middle layer, whatever the last one is read as


class TextFace:
    """Texts, or pairs of texts, to vectors: ``encoder`` and ``pooling`` on at most ``max_length`` tokens of each."""

    def __init__(
        self, encoder: nn.Module, tokenizer: Any, pooling: Pooling, max_length: int, middle: bool = False
    ) -> None:
        self.encoder = encoder.eval().requires_grad_(False)
        self.hidden_size: int = encoder.config.hidden_size  # type: ignore[union-attr, assignment]
        self.tokenizer = tokenizer
        self.pooling = pooling
        self.middle = middle
        self.met = Tally()  # of all texts that were read
        self.max_length = min(max_length, pooling.max_length or max_length)

    @property
    def device(self) -> torch.device:
        """Where its encoder is."""
        return next(self.encoder.parameters()).device

    def width(self, is_pair: bool) -> int:
        """F, the size of the vector of a row."""
        hidden = self.hidden_size
        return 1 + 3 * hidden if is_pair else hidden * (1 + self.middle)

    def tokens(self, texts: Sequence[str]) -> Encoded:
        """The token ids of single texts, cut, between the special tokens."""
        pooling, tokenizer = self.pooling, self.tokenizer
        start, end = tokenizer.cls_token_id, tokenizer.sep_token_id
        given = [pooling.prefix + (text.lower() if pooling.lower else text) for text in texts]
        # A text that spells a special token such as "[MASK]" must stay text.
        found = tokenizer(
            given, add_special_tokens=False, split_special_tokens=True, return_attention_mask=False, verbose=False
        )["input_ids"]
        rows = [[start, *ids[: self.max_length - 2], end] for ids in found]
        lengths = [len(ids) for ids in rows]
        flat = np.fromiter((i for ids in rows for i in ids), dtype=np.int32, count=sum(lengths))
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        self.met.meet(flat, len(rows), (start, end), tokenizer.unk_token_id)
        return Encoded(flat, offsets, np.zeros(len(rows), dtype=np.int32), tokenizer.pad_token_id)

    def vectors(self, texts: Sequence[Text], on_rows: Callable[[int], None] = lambda rows: None) -> Tensor:
        """(N, F) fp32 on the CPU, one row a text or pair."""
        first = self.embed(self.tokens([text for text, _ in texts]))
        if all(pair is None for _, pair in texts):
            on_rows(len(texts))
            return first
        second = self.embed(self.tokens([pair or "" for _, pair in texts]))
        on_rows(len(texts))
        return joined(first, second)

    def encode(self, texts: Sequence[Text]) -> Encoded:
        """All ``texts`` in memory, as a classifier takes them."""
        return one_vector_each(self.vectors(texts).numpy())

    @torch.inference_mode()
    def embed(self, encoded: Encoded) -> Tensor:
        """(N, D) fp32 sentence embeddings, on the CPU; (N, 2 D) with the middle layer's unit vectors beside them."""
        found = torch.empty(len(encoded), self.width(is_pair=False))
        for rows in by_length(encoded.lengths(), tokens_at_once(self.device.type, TOKENS_A_BATCH)):
            found[torch.from_numpy(rows)] = self.embed_batch(encoded.batch(rows).to(self.device)).cpu()
        return found

    def embed_batch(self, batch: Batch) -> Tensor:
        """(B, D) or (B, 2 D), as ``embed``, where the batch is."""
        said = self.encoder(
            input_ids=batch.ids, attention_mask=batch.attention, output_hidden_states=self.middle, return_dict=True
        )
        found = self.pooling.pool(said.last_hidden_state, batch.attention)
        if not self.middle:
            return found
        layers = said.hidden_states
        return torch.cat([found, BESIDE.pool(layers[len(layers) // 2], batch.attention)], dim=-1)

    def checksum(self) -> str:
        """sha256 over the encoder's parameters as bfloat16, and how they are pooled."""
        total = hashlib.sha256(self.pooling.model_dump_json().encode())
        for name, parameter in self._parameters():
            total.update(name.encode())
            total.update(parameter.detach().to(torch.bfloat16).contiguous().view(torch.uint8).cpu().numpy().data)
        return total.hexdigest()

    def _parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return iter(sorted(self.encoder.named_parameters()))


class SharedFace(TextFace):
    """A text face that several classifiers read: for the texts that it was asked for last it is not run again."""

    def __init__(self, face: TextFace) -> None:
        super().__init__(face.encoder, face.tokenizer, face.pooling, face.max_length, face.middle)
        self._last: tuple[list[Text], Encoded] | None = None

    def encode(self, texts: Sequence[Text]) -> Encoded:
        """All ``texts`` in memory, as a classifier takes them."""
        last, asked = self._last, list(texts)
        if last is None or last[0] != asked:
            last = self._last = (asked, super().encode(asked))
        return last[1]


def text_face_of(backbone: Backbone, max_length: int, middle: bool = False) -> TextFace:
    """The text face of ``backbone``, which reads ``max_length`` tokens at most, or as many as its makers say.

    With ``middle`` it reads the middle layer of single texts, too.

    InputError where its sentence files are damaged.
    """
    limit = min(max_length, backbone.max_length)
    return TextFace(backbone.untouched, backbone.tokenizer, read_pooling(backbone.name), limit, middle)
