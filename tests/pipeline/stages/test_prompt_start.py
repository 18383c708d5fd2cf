"""Pseudo tokens that start from, or stand in the place of, the words of the task's own template."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pseudo_token_models import LABELS, TASK, TEXTS, build, logits, plain
from tiny import CONFIGS, tiny_overlay, tiny_tokenizer
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from listflow.data.errors import InputError
from listflow.data.task import Task
from listflow.pipeline.backbone.prompt import Prompt
from listflow.pipeline.results.predictor import Predictor
from listflow.pipeline.run.opening import open_run
from listflow.pipeline.run.presets import build_config
from listflow.pipeline.run.record import load_config
from listflow.pipeline.self_training import self_train
from listflow.pipeline.stages.config import PTuning
from listflow.pipeline.stages.presets import stages
from listflow.pipeline.stages.prompt_start import spell_start
from listflow.pipeline.storage.checkpoint import read_json
from listflow.pipeline.training.plan import make_plan

SOFT = {"kind": "soft_prompt", "start": "template", "tokens": 3}


def spelled(template: str, tokens: int, **values: object) -> PTuning:
    task = Task(name="t", template=template, labels=LABELS)
    [found] = spell_start(stages("soft_prompt", start="template", tokens=tokens, **values), task, tiny_tokenizer(), 48)
    assert isinstance(found, PTuning)
    return found


@pytest.mark.parametrize("family", CONFIGS)
def test_in_place_of_the_words_the_start_is_the_hard_prompt(family: str) -> None:
    """P5 and P6: the very prompt of the task, whose every word can now move."""
    values = spelled(TASK.template, 3, place="template").model_dump(exclude={"kind"})
    model, prompt = build(family, **values)
    assert prompt.spell(prompt.encode([("w9", None)]).ids.tolist()) == "[CLS] w9 [P1] [P2] [MASK] [P3] [SEP]"
    hard = plain(family)[1]
    assert torch.equal(logits(model, prompt), logits(model, hard))
    torch.testing.assert_close(logits(model, prompt), logits(*plain(family)), rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        model.stage[0].embedding.copy_(model.stage[0].embedding.flip(0))
    assert (logits(model, prompt) - logits(model, hard)).abs().max() > 1e-3


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_beside_the_words_the_start_is_the_prompt_with_them_twice(family: str) -> None:
    model, prompt = build(family, **spelled(TASK.template, 3).model_dump(exclude={"kind"}))
    twice = plain(family, "{text} it was . it was {mask} .")[1]
    assert torch.equal(logits(model, prompt), logits(model, twice))


@pytest.mark.parametrize(
    ("tokens", "words", "stands"), [(2, ("it", "was"), "it was"), (5, ("it", "was", "."), "it was . it was")]
)
def test_words_are_cut_or_repeated(tokens: int, words: tuple[str, ...], stands: str) -> None:
    stage = spelled(TASK.template, tokens)
    assert (stage.start, stage.words) == ("words", words)
    model, prompt = build(**stage.model_dump(exclude={"kind"}))
    hard = plain("bert", f"{{text}} {stands} it was {{mask}} .")[1]
    assert torch.equal(logits(model, prompt), logits(model, hard))


def test_words_that_stand_apart_keep_their_tokens() -> None:
    """Joined to one text, ' ?' and ',' would be one token here, which the prompt never has."""
    alphabet = {symbol: i for i, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    names = dict(zip(("pad_token", "cls_token", "sep_token", "mask_token", "unk_token"), "PCSMU", strict=True))
    raw = Tokenizer(BPE(alphabet | {"Ġ?": 300, "Ġ?,": 301}, [("Ġ", "?"), ("Ġ?", ",")]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, **names)
    task = Task(name="t", template="{text_a} ?{mask}, {text_b}", labels=LABELS)
    [stage] = spell_start(stages(SOFT), task, tokenizer, 48)
    assert isinstance(stage, PTuning)
    assert stage.words == ("Ġ?", ",")
    fixed = Prompt(task, tokenizer, 48).fixed.values()
    assert tokenizer.convert_tokens_to_ids(list(stage.words)) == [token for ids in fixed for token in ids]


@pytest.mark.parametrize(
    ("template", "values", "reason"),
    [
        ("{text} {mask}", {}, "has no words for stage.start template"),
        (
            TASK.template,
            {"place": "template", "tokens": 4},
            r"are 3 tokens and stage\.tokens is 4; set stage\.tokens=3",
        ),
        ("{text} {mask}", {"place": "template", "start": "random"}, "has no words for stage.place template"),
    ],
)
def test_what_does_not_fit_the_template_is_refused(
    template: str, values: dict[str, object], reason: str, tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    task = tmp_path / "task.yaml"
    task.write_text(f'name: tiny\ntemplate: "{template}"\nlabels: {{negative: bad, positive: good}}\n')
    overlay = tiny_overlay(tiny_files | {"task": task}, tmp_path / "run") | {"stage": SOFT | values}
    with pytest.raises(InputError, match=reason), open_run(build_config("released", overlay)):
        pass


def test_an_unknown_vocabulary_entry_is_refused() -> None:
    with pytest.raises(InputError, match="'nowhere', which is no entry of the vocabulary"):
        build(start="words", words=("it", "nowhere"))


@pytest.mark.parametrize("encoder", ["none", "lstm"])
def test_a_run_keeps_what_was_spelled_out(encoder: str, tiny_files: dict[str, Path], tmp_path: Path) -> None:
    overlay = tiny_overlay(tiny_files, tmp_path / "run") | {"stage": SOFT | {"place": "template", "encoder": encoder}}
    config = build_config("released", overlay | {"rounds": {"count": 1, "sample": 20}})
    self_train(config)
    [kept] = read_json(tmp_path / "run" / "config.json")["config"]["stage"]
    assert (kept["start"], kept["words"]) == ("words", ["it", "was", "."])
    for again in (config, load_config(tmp_path / "run")):
        with open_run(again) as run:
            assert run.config.stage[0].start == "words"
    assert Predictor.open(tmp_path / "run").logits(TEXTS).shape == (3, 2)
    assert "[P1] [P2] [MASK] [P3] [SEP]" in make_plan(config).samples[0]


def test_the_zero_shot_is_that_of_the_hard_prompt(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    found = []
    for name, stage in (("soft", SOFT | {"place": "template"}), ("hard", {"kind": "none"})):
        config = build_config("released", tiny_overlay(tiny_files, tmp_path / name) | {"stage": stage})
        with open_run(config) as run:
            model = run.new_classifier(0, None)
            found.append(logits(model, run.prompt))
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)
