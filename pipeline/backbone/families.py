"""The backbone families that stages and heads know their way around in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from listflow.data.errors import InputError


@dataclass(frozen=True)
class Family:
    """Where the masked-LM classes of transformers keep the parts that stages and heads touch.

    Paths are from the masked-LM model; layer paths are from one layer. ``head_norm`` follows the activation. A block is
    a whole sub-layer: called with its input, or, where it ``closes_blocks``, with (what came out, the input).

    Where ``own`` says so, stages see layers of BERT's shape around the tensors of the family's own (``layers.py``): all
    paths of a layer are BERT's, and ``own`` has the family's for those that differ. ``shares_layers``: one layer is run
    many times. ``counts_from_pad``: the first position is the one behind that of the padding token.
    """

    layers: str
    attention_output: str
    ffn_output: str
    attention_block: str
    ffn_block: str
    head_dense: str
    head_norm: str
    head_activation: str
    decoder_bias: str
    attention_query: str | None = None
    attention_key: str | None = None
    attention_value: str | None = None
    ffn_intermediate: str | None = None
    closes_blocks: bool = False
    own: Mapping[str, str] = field(default_factory=dict)
    shares_layers: bool = False
    counts_from_pad: bool = False


def family_of(config: Any) -> Family:
    """The family of a transformers configuration; InputError for one that this project does not know."""
    kind = config.model_type
    if kind == "deberta-v2" and not getattr(config, "legacy", True):
        kind = "deberta-v2-modern"
    if kind not in FAMILIES:
        known = ", ".join(sorted(k for k in FAMILIES if k != "deberta-v2-modern"))
        raise InputError(f"backbone of type '{config.model_type}' is not supported; use one of: {known}.")
    return FAMILIES[kind]


_CLOSING_BLOCKS: dict[str, Any] = {
    "attention_output": "attention.output.dense",
    "ffn_output": "output.dense",
    "attention_block": "attention.output",
    "ffn_block": "output",
    "ffn_intermediate": "intermediate.dense",
    "closes_blocks": True,
}
_BERT_LAYER: dict[str, Any] = _CLOSING_BLOCKS | {
    f"attention_{name}": f"attention.self.{name}" for name in ("query", "key", "value")
}
# DeBERTa's query and key also project relative positions, which are no part of any one text.
_DEBERTA_LAYER: dict[str, Any] = _CLOSING_BLOCKS | {"attention_value": "attention.self.value_proj"}
_BERT_HEAD: dict[str, Any] = {
    "head_dense": "cls.predictions.transform.dense",
    "head_norm": "cls.predictions.transform.LayerNorm",
    "head_activation": "cls.predictions.transform.transform_act_fn",
    "decoder_bias": "cls.predictions.bias",
}
_ROBERTA_HEAD: dict[str, Any] = {
    "head_dense": "lm_head.dense",
    "head_norm": "lm_head.layer_norm",
    "head_activation": "gelu",
    "decoder_bias": "lm_head.bias",
}
_DEBERTA_HEAD: dict[str, Any] = {
    "head_dense": "lm_predictions.lm_head.dense",
    "head_norm": "lm_predictions.lm_head.LayerNorm",
    "head_activation": "lm_predictions.lm_head.transform_act_fn",
    "decoder_bias": "lm_predictions.lm_head.bias",
}

_ROBERTA = Family("roberta.encoder.layer", **_BERT_LAYER, **_ROBERTA_HEAD, counts_from_pad=True)
_MPNET_OWN = {f"attention.self.{name}": f"attention.attn.{name[0]}" for name in ("query", "key", "value")} | {
    "attention.output.dense": "attention.attn.o",
    "attention.output.LayerNorm": "attention.LayerNorm",
}
_ALBERT_OWN = {f"attention.self.{name}": f"attention.{name}" for name in ("query", "key", "value")} | {
    "attention.output.dense": "attention.dense",
    "attention.output.LayerNorm": "attention.LayerNorm",
    "intermediate.dense": "ffn",
    "output.dense": "ffn_output",
    "output.LayerNorm": "full_layer_layer_norm",
}

FAMILIES: dict[str, Family] = {
    "bert": Family("bert.encoder.layer", **_BERT_LAYER, **_BERT_HEAD),
    "ernie": Family("ernie.encoder.layer", **_BERT_LAYER, **_BERT_HEAD),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "mpnet": Family("mpnet.encoder.layer", **_BERT_LAYER, **_ROBERTA_HEAD, own=_MPNET_OWN, counts_from_pad=True),
    "albert": Family(
        "albert.encoder.albert_layer_groups",
        **_BERT_LAYER,
        head_dense="predictions.dense",
        head_norm="predictions.LayerNorm",
        head_activation="predictions.activation",
        decoder_bias="predictions.bias",
        own=_ALBERT_OWN,
        shares_layers=True,
    ),
    "distilbert": Family(
        "distilbert.transformer.layer",
        attention_output="attention.out_lin",
        ffn_output="ffn.lin2",
        attention_block="attention",
        ffn_block="ffn",
        attention_query="attention.q_lin",
        attention_key="attention.k_lin",
        attention_value="attention.v_lin",
        ffn_intermediate="ffn.lin1",
        head_dense="vocab_transform",
        head_norm="vocab_layer_norm",
        head_activation="activation",
        decoder_bias="vocab_projector.bias",
    ),
    "deberta-v2": Family("deberta.encoder.layer", **_DEBERTA_LAYER, **_BERT_HEAD),
    "deberta-v2-modern": Family("deberta.encoder.layer", **_DEBERTA_LAYER, **_DEBERTA_HEAD),
    "electra": Family(
        "electra.encoder.layer",
        **_BERT_LAYER,
        head_dense="generator_predictions.dense",
        head_norm="generator_predictions.LayerNorm",
        head_activation="generator_predictions.activation",
        decoder_bias="generator_lm_head.bias",
    ),
    "modernbert": Family(
        "model.layers",
        attention_output="attn.Wo",
        ffn_output="mlp.Wo",
        attention_block="attn",
        ffn_block="mlp",
        head_dense="head.dense",
        head_norm="head.norm",
        head_activation="head.act",
        decoder_bias="decoder.bias",
    ),
}
