"""Intrinsic prompt tuning: a decoder of the right size, coordinates alone moved, half starts refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from meta_step import step_of
from prompt_runs import DIM, SMALL, TOKENS, ipt_stage
from pseudo_token_models import TASK
from tiny import tiny_backbone, tiny_overlay

from listflow.data.errors import InputError
from listflow.pipeline.backbone.prompt import Prompt
from listflow.pipeline.method.reweight import ENGINES
from listflow.pipeline.model.classifier import Classifier, flat, logits_of
from listflow.pipeline.model.config import VerbalizerHead
from listflow.pipeline.model.verbalizer import label_word_ids
from listflow.pipeline.pretraining.msf import all_prompts
from listflow.pipeline.pretraining.prompted_tasks import open_tasks
from listflow.pipeline.pretraining.subspace import make_subspace
from listflow.pipeline.results.predictor import Predictor
from listflow.pipeline.run.opening import open_run
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.self_training import self_train
from listflow.pipeline.stages.ipt import (
    START_STD,
    AutoEncoder,
    Decoder,
    IntrinsicPrompt,
    Origin,
    load_decoder,
    save_subspace,
)
from listflow.pipeline.stages.presets import pseudo_tokens
from listflow.pipeline.storage.checkpoint import load_tensors, read_json
from listflow.pipeline.training.rounds import load_model

pytest_plugins = ["prompt_fixtures"]


def ipt_overlay(files: dict[str, Path], folder: Path, space: Path, **stage: object) -> dict[str, object]:
    chosen = {"kind": "ipt", "subspace": str(space), "tokens": TOKENS} | stage
    return tiny_overlay(files, folder) | {"stage": chosen}


def built(space: Path) -> tuple[Classifier, Prompt]:
    """A classifier with stage ipt and a frozen head, and its prompt."""
    backbone = tiny_backbone()
    chosen = (ipt_stage(space),)
    words = label_word_ids(TASK, backbone.tokenizer)
    model = Classifier(backbone, chosen, VerbalizerHead(trained=False), words, seed=1)
    return model, Prompt(TASK, backbone.tokenizer, 48, pseudo_tokens(chosen))


def part_of(model: Classifier) -> IntrinsicPrompt:
    part = model.stage[0]
    assert isinstance(part, IntrinsicPrompt)
    return part


def test_only_the_coordinates_are_trained(space: Path) -> None:
    model, prompt = built(space)
    assert list(model.tunable()) == ["stage.0.z"]
    before = {n: p.detach().clone() for n, p in part_of(model).decoder[0].named_parameters()}
    optimiser = torch.optim.SGD(model.tunable().values(), lr=1.0)
    start = part_of(model).z.detach().clone()
    for _ in range(3):
        optimiser.zero_grad()
        model(prompt.encode([("w1 w2 good", None)]).batch([0])).logsumexp(-1).sum().backward()
        optimiser.step()
    assert not torch.equal(part_of(model).z, start)
    assert all(torch.equal(p, before[n]) for n, p in part_of(model).decoder[0].named_parameters())
    assert all(p.grad is None for p in part_of(model).decoder[0].parameters())


def as_soft_prompt(model: Classifier, prompt: Prompt, space: Path) -> Classifier:
    """A classifier whose pseudo tokens are the vectors that ``model`` decodes."""
    config, tensors = flat(model, [ipt_stage(space)])
    backbone = tiny_backbone()
    words = label_word_ids(prompt.task, backbone.tokenizer)
    plain = Classifier(backbone, config, VerbalizerHead(trained=False), words)
    plain.load(tensors)
    return plain


def test_its_gradient_is_the_decoders_jacobian_times_that_of_the_prompt(space: Path) -> None:
    """I8: grad_z = J^T grad_P, with grad_P from the same loss under a flat prompt of the decoded vectors."""
    model, prompt = built(space)
    batch, gold = prompt.encode([("w1 w2 good", None), ("w9", None)]).batch([0, 1]), torch.tensor([0, 1])
    gradients = []
    for each in (model, as_soft_prompt(model, prompt, space)):
        (tensor,) = each.tunable().values()
        gradients += torch.autograd.grad(F.cross_entropy(each(batch), gold), tensor)
    own, of_prompt = gradients
    assert own.abs().max() > 1e-4
    part = part_of(model)
    jacobian = torch.func.jacrev(part.decoder[0])(part.z.detach())
    torch.testing.assert_close(own, torch.einsum("ted,te->d", jacobian, of_prompt), rtol=1e-4, atol=1e-6)


def test_a_soft_prompt_of_the_decoded_vectors_gives_the_same_logits(space: Path) -> None:
    model, prompt = built(space)
    encoded = prompt.encode([("w1 w2 good", None), ("w9", None)])
    assert torch.equal(logits_of(model, encoded), logits_of(as_soft_prompt(model, prompt, space), encoded))


@pytest.mark.parametrize("engine", ["fused", "jvp"])
@pytest.mark.parametrize("trained", [True, False])
def test_engines_agree(space: Path, engine: str, trained: bool) -> None:
    model, prompt = built(space)
    if trained:
        model.head.requires_grad_(True)
    parameters = list(model.tunable().values())
    step = step_of(prompt, 2)
    want = ENGINES["higher"](model, parameters, step)
    expected = [p.grad.clone() for p in parameters if p.grad is not None]
    got = ENGINES[engine](model, parameters, step)
    scale = float(want.scores.abs().max())
    assert scale > 0
    assert float((want.scores - got.scores).abs().max()) <= 1e-5 * scale
    for one, two in zip(expected, [p.grad for p in parameters], strict=True):
        assert two is not None
        assert float((one - two).abs().max()) <= 1e-5 * float(one.abs().max()) + 1e-9


def test_a_whole_run_keeps_coordinates_and_ends_with_a_plain_prompt(
    tiny_files: dict[str, Path], space: Path, tmp_path: Path
) -> None:
    config = build_config("fast", ipt_overlay(tiny_files, tmp_path / "run", space))
    self_train(config)
    kept = load_tensors(tmp_path / "run" / "round-02" / "student" / "weights.safetensors")
    assert kept["stage.0.z"].shape == (DIM,)
    assert not any("decoder" in name for name in kept)
    card = read_json(tmp_path / "run" / "final" / "model.json")
    assert card["stage"][0]["kind"] == "ptuning"
    predictor = Predictor.open(tmp_path / "run")
    with open_run(config) as run:
        model = load_model(run, run.teacher_of(3))
        assert torch.equal(logits_of(model, run.test), logits_of(predictor.model, run.test))


def test_coordinates_begin_at_the_mean_of_known_prompts(runs: list[Path], space: Path) -> None:
    stage = ipt_stage(space)
    encoder = load_tensors(space / "subspace" / "encoder.safetensors")
    with open_tasks(runs) as tasks:
        coordinates = all_prompts(tasks).flatten(1) @ encoder["weight"].T + encoder["bias"]
    assert torch.allclose(load_decoder(stage)[1], coordinates.mean(0), atol=1e-6)


def test_coordinates_may_begin_at_random_instead(space: Path) -> None:
    stage = ipt_stage(space, start="random")

    def drawn(seed: int) -> torch.Tensor:
        return IntrinsicPrompt(stage, torch.device("cpu"), torch.Generator().manual_seed(seed)).z.detach()

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), load_decoder(stage)[1])
    many = torch.stack([drawn(seed) for seed in range(200)])
    assert float(many.std()) == pytest.approx(START_STD, rel=0.1)


def test_a_run_without_a_subspace_is_refused() -> None:
    with pytest.raises(InputError, match=r"stage ipt needs stage\.subspace=FOLDER"):
        build_config("fast", {"stage": "ipt"})


def test_a_folder_without_a_subspace_is_refused(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    overlay = ipt_overlay(tiny_files, tmp_path / "run", tmp_path)
    with pytest.raises(InputError, match="holds no whole subspace"), open_run(build_config("fast", overlay)):
        pass
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"tokens": 5}, r"makes prompts of 3 tokens and stage\.tokens is 5; set stage\.tokens=3"),
        ({"place": "before_text"}, "layout 'text soft:3 mask', and this one is 'soft:3 text mask'"),
    ],
)
def test_a_subspace_of_another_length_or_layout_is_refused(
    tiny_files: dict[str, Path], space: Path, tmp_path: Path, stage: dict[str, object], message: str
) -> None:
    overlay = ipt_overlay(tiny_files, tmp_path / "run", space, **stage)
    with pytest.raises(InputError, match=message), open_run(build_config("fast", overlay)):
        pass


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_prompts_of_another_backbone_are_refused(
    tiny_files: dict[str, Path], runs: list[Path], space: Path, tmp_path: Path, precision: str
) -> None:
    """Found and trained in fp32, they are known for what they are in a run of another precision as well."""
    other = tiny_backbone(seed=9)
    for part in (other.model, other.tokenizer):
        part.save_pretrained(tmp_path / "backbone")
    overlay = ipt_overlay(tiny_files, tmp_path / "run", space)
    overlay["backbone"] = {"name": str(tmp_path / "backbone"), "precision": precision}
    with pytest.raises(InputError, match="was found on backbone"), open_run(build_config("fast", overlay)):
        pass
    overlay["stage"] = {"kind": "soft_prompt", "tokens": TOKENS, "start": "prompt", "prompt": str(runs[0])}
    with pytest.raises(InputError, match="was trained on backbone"), open_run(build_config("fast", overlay)):
        pass


def test_the_same_backbone_in_another_folder_will_do(tiny_files: dict[str, Path], space: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_files["backbone"], tmp_path / "moved")
    overlay = ipt_overlay(tiny_files, tmp_path / "run", space)
    overlay["backbone"] = {"name": str(tmp_path / "moved"), "precision": "fp32"}
    with open_run(build_config("fast", overlay)) as run:
        assert run.backbone.name == str(tmp_path / "moved")


def test_another_decoder_in_the_same_folder_is_refused(
    tiny_files: dict[str, Path], runs: list[Path], tmp_path: Path
) -> None:
    space = tmp_path / "space"
    make_subspace(runs, space, SMALL)
    config = build_config("fast", ipt_overlay(tiny_files, tmp_path / "run", space))
    self_train(config)
    stored = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    with open_tasks(runs) as tasks:
        auto = AutoEncoder(DIM, 16, TOKENS, 32)
        origin = Origin.model_validate(
            {n: v for n, v in read_json(space / "subspace" / "manifest.json").items() if n in Origin.model_fields}
        )
        save_subspace(space, auto, all_prompts(tasks), origin, {})
    again = config.model_validate(stored).model_copy(update={"run_dir": str(tmp_path / "run")})
    with pytest.raises(InputError, match="another decoder than the one this run was started with"), open_run(again):
        pass


def test_a_damaged_decoder_is_refused(tiny_files: dict[str, Path], runs: list[Path], tmp_path: Path) -> None:
    make_subspace(runs, tmp_path / "space", SMALL)
    path = tmp_path / "space" / "subspace" / "decoder.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    overlay = ipt_overlay(tiny_files, tmp_path / "run", tmp_path / "space")
    with pytest.raises(InputError, match="holds no whole subspace"), open_run(build_config("fast", overlay)):
        pass


def test_stage_two_starts_at_exactly_the_decoded_prompt(
    tiny_files: dict[str, Path], space: Path, tmp_path: Path
) -> None:
    self_train(build_config("fast", ipt_overlay(tiny_files, tmp_path / "one", space)))
    with open_run(build_config("fast", ipt_overlay(tiny_files, tmp_path / "one", space))) as run:
        decoded = part_of(load_model(run, run.teacher_of(3))).vectors().detach()
    stage = {"kind": "soft_prompt", "tokens": TOKENS, "start": "prompt", "prompt": str(tmp_path / "one")}
    config = build_config("fast", tiny_overlay(tiny_files, tmp_path / "two") | {"stage": stage})
    with open_run(config) as run:
        assert torch.equal(run.new_classifier(0, None).tensors()["stage.0.embedding"], decoded)
        assert run.config.stage[0].digest  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"prompt": "nowhere"}, "holds no finished model"),
        ({"tokens": 5}, r"has 3 pseudo tokens and stage\.tokens is 5; set stage\.tokens=3"),
        ({"digest": "0" * 64}, "another model than the one this run was started with"),
    ],
)
def test_a_prompt_that_does_not_fit_is_refused(
    tiny_files: dict[str, Path], runs: list[Path], tmp_path: Path, stage: dict[str, object], message: str
) -> None:
    chosen = {"kind": "soft_prompt", "tokens": TOKENS, "start": "prompt", "prompt": str(runs[0])} | stage
    config = build_config("fast", tiny_overlay(tiny_files, tmp_path / "run") | {"stage": chosen})
    with pytest.raises(InputError, match=message), open_run(config):
        pass


@pytest.mark.parametrize(
    "stage", [{"start": "prompt"}, {"prompt": "run"}, {"kind": "ptuning", "start": "prompt", "prompt": "x"}]
)
def test_half_a_start_is_refused(stage: dict[str, object]) -> None:
    with pytest.raises(InputError, match="start prompt"):
        build_config("fast", {"stage": {"kind": "soft_prompt"} | stage})


def test_the_decoder_makes_one_prompt_or_many() -> None:
    decoder = Decoder(DIM, 8, TOKENS, 16)
    assert decoder(torch.randn(DIM)).shape == (TOKENS, 16)
    assert decoder(torch.randn(5, DIM)).shape == (5, TOKENS, 16)


def test_the_decoder_is_bounded_by_its_last_map() -> None:
    decoder = Decoder(DIM, 8, TOKENS, 16)
    bound = decoder.out.weight.abs().sum(1) + decoder.out.bias.abs()
    for scale in (1.0, 100.0, 1e6):
        assert bool((decoder(torch.randn(50, DIM) * scale).flatten(1).abs() <= bound + 1e-5).all())


@pytest.mark.parametrize(("dim", "tokens", "size"), [(5, 100, 768), (250, 100, 768)])
def test_the_size_is_that_of_the_paper(dim: int, tokens: int, size: int) -> None:
    """n = 100, d = 768: 59.45 M at 5 coordinates and 78.45 M at 250, encoder and decoder together."""
    with torch.device("meta"):
        auto = AutoEncoder(dim, 768, tokens, size)
    flat_size = tokens * size
    formula = flat_size * dim + dim + dim * 768 + 768 + 768 * flat_size + flat_size
    assert sum(p.numel() for p in auto.parameters()) == formula
    assert formula / 1e6 == pytest.approx({5: 59.45, 250: 78.45}[dim], abs=0.01)
