"""Pseudo tokens act like words, train alone, need no encoder in the end, and have the encoders of peft."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from meta_step import step_of
from pseudo_token_models import ENCODERS, TASK, TEXTS, build, logits, plain
from tiny import CONFIGS, tiny_backbone, tiny_overlay
from torch import Tensor, nn

from listflow.data.errors import InputError
from listflow.pipeline.backbone.prompt import Prompt
from listflow.pipeline.method.reweight import ENGINES, kl
from listflow.pipeline.model.classifier import Classifier, flat, logits_of
from listflow.pipeline.model.config import AnyHead, LinearHead, VerbalizerHead, YTuningHead
from listflow.pipeline.model.verbalizer import label_word_ids
from listflow.pipeline.results.predictor import Predictor
from listflow.pipeline.run.config import RunConfig
from listflow.pipeline.run.opening import open_run
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.self_training import self_train
from listflow.pipeline.stages.presets import pseudo_tokens, stages
from listflow.pipeline.stages.ptuning import BiLSTM
from listflow.pipeline.storage.checkpoint import load_tensors, read_json
from listflow.pipeline.training.plan import make_plan
from listflow.pipeline.training.rounds import load_model
from listflow.pipeline.training.trainer import Material, Recipe, Trainer

PEFT_TOKENS, PEFT_SIZE = 5, 32
# Their LSTM has a head of 2h, 2h and d, ours of 2h, d and d: the same where 2h = d, which is our default.
SHAPES: dict[str, dict[str, Any]] = {
    "MLP": {"encoder": "mlp", "hidden": 24, "depth": 3},
    "LSTM": {"encoder": "lstm"},
}
_PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def test_more_words_than_tokens_are_refused() -> None:
    with pytest.raises(InputError, match=r"raise stage\.tokens"):
        build(start="words", words="it was a film")


def test_a_preset_with_layers_can_be_overlaid_by_a_stage_without() -> None:
    for name in ("ptuning", "soft_prompt", "none"):
        assert build_config("fast", {"stage": name}).stage == stages(name)


@pytest.mark.parametrize("family", CONFIGS)
def test_vectors_of_real_words_act_as_those_words(family: str) -> None:
    """The logits of a soft prompt from words are those of the prompt with these words, to the last bit."""
    model, prompt = build(family, "{text} {mask} .", encoder="none", start="words", words="it was not")
    without, spelled = plain(family, "{text} it was not {mask} .")
    found = logits(model, prompt)
    assert torch.equal(found, logits(model, spelled))
    # Without a tuned layer the last one runs at every token, whose sums round in another order.
    torch.testing.assert_close(found, logits(without, spelled), rtol=1e-5, atol=1e-6)


def test_too_few_words_are_repeated() -> None:
    model, prompt = build(template="{text} {mask} .", encoder="none", start="words", words="it was")
    assert torch.equal(logits(model, prompt), logits(model, plain("bert", "{text} it was it {mask} .")[1]))


@pytest.mark.parametrize("family", CONFIGS)
def test_padding_and_company_do_not_change_a_row(family: str) -> None:
    model, prompt = build(family)
    encoded = prompt.encode(TEXTS)
    with torch.no_grad():
        alone = torch.cat([model(encoded.batch([i])) for i in range(3)])
    torch.testing.assert_close(logits(model, prompt), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_tensor_of_the_stage_and_no_frozen_one_gets_a_gradient(encoder: str) -> None:
    model, prompt = build(encoder=encoder)
    model(prompt.encode(TEXTS).batch(range(3))).logsumexp(-1).sum().backward()
    moved = {id(p) for p in model.parameters() if p.grad is not None and p.grad.any()}
    assert moved == {id(p) for p in model.tunable().values()}
    assert len(list(model.stage.parameters())) == {"lstm": 1 + 2 * 3 + 4, "mlp": 1 + 4, "none": 1}[encoder]


def test_the_written_out_lstm_is_torchs() -> None:
    ours = BiLSTM(6, 5, torch.Generator().manual_seed(0))
    theirs = nn.LSTM(6, 5, bidirectional=True)
    with torch.no_grad():
        for i, suffix in enumerate(("", "_reverse")):
            getattr(theirs, f"weight_ih_l0{suffix}").copy_(ours.weight_in[i].T)
            getattr(theirs, f"weight_hh_l0{suffix}").copy_(ours.weight_hidden[i].T)
            getattr(theirs, f"bias_ih_l0{suffix}").copy_(ours.bias[i, 0])
            getattr(theirs, f"bias_hh_l0{suffix}").zero_()
    x = torch.randn(7, 6, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ours(x), theirs(x)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_start_is_of_the_size_of_word_embeddings(encoder: str) -> None:
    model, _ = build(tokens=32, encoder=encoder)
    _, tensors = model.stage[0].flat()
    assert 0.1 < tensors["embedding"].std() / tiny_backbone().word_rows.std() < 10


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("engine", ["fused", "jvp"])
def test_engine_equals_the_unrolled_step(family: str, engine: str) -> None:
    _engine_equals_higher(family, engine, "lstm")


@pytest.mark.parametrize("encoder", ["mlp", "none"])
@pytest.mark.parametrize("engine", ["fused", "jvp"])
def test_engine_equals_the_unrolled_step_with_other_encoders(encoder: str, engine: str) -> None:
    _engine_equals_higher("bert", engine, encoder)


def _engine_equals_higher(family: str, engine: str, encoder: str) -> None:
    model, prompt = build(family, encoder=encoder)
    parameters = list(model.tunable().values())
    step = step_of(prompt, seed=5)
    expected = ENGINES["higher"](model, parameters, step)
    theirs = torch.cat([p.grad.flatten() for p in parameters])
    found = ENGINES[engine](model, parameters, step)
    ours = torch.cat([p.grad.flatten() for p in parameters])
    assert not expected.uniform
    for a, b in ((found.scores, expected.scores), (found.weights, expected.weights), (ours, theirs)):
        assert torch.linalg.norm(a - b) <= 1e-5 * torch.linalg.norm(b)


@pytest.mark.parametrize("head", [LinearHead(), YTuningHead(width=16)])
def test_engines_agree_with_other_heads_and_stages(head: AnyHead) -> None:
    backbone = tiny_backbone()
    chosen = stages(["ptuning", {"kind": "list", "width": 4, "init_std": 0.1, "place": ["embeddings", "ffn_output"]}])
    words = label_word_ids(TASK, backbone.tokenizer)
    model = Classifier(backbone, chosen, head, words)
    step = step_of(Prompt(TASK, backbone.tokenizer, 48, pseudo_tokens(chosen)), seed=3)
    expected, *found = (ENGINES[e](model, list(model.tunable().values()), step) for e in ("higher", "fused", "jvp"))
    for one in found:
        assert torch.linalg.norm(one.scores - expected.scores) <= 1e-5 * torch.linalg.norm(expected.scores)


@pytest.mark.parametrize("family", CONFIGS)
def test_training_moves_every_tensor_of_the_stage_and_never_the_backbone(family: str) -> None:
    backbone = tiny_backbone(family)
    before, chosen = backbone.checksum(), stages("ptuning", tokens=3)
    words = label_word_ids(TASK, backbone.tokenizer)
    teacher, student = (Classifier(backbone, chosen, VerbalizerHead(), words, seed) for seed in (1, 2))
    prompt = Prompt(TASK, backbone.tokenizer, 32, pseudo_tokens(chosen))
    encoded, taught, start = prompt.encode(TEXTS), logits(teacher, prompt), student.tensors()
    phases = (("labelled", 2), ("warmup", 2), ("reweighted", 2), ("tail", 1))
    recipe = Recipe(phases, learning_rate=0.05, batch=2, labelled_batch=2, meta_batch=2)
    Trainer(student, recipe, Material(encoded, torch.tensor([0, 1, 2]), encoded, taught.softmax(-1))).run()
    assert backbone.checksum() == before
    assert torch.equal(logits(teacher, prompt), taught)
    assert all(not torch.equal(value, start[name]) for name, value in student.tensors().items())


def test_scores_are_dots_over_the_stage_too() -> None:
    """One example at a time by plain autograd, in the space of the encoder's own tensors."""
    model, prompt = build()
    step = step_of(prompt, seed=1, unlabelled=4)
    mine = list(model.stage.parameters())
    towards = torch.autograd.grad(nn.functional.cross_entropy(model(step.labelled), step.gold), mine)
    losses = kl(step.soft, model(step.unlabelled))
    dots = [
        sum((a * b).sum() for a, b in zip(torch.autograd.grad(x, mine, retain_graph=True), towards, strict=True))
        for x in losses
    ]
    model.head.requires_grad_(False)
    found = ENGINES["fused"](model, mine, step).scores
    torch.testing.assert_close(found, torch.stack(dots), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_flat_model_gives_equal_logits_without_the_encoder(family: str, encoder: str) -> None:
    model, prompt = build(family, encoder=encoder)
    chosen, tensors = flat(model, stages("ptuning", tokens=3, encoder=encoder))
    bare, bare_prompt = build(family, **chosen[0].model_dump(exclude={"kind"}))
    bare.load(tensors)
    assert [name for name in tensors if name.startswith("stage")] == ["stage.0.embedding"]
    assert torch.equal(logits(bare, bare_prompt), logits(model, prompt))


@pytest.fixture(scope="module", params=["ptuning", "soft_prompt"])
def finished(
    request: pytest.FixtureRequest, tiny_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, np.ndarray, str]:
    """The folder of a run of two rounds, and what its last student gives for ``TEXTS``."""
    config = _config(tiny_files, tmp_path_factory.mktemp("runs") / "run", request.param)
    report = self_train(config)
    assert len(report.rounds) == 2
    with open_run(config) as run:
        model = load_model(run, run.teacher_of(3))
        return run.folder, logits_of(model, run.prompt.encode(TEXTS)).numpy(), request.param


def _config(files: dict[str, Path], folder: Path, kind: str) -> RunConfig:
    overlay = tiny_overlay(files, folder) | {"stage": {"kind": kind, "tokens": 4}}
    return build_config("released", overlay)


def test_a_finished_run_predicts_with_equal_logits(finished: tuple[Path, np.ndarray, str]) -> None:
    folder, expected, _ = finished
    assert np.array_equal(Predictor.open(folder).logits(TEXTS), expected)


def test_final_holds_no_encoder_and_rounds_do(finished: tuple[Path, np.ndarray, str]) -> None:
    folder, _, kind = finished
    final = [name for name in load_tensors(folder / "final" / "weights.safetensors") if name.startswith("stage")]
    student = load_tensors(folder / "round-02" / "student" / "weights.safetensors")
    assert final == ["stage.0.embedding"]
    assert any("encoder" in name for name in student) == (kind == "ptuning")
    assert [stage["encoder"] for stage in read_json(folder / "final" / "model.json")["stage"]] == ["none"]


def test_a_plan_shows_the_pseudo_tokens(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    plan = make_plan(_config(tiny_files, tmp_path / "run", "ptuning"))
    assert all("[P1] [P2] [P3] [P4] it was [MASK]" in sample for sample in islice(plan.samples, 3))


def test_a_bf16_backbone_still_gives_fp32_gradients() -> None:
    _, prompt = build()
    backbone = tiny_backbone()
    backbone.model.to(torch.bfloat16)
    words = label_word_ids(TASK, backbone.tokenizer)
    model = Classifier(backbone, stages("ptuning", tokens=3), VerbalizerHead(), words)
    found = ENGINES["fused"](model, list(model.tunable().values()), step_of(prompt, seed=4))
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.tunable().values())
    assert torch.isfinite(found.scores).all()


def theirs(kind: str) -> Any:
    peft = pytest.importorskip("peft")
    torch.manual_seed(7)
    config = peft.PromptEncoderConfig(
        num_virtual_tokens=PEFT_TOKENS, token_dim=PEFT_SIZE, num_transformer_submodules=1,
        encoder_reparameterization_type=kind, encoder_hidden_size=24 if kind == "MLP" else PEFT_SIZE // 2,
        encoder_dropout=0.0,
    )  # fmt: skip
    return peft.PromptEncoder(config).eval()


@torch.no_grad()
def copied(encoder: Any, kind: str, family: str = "bert") -> tuple[Classifier, Prompt]:
    """Our classifier with the weights of their encoder."""
    model, prompt = build(family, tokens=PEFT_TOKENS, **SHAPES[kind])
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


@torch.no_grad()
def vectors(encoder: nn.Module) -> Tensor:
    return encoder(torch.arange(PEFT_TOKENS).unsqueeze(0))[0]


@pytest.mark.parametrize("kind", SHAPES)
def test_the_same_weights_give_the_same_pseudo_tokens(kind: str) -> None:
    encoder = theirs(kind)
    model, _ = copied(encoder, kind)
    found = model.stage[0].flat()[1]["embedding"]
    torch.testing.assert_close(found, vectors(encoder), rtol=1e-5, atol=1e-6)
    assert found.std() > 1e-3
    fresh, _ = build(tokens=PEFT_TOKENS, **SHAPES[kind])
    assert (fresh.stage[0].flat()[1]["embedding"] - found).abs().max() > 1e-2
    assert sum(p.numel() for p in model.stage.parameters()) == sum(
        p.numel() for name, p in encoder.named_parameters() if "bias_hh" not in name
    )


@pytest.mark.parametrize(
    "family", [name for name in CONFIGS if name not in {"albert", "electra"}]
)  # narrower embeddings
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
    towards = torch.randn(PEFT_TOKENS, PEFT_SIZE, generator=torch.Generator().manual_seed(1))
    ours = model.stage[0]
    (ours(towards.unsqueeze(0))[0] * towards).sum().backward()
    (encoder(torch.arange(PEFT_TOKENS).unsqueeze(0))[0] * towards).sum().backward()
    torch.testing.assert_close(ours.embedding.grad, encoder.embedding.weight.grad, rtol=1e-4, atol=1e-6)
    mlp = ours.encoder if kind == "MLP" else ours.encoder[-1]
    for mine, other in zip(mlp.parameters(), encoder.mlp_head.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-6)


def test_the_depth_is_that_of_an_mlp_alone() -> None:
    with pytest.raises(ValueError, match="depth belongs to encoder mlp"):
        build(encoder="lstm", depth=3)
