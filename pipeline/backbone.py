"""One frozen masked language model, shared by every classifier of a run.

``Backbone.view()`` gives a new module tree around the same tensors, so teacher and student can each wrap the
modules of their own tree while the weights exist once in memory.
"""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from data.errors import InputError
from pipeline import minilm

Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True)
class Family:
    """Where the masked-LM classes of transformers keep the parts that stages and heads touch.

    Paths are from the masked-LM model; layer paths are from one layer. ``head_norm`` follows the activation. A block is
    a whole sub-layer: called with its input, or, where it ``closes_blocks``, with (what came out, the input).
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
_DEBERTA_HEAD: dict[str, Any] = {
    "head_dense": "lm_predictions.lm_head.dense",
    "head_norm": "lm_predictions.lm_head.LayerNorm",
    "head_activation": "lm_predictions.lm_head.transform_act_fn",
    "decoder_bias": "lm_predictions.lm_head.bias",
}

FAMILIES: dict[str, Family] = {
    "bert": Family("bert.encoder.layer", **_BERT_LAYER, **_BERT_HEAD),
    "roberta": Family(
        "roberta.encoder.layer",
        **_BERT_LAYER,
        head_dense="lm_head.dense",
        head_norm="lm_head.layer_norm",
        head_activation="gelu",
        decoder_bias="lm_head.bias",
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


class Backbone(nn.Module):
    """A frozen masked LM with its tokenizer. ``name`` is what the user asked for."""

    def __init__(self, model: Any, tokenizer: Any, name: str) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.name = name
        self.family = _family_of(model.config)

    @property
    def hidden_size(self) -> int:
        return int(self.model.config.hidden_size)

    @property
    def max_length(self) -> int:
        """Tokens that the position table holds; families with relative positions state their training length."""
        limit = int(self.model.config.max_position_embeddings)
        # RoBERTa counts positions from its padding id + 1.
        return limit - 2 if self.model.config.model_type in {"roberta", "xlm-roberta", "camembert"} else limit

    @property
    def device(self) -> torch.device:
        return self.word_rows.device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.layer(0).parameters()).dtype

    @property
    def word_rows(self) -> Tensor:
        """The (vocabulary, D) matrix that the masked-LM decoder is tied to."""
        return self.model.get_input_embeddings().weight

    @property
    def dtype_name(self) -> str:
        """``float32`` or ``bfloat16``: checksums compare only within one."""
        return str(self.dtype).removeprefix("torch.")

    def layer(self, index: int) -> nn.Module:
        return self.model.get_submodule(self.family.layers)[index]

    @property
    def n_layers(self) -> int:
        return len(self.model.get_submodule(self.family.layers))

    def parameter_count(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    def view(self) -> nn.Module:
        """A new encoder tree (no masked-LM head) around the very same tensors; safe to wrap modules in."""
        shared = {id(t): t for t in (*self.model.parameters(), *self.model.buffers())}
        return copy.deepcopy(self.model.base_model, memo=shared)

    @property
    def layers_in_view(self) -> str:
        """Path of the layer list inside ``view()``."""
        return self.family.layers.split(".", 1)[1]

    def checksum(self, dtype: torch.dtype | None = None) -> str:
        """sha256 over the bytes of every parameter, in name order, as if it were of ``dtype``."""
        total = hashlib.sha256()
        for name, parameter in sorted(self.model.named_parameters()):
            total.update(name.encode())
            total.update(
                parameter.detach().to(dtype or parameter.dtype).contiguous().view(torch.uint8).cpu().numpy().data
            )
        return total.hexdigest()


def load_backbone(name: str, precision: Precision = "auto", device: str = "auto") -> Backbone:
    """A frozen ``Backbone`` from ``minilm`` (embedded), a .safetensors update of it, a folder, or a hub id.

    Raises InputError when the folder or hub id cannot be read, has no masked-LM head that this project knows,
    or when a file of the embedded backbone is not the one it was made for.
    """
    update = Path(name).expanduser() if name.endswith(".safetensors") else None
    model, tokenizer = minilm.load(update) if name == "minilm" or update else _load_pretrained(name)
    where = torch.device(resolve_device(device))
    dtype = torch.bfloat16 if resolve_precision(precision, where.type) == "bf16" else torch.float32
    if where.type == "cpu":
        # On CPUs the fused attention kernel's backward is about twice as slow as plain matmuls at these lengths.
        model.set_attn_implementation("eager")
    return Backbone(model.to(device=where, dtype=dtype), tokenizer, name)


def resolve_precision(precision: Precision, device: str = "cpu") -> Literal["fp32", "bf16"]:
    """``auto`` is bf16 where the hardware multiplies it natively, else fp32."""
    if precision != "auto":
        return precision
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "fp32"


def resolve_device(device: str) -> str:
    """``auto`` is cuda where there is one, else cpu."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def _family_of(config: Any) -> Family:
    kind = config.model_type
    if kind == "deberta-v2" and not getattr(config, "legacy", True):
        kind = "deberta-v2-modern"
    if kind not in FAMILIES:
        known = ", ".join(sorted(k for k in FAMILIES if k != "deberta-v2-modern"))
        raise InputError(f"backbone of type '{config.model_type}' is not supported; use one of: {known}.")
    return FAMILIES[kind]


def _load_pretrained(name: str) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer

    hint = "pass a local folder with config, tokenizer and safetensors files, or --backbone minilm"
    if ("/" not in name or name.startswith((".", "/", "~"))) and not Path(name).expanduser().is_dir():
        raise InputError(f"backbone '{name}' is neither 'minilm' nor a folder nor a hub id (owner/name); {hint}.")
    where = str(Path(name).expanduser()) if Path(name).expanduser().is_dir() else name
    try:
        _family_of(AutoConfig.from_pretrained(where))
        model = AutoModelForMaskedLM.from_pretrained(where, use_safetensors=True, dtype=torch.float32)
        return model, AutoTokenizer.from_pretrained(where)
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        reason = str(error).strip().split("\n")[0]
        raise InputError(f"backbone '{name}' cannot be loaded ({reason}); {hint}.") from error
