"""Intrinsic prompt tuning: an honest subspace, a stage that moves coordinates alone, wrong decoders refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import tiny_backbone, tiny_overlay
from test_ptuning import TASK
from test_reweight import step_of

from data.errors import InputError
from pipeline.autoencoder import AutoEncoder, Decoder
from pipeline.checkpoint import load_tensors, read_json
from pipeline.config import build_config
from pipeline.export import flat
from pipeline.five_settings import SETTINGS, Score, evaluate_settings, relative
from pipeline.head_config import VerbalizerHead
from pipeline.infer import logits_of
from pipeline.label_words import label_word_ids
from pipeline.model import Classifier
from pipeline.msf import all_prompts, find_subspace
from pipeline.opening import open_run
from pipeline.predict import Predictor
from pipeline.prompt import Prompt
from pipeline.prompted_task import PromptedTask, open_tasks
from pipeline.pseudo_tokens import Intrinsic
from pipeline.reweight import ENGINES
from pipeline.rounds import load_model
from pipeline.selftrain import self_train
from pipeline.stage_config import pseudo_tokens
from pipeline.stages.ipt import IntrinsicPrompt
from pipeline.subspace import Origin, load_decoder, pinned, read_origin, save_subspace
from pipeline.subspace_config import SubspaceConfig
from pipeline.subspace_making import make_subspace

TOKENS, DIM = 3, 4
SMALL = SubspaceConfig(dim=DIM, hidden=16, steps=20, prompts=4, batch=4)


def prompt_run(files: dict[str, Path], folder: Path, seed: int = 1, **stage: object) -> Path:
    """A finished run of prompt tuning."""
    overlay = tiny_overlay(files, folder) | {"stage": {"kind": "soft_prompt", "tokens": TOKENS} | stage, "seed": seed}
    self_train(build_config("fast", overlay, {"teacher": {"learning_rate": 0.05}, "student": {"learning_rate": 0.05}}))
    return folder


def other_task(files: dict[str, Path], folder: Path) -> dict[str, Path]:
    """The same files under a task of another name."""
    task = folder / "other.yaml"
    task.write_text('name: other\ntemplate: "{text} the plot {mask} ."\nlabels: {negative: poor, positive: fine}\n')
    return files | {"task": task}


@pytest.fixture(scope="module")
def runs(tiny_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two draws of one task, and one run of another."""
    folder = tmp_path_factory.mktemp("prompts")
    second = prompt_run(other_task(tiny_files, folder), folder / "other")
    return [prompt_run(tiny_files, folder / "a", 1), prompt_run(tiny_files, folder / "b", 2), second]


@pytest.fixture(scope="module")
def space(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("space") / "subspace"
    make_subspace(runs, out, SMALL)
    return out


def ipt_overlay(files: dict[str, Path], folder: Path, space: Path, **stage: object) -> dict[str, object]:
    chosen = {"kind": "ipt", "subspace": str(space), "tokens": TOKENS} | stage
    return tiny_overlay(files, folder) | {"stage": chosen}


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


def test_enough_coordinates_hold_all_prompts(runs: list[Path]) -> None:
    with open_tasks(runs) as tasks:
        enough = len(all_prompts(tasks))
        config = SubspaceConfig(dim=enough, hidden=64, steps=1500, prompts=enough, task_weight=0, learning_rate=3e-3)
        prompts = all_prompts(tasks)
        made = find_subspace(tasks, config)(prompts)[0]
    assert float((made - prompts).norm() / prompts.norm()) < 1e-2


def test_either_term_of_the_loss_can_be_off(runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    logits = PromptedTask.logits

    def counted(task: PromptedTask, number: int, *rest: object) -> torch.Tensor:
        asked.append(number)
        return logits(task, number, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(PromptedTask, "logits", counted)
    with open_tasks(runs) as tasks:
        find_subspace(tasks, SMALL.model_copy(update={"task_weight": 0.0}))
        assert not asked
        one = find_subspace(tasks, SMALL.model_copy(update={"reconstruction_weight": 0.0})).state_dict()
        assert len(asked) == SMALL.steps
        both = find_subspace(tasks, SMALL).state_dict()
    assert not all(torch.equal(one[name], both[name]) for name in one)


def test_a_loss_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing would be learned"):
        SubspaceConfig(task_weight=0, reconstruction_weight=0)


def test_the_same_runs_give_the_same_subspace_also_when_interrupted(runs: list[Path], tmp_path: Path) -> None:
    with open_tasks(runs) as tasks:
        config = SMALL.model_copy(update={"steps": 210})
        whole = find_subspace(tasks, config).state_dict()

        class StopError(Exception):
            pass

        def stop(tick: object) -> None:
            if tick.step == 205:  # type: ignore[attr-defined]
                raise StopError

        with pytest.raises(StopError):
            find_subspace(tasks, config, tmp_path / "s.step", stop)
        steps: list[int] = []
        resumed = find_subspace(tasks, config, tmp_path / "s.step", lambda tick: steps.append(tick.step)).state_dict()
    assert steps[0] == 201
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def ipt_stage(space: Path) -> Intrinsic:
    return pinned(Intrinsic(subspace=str(space), tokens=TOKENS))


def built(space: Path) -> tuple[Classifier, Prompt]:
    """A classifier with stage ipt and a frozen head, and its prompt."""
    backbone = tiny_backbone()
    chosen = (ipt_stage(space),)
    words = label_word_ids(TASK, backbone.tokenizer, backbone.word_rows)
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
    words = label_word_ids(prompt.task, backbone.tokenizer, backbone.word_rows)
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


def test_runs_that_do_not_fit_together_are_refused(
    tiny_files: dict[str, Path], runs: list[Path], tmp_path: Path
) -> None:
    longer = prompt_run(tiny_files, tmp_path / "longer", tokens=5)
    with pytest.raises(InputError, match="differ in length"), open_tasks([runs[0], longer]):
        pass
    shutil.copytree(runs[0], tmp_path / "cut", ignore=shutil.ignore_patterns("round-01", "round-02"))
    with pytest.raises(InputError, match="brings one prompt"), open_tasks([tmp_path / "cut"]):
        pass
    adapter = tmp_path / "adapter"
    self_train(build_config("fast", tiny_overlay(tiny_files, adapter)))
    with pytest.raises(InputError, match="has no prompt of its own"), open_tasks([adapter]):
        pass
    with (
        pytest.raises(InputError, match=r"is given twice; name every run once\."),
        open_tasks([runs[0], runs[0] / "."]),
    ):
        pass


def test_two_tasks_of_one_name_are_not_taken_for_draws_of_one(
    tiny_files: dict[str, Path], runs: list[Path], tmp_path: Path
) -> None:
    text = tiny_files["task"].read_text().replace("negative: bad, positive: good", "positive: good, negative: bad")
    (tmp_path / "task.yaml").write_text(text)
    other = prompt_run(tiny_files | {"task": tmp_path / "task.yaml"}, tmp_path / "other")
    with pytest.raises(InputError, match="are both of task 'tiny' and have other labels"), open_tasks([runs[0], other]):
        pass


def test_a_finished_subspace_is_not_found_again(runs: list[Path], space: Path, tmp_path: Path) -> None:
    steps: list[object] = []
    outcome = make_subspace(runs, space, SMALL, on_step=lambda name, tick: steps.append(tick))
    assert not steps
    assert outcome.prompts == 9
    assert outcome.tasks == ("other", "tiny")
    with pytest.raises(InputError, match="other runs or settings"):
        make_subspace(runs[:1], space, SMALL)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="no folder of a subspace"):
        make_subspace(runs, tmp_path, SMALL)


def test_the_unseen_task_is_never_part_of_its_subspace(runs: list[Path], tmp_path: Path) -> None:
    with open_tasks(runs) as tasks:
        *_, scores = evaluate_settings(tasks, tmp_path, SMALL)
    assert {folder.name: read_origin(folder).tasks for folder in tmp_path.iterdir()} == {
        "1-without-other": ("tiny",), "2-without-tiny": ("other",)
    }  # fmt: skip
    per = {setting: [s for s in scores if s.setting == setting] for setting in SETTINGS}
    assert {len(per[name]) for name in ("T_train (MSF)", "T_train same (IST)")} == {2}
    assert [s.held_out for s in per["T_train diff (IST)"]] == ["other"]
    for name in ("T_test (MSF)", "T_test (IST)"):
        assert {(s.held_out, Path(s.run).name) for s in per[name]} == {("other", "other"), ("tiny", "a"), ("tiny", "b")}
    for name in ("T_train (MSF)", "T_train same (IST)", "T_train diff (IST)"):
        assert all((s.held_out == "other") != (Path(s.run).name == "other") for s in per[name])


def test_one_task_alone_has_no_unseen_one(runs: list[Path], tmp_path: Path) -> None:
    with open_tasks(runs[:2]) as tasks, pytest.raises(InputError, match="at least two tasks"):
        list(evaluate_settings(tasks, tmp_path, SMALL))


def test_interrupted_settings_go_on_with_the_next_task(runs: list[Path], tmp_path: Path) -> None:
    whole = make_subspace(runs, tmp_path / "whole", SMALL, evaluate=True)
    left_out: list[str] = []

    def stop_in_the_second_fold(name: str, tick: object) -> None:
        left_out.append(name)
        if name == "tiny":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_subspace(runs, tmp_path / "cut", SMALL, evaluate=True, on_step=stop_in_the_second_fold)
    assert set(left_out) == {"", "other", "tiny"}
    resumed: list[str] = []
    again = make_subspace(runs, tmp_path / "cut", SMALL, evaluate=True, on_step=lambda name, tick: resumed.append(name))
    assert set(resumed) == {"tiny"}
    assert again.scores == whole.scores


def test_relative_scores() -> None:
    same = [Score("s", "t", "r", value, value) for value in (0.4, 0.9)]
    assert relative(same) == 1.0
    assert relative([*same, Score("s", "t", "r", 0.5, 0.0)]) == 1.0
    assert relative([Score("s", "t", "r", 0.5, 0.0)]) is None
    assert relative([Score("s", "t", "r", 0.3, 0.6), Score("s", "t", "r", 0.9, 0.6)]) == pytest.approx(1.0)


def test_a_prompt_under_its_own_head_is_the_runs_model(runs: list[Path]) -> None:
    with open_tasks(runs[:1]) as (task,):
        trained = load_model(task.run, 0)
        batch = task.run.labelled.batch(range(4))
        assert torch.equal(task.logits(0, task.prompts()[0], batch), trained(batch))


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
