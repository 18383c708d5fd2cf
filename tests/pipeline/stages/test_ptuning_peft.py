"""The prompt encoder of peft and ours: the same weights give the same pseudo tokens, and those the same logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pseudo_token_models import TEXTS, build, logits
from tiny import CONFIGS, tiny_backbone
from torch import Tensor, nn

from listflow.pipeline.backbone.prompt import Prompt
from listflow.pipeline.model.classifier import Classifier

TOKENS, D = 5, 32
# Their LSTM has a head of 2h, 2h and d, ours of 2h, d and d: the same where 2h = d, which is our default.
SHAPES: dict[str, dict[str, Any]] = {
    "MLP": {"encoder": "mlp", "hidden": 24, "depth": 3},
    "LSTM": {"encoder": "lstm"},
}


def theirs(kind: str) -> Any:
    peft = pytest.importorskip("peft")
    torch.manual_seed(7)
    config = peft.PromptEncoderConfig(
        num_virtual_tokens=TOKENS, token_dim=D, num_transformer_submodules=1, encoder_reparameterization_type=kind,
        encoder_hidden_size=24 if kind == "MLP" else D // 2, encoder_dropout=0.0,
    )  # fmt: skip
    return peft.PromptEncoder(config).eval()


@torch.no_grad()
def copied(encoder: Any, kind: str, family: str = "bert") -> tuple[Classifier, Prompt]:
    """Our classifier with the weights of their encoder."""
    model, prompt = build(family, tokens=TOKENS, **SHAPES[kind])
    ours = model.stage[0]
    ours.embedding.copy_(encoder.embedding.weight)
    mlp = ours.encoder if kind == "MLP" else ours.encoder[-1]
    for mine, other in zip(mlp, encoder.mlp_head, strict=True):
        mine.load_state_dict(other.state_dict())
    if kind == "LSTM":
        for layer, lstm in enumerate(ours.encoder[:-1]):
            for direction, suffix in enumerate(("", "_reverse")):
                part = {name: getattr(encoder.lstm_head, f"{name}_l{layer}{suffix}") for name in _PARTS}
                lstm.weight_in[direction].copy_(part["weight_ih"].T)
                lstm.weight_hidden[direction].copy_(part["weight_hh"].T)
                lstm.bias[direction].copy_(part["bias_ih"] + part["bias_hh"])
    return model, prompt


_PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


@torch.no_grad()
def vectors(encoder: nn.Module) -> Tensor:
    return encoder(torch.arange(TOKENS).unsqueeze(0))[0]


@pytest.mark.parametrize("kind", SHAPES)
def test_the_same_weights_give_the_same_pseudo_tokens(kind: str) -> None:
    encoder = theirs(kind)
    model, _ = copied(encoder, kind)
    found = model.stage[0].flat()[1]["embedding"]
    torch.testing.assert_close(found, vectors(encoder), rtol=1e-5, atol=1e-6)
    assert found.std() > 1e-3
    fresh, _ = build(tokens=TOKENS, **SHAPES[kind])
    assert (fresh.stage[0].flat()[1]["embedding"] - found).abs().max() > 1e-2
    assert sum(p.numel() for p in model.stage.parameters()) == sum(
        p.numel() for name, p in encoder.named_parameters() if "bias_hh" not in name
    )


@pytest.mark.parametrize("family", [name for name in CONFIGS if name != "electra"])  # its embeddings are narrower
@pytest.mark.parametrize("kind", SHAPES)
def test_their_pseudo_tokens_at_our_places_give_our_logits(kind: str, family: str) -> None:
    """peft puts its tokens before everything; fed through the whole masked LM where ours stand, label words agree."""
    encoder = theirs(kind)
    model, prompt = copied(encoder, kind, family)
    batch, backbone = prompt.encode(TEXTS).batch(range(len(TEXTS))), tiny_backbone(family)
    embeds = backbone.model.get_input_embeddings()(batch.ids.clamp(min=0)).clone()
    soft = batch.ids < 0
    embeds[soft] = vectors(encoder)[-1 - batch.ids[soft]]
    with torch.no_grad():
        whole = backbone.model(inputs_embeds=embeds, attention_mask=batch.attention).logits
    words = backbone.tokenizer.convert_tokens_to_ids(["bad", "good", "fine"])
    expected = whole[torch.arange(len(batch)), batch.mask_at][:, words]
    torch.testing.assert_close(logits(model, prompt), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", SHAPES)
def test_gradients_agree_too(kind: str) -> None:
    """Of one loss on the pseudo tokens, tensor by tensor where the two have the same one."""
    encoder = theirs(kind)
    model, _ = copied(encoder, kind)
    towards = torch.randn(TOKENS, D, generator=torch.Generator().manual_seed(1))
    ours = model.stage[0]
    (ours(towards.unsqueeze(0))[0] * towards).sum().backward()
    (encoder(torch.arange(TOKENS).unsqueeze(0))[0] * towards).sum().backward()
    torch.testing.assert_close(ours.embedding.grad, encoder.embedding.weight.grad, rtol=1e-4, atol=1e-6)
    mlp = ours.encoder if kind == "MLP" else ours.encoder[-1]
    for mine, other in zip(mlp.parameters(), encoder.mlp_head.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-6)


def test_the_depth_is_that_of_an_mlp_alone() -> None:
    with pytest.raises(ValueError, match="depth belongs to encoder mlp"):
        build(encoder="lstm", depth=3)
