"""Continued masked-LM training: it learns, it resumes to the byte, and it refuses what it cannot use."""

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForMaskedLM,
    BertConfig,
    BertForMaskedLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)

from listflow.data.errors import InputError
from listflow.pipeline.backbone import pretrained
from listflow.pipeline.backbone.backbone import load_backbone
from listflow.pipeline.backbone.masked_lm import fill_mask, mask_tokens, masked_logits
from listflow.pipeline.pretraining.adapt import AdaptOutcome, AdaptTick, adapt
from listflow.pipeline.pretraining.learner import AdaptConfig, load_learner, write_update
from listflow.pipeline.pretraining.packing import Packed, pack

SENTENCES = [f"the {colour} {thing} is {colour}" for colour in ("red", "blue") for thing in ("car", "house", "boat")]
BERT_SPECIALS = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
ROBERTA_SPECIALS = {"pad": "<pad>", "unk": "<unk>", "cls": "<s>", "sep": "</s>", "mask": "<mask>"}
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
TINY = {"batch": 8, "length": 16, "precision": "fp32", "device": "cpu", "held_out": 0.1}
Base = Callable[[str], str]


def tokenizer_for(family: str) -> PreTrainedTokenizerFast:
    bert = family == "bert"
    specials = BERT_SPECIALS if bert else ROBERTA_SPECIALS
    made = Tokenizer(models.WordPiece(unk_token="[UNK]") if bert else models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace() if bert else pre_tokenizers.ByteLevel()
    kind = trainers.WordPieceTrainer if bert else trainers.BpeTrainer
    # The space before a mask belongs to the word that is to be guessed.
    added = [AddedToken(token, special=True, lstrip=name == "mask") for name, token in specials.items()]
    made.train_from_iterator(SENTENCES, kind(vocab_size=120, special_tokens=added))
    if not bert:
        made.decoder = decoders.ByteLevel()
    ends = [(specials[end], made.token_to_id(specials[end])) for end in ("cls", "sep")]
    made.post_processor = processors.TemplateProcessing(
        single=f"{specials['cls']} $A {specials['sep']}", special_tokens=ends
    )
    named: dict[str, Any] = {f"{name}_token": token for name, token in specials.items()}
    return PreTrainedTokenizerFast(tokenizer_object=made, **named)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """The folder of a tiny random model of a family."""
    made: dict[str, str] = {}

    def build(family: str) -> str:
        if family not in made:
            tokenizer = tokenizer_for(family)
            config, model = {
                "bert": (BertConfig, BertForMaskedLM),
                "roberta": (RobertaConfig, RobertaForMaskedLM),
            }[family]
            torch.manual_seed(0)
            sizes = SIZES | {"vocab_size": len(tokenizer), "max_position_embeddings": 66}
            folder = tmp_path_factory.mktemp(family)
            model(config(**sizes, pad_token_id=tokenizer.pad_token_id)).save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            made[family] = str(folder)
        return made[family]

    return build


@pytest.fixture
def text(tmp_path: Path) -> str:
    rng = np.random.default_rng(0)
    lines = "\n".join(SENTENCES[i] for i in rng.integers(len(SENTENCES), size=600))
    (tmp_path / "corpus.txt").write_text(f"{lines}\n\n", "utf-8")
    return str(tmp_path / "corpus.txt")


def config(**changes: Any) -> AdaptConfig:
    return AdaptConfig.model_validate({**TINY, "steps": 6, "checkpoint_every": 2, **changes})


def files(outcome: AdaptOutcome) -> dict[str, bytes]:
    folder = outcome.path if outcome.path.is_dir() else outcome.path.parent
    return {f.name: f.read_bytes() for f in folder.iterdir() if f.name != "manifest.json"}


def stop_after(steps: int) -> Callable[[AdaptTick], None]:
    def on_step(tick: AdaptTick) -> None:
        if tick.step == steps:
            raise KeyboardInterrupt

    return on_step


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_guesses_get_better_and_the_folder_is_a_backbone(family: str, base: Base, text: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcome = adapt(base(family), [text], out, config(steps=300, learning_rate=5e-3, checkpoint_every=1000))
    assert outcome.after.cross_entropy < 0.6 * outcome.before.cross_entropy
    assert outcome.after.top1 > outcome.before.top1
    assert outcome.path == out / "backbone"
    assert sorted(f.name for f in out.iterdir()) == [".lock", "adapt.json", "backbone"]
    [(_, guesses)] = fill_mask(outcome.path, ["the red boat [MASK] red"], top=3)
    assert guesses[0][0] == "is"
    assert guesses == sorted(guesses, key=lambda pair: -pair[1])


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_logits_are_those_of_the_models_own_head(family: str, base: Base, text: str, tmp_path: Path) -> None:
    outcome = adapt(base(family), [text], tmp_path / "out", config(learning_rate=1e-2))
    backbone = load_backbone(str(outcome.path), "fp32", "cpu")
    ids = torch.randint(5, len(backbone.tokenizer), (3, 12))
    chosen = torch.rand(3, 12) < 0.3
    plain = AutoModelForMaskedLM.from_pretrained(outcome.path).eval()
    with torch.inference_mode():
        torch.testing.assert_close(masked_logits(backbone, ids, chosen), plain(input_ids=ids).logits[chosen])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_run_ends_with_the_same_bytes(precision: str, base: Base, text: str, tmp_path: Path) -> None:
    asked = config(precision=precision)
    whole = adapt(base("bert"), [text], tmp_path / "whole", asked)
    for steps in (3, 6):
        with pytest.raises(KeyboardInterrupt):
            adapt(base("bert"), [text], tmp_path / "cut", asked, stop_after(steps))
    ticks: list[AdaptTick] = []
    cut = adapt(base("bert"), [text], tmp_path / "cut", asked, ticks.append)
    assert ticks == []
    assert files(cut) == files(whole)
    assert (cut.before, cut.after) == (whole.before, whole.after)


def test_a_finished_call_is_not_taken_again(base: Base, text: str, tmp_path: Path) -> None:
    ticks: list[AdaptTick] = []
    first = adapt(base("bert"), [text], tmp_path / "out", config(), ticks.append)
    assert [tick.step for tick in ticks] == [1, 2, 3, 4, 5, 6]
    assert adapt(base("bert"), [text], tmp_path / "out", config(), ticks.append) == first
    assert len(ticks) == 6
    first.path.joinpath("model.safetensors").write_bytes(b"broken")
    again = adapt(base("bert"), [text], tmp_path / "out", config(), ticks.append)
    assert len(ticks) == 12
    assert again.after == first.after


def test_minilm_update_is_continued_resumed_and_merged(text: str, tmp_path: Path) -> None:
    asked = config(steps=2, checkpoint_every=1)
    with pytest.raises(KeyboardInterrupt):
        adapt("minilm", [text], tmp_path / "cut", asked, stop_after(1))
    cut = adapt("minilm", [text], tmp_path / "cut", asked)
    whole = adapt("minilm", [text], tmp_path / "whole", asked)
    assert cut.path == tmp_path / "cut" / "backbone" / "mlm.safetensors"
    assert files(cut) == files(whole)
    shipped, scale = pretrained.read_update(pretrained.update_of("minilm"))
    made, made_scale = pretrained.read_update(whole.path)
    assert made_scale == scale
    assert {k: v.shape for k, v in made.items()} == {k: v.shape for k, v in shipped.items()}
    assert whole.path.stat().st_size == pytest.approx(pretrained.update_of("minilm").stat().st_size, rel=0.01)
    assert not all(torch.equal(made[name], shipped[name]) for name in made)
    with safe_open(whole.path, "pt") as file, safe_open(pretrained.update_of("minilm"), "pt") as theirs:
        assert file.metadata() == theirs.metadata()
        assert all(file.get_tensor(k).dtype == theirs.get_tensor(k).dtype for k in theirs.keys())  # noqa: SIM118


@pytest.mark.parametrize("fresh", [False, True])
def test_merged_update_gives_the_logits_of_the_wrapped_model(fresh: bool, tmp_path: Path) -> None:
    wrapped = load_learner("minilm", config(fresh=fresh)).backbone
    with torch.no_grad():
        for name, parameter in wrapped.model.named_parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.01)
                # The file keeps matrices in half precision.
                parameter.copy_(parameter.half().float())
                assert ".lora_" in name or "LayerNorm" in name or "cls.predictions" in name
    write_update(tmp_path / "mlm.safetensors", wrapped.model, 16)
    merged = load_backbone(str(tmp_path / "mlm.safetensors"), "fp32", "cpu")
    ids = torch.randint(1000, 20000, (2, 12))
    chosen = torch.rand(2, 12) < 0.5
    with torch.inference_mode():
        mine = masked_logits(wrapped, ids, chosen)
        torch.testing.assert_close(masked_logits(merged, ids, chosen), mine, atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(merged.model(input_ids=ids).logits[chosen], mine, atol=1e-4, rtol=1e-5)


def test_an_update_keeps_its_rank_unless_another_is_asked_for(text: str, tmp_path: Path) -> None:
    ranks = {base: load_learner(base, config()).rank for base in pretrained.UPDATES}
    assert ranks == {"minilm": 16, "minilm-2": 64}
    assert load_learner("minilm-2", config(fresh=True)).rank == 16
    made = adapt("minilm", [text], tmp_path / "out", config(fresh=True, rank=4, steps=1))
    assert load_learner(str(made.path), config()).rank == 4
    record = tmp_path / "out" / "adapt.json"
    assert json.loads(record.read_text())["rank"] == 4


def test_the_plain_encoder_is_what_a_fresh_start_has() -> None:
    ids = torch.randint(1000, 20000, (2, 12))
    learner = load_learner("minilm", config(fresh=True, rank=4))
    plain, _ = pretrained.load_base()
    with torch.inference_mode():
        mine = learner.backbone.model.base_model(input_ids=ids).last_hidden_state
        torch.testing.assert_close(mine, plain.eval().base_model(input_ids=ids).last_hidden_state)


def test_tokens_are_masked_as_asked() -> None:
    tokenizer = tokenizer_for("bert")
    ids = np.random.default_rng(1).integers(0, len(tokenizer), (400, 64))
    masked = mask_tokens(ids, tokenizer, 0.2, np.random.default_rng(2))
    ordinary = ~np.isin(ids, tokenizer.all_special_ids)
    chosen, hidden = masked.chosen.numpy(), masked.ids.numpy()
    assert not chosen[~ordinary].any()
    assert chosen[ordinary].mean() == pytest.approx(0.2, abs=0.01)
    assert (hidden[chosen] == tokenizer.mask_token_id).mean() == pytest.approx(0.9, abs=0.01)
    assert (hidden == ids)[~chosen].all()
    assert (masked.gold.numpy() == ids[chosen]).all()
    assert mask_tokens(ids[:1, :8], tokenizer, 1e-9, np.random.default_rng(3)).chosen.sum() == 1


def test_packing_keeps_every_token_in_order(tmp_path: Path) -> None:
    tokenizer = tokenizer_for("bert")
    (tmp_path / "a.txt").write_text("\ufeffthe red car\n\n  blue boat  \n" * 4, "utf-8")
    rows = "".join(json.dumps({"text": text}) + "\n" for text in ("the house", "", "is"))
    (tmp_path / "b.jsonl").write_text(rows, "utf-8")
    sources = [str(tmp_path / name) for name in ("a.txt", "b.jsonl")]
    pack(sources, config().columns, tokenizer, 8, tmp_path / "tokens.bin")
    packed = Packed(tmp_path / "tokens.bin", tokenizer, 8)
    sequences = packed.sequences(np.arange(len(packed)))
    assert sequences.shape == (packed.tokens // 6, 8)
    assert (sequences[:, 0] == tokenizer.cls_token_id).all()
    assert (sequences[:, -1] == tokenizer.sep_token_id).all()
    words = tokenizer.convert_ids_to_tokens(sequences[:, 1:-1].ravel().tolist())
    assert words[:7] == ["the", "red", "car", "[SEP]", "blue", "boat", "[SEP]"]


def test_the_text_is_never_held(tmp_path: Path) -> None:
    tokenizer = tokenizer_for("bert")
    big = tmp_path / "big.txt"
    with big.open("w", encoding="utf-8") as file:
        file.writelines(f"{' '.join(SENTENCES)}\n" for _ in range(25_000))
    tracemalloc.start()
    try:
        pack([str(big)], config().columns, tokenizer, 16, tmp_path / "tokens.bin")
        packed = Packed(tmp_path / "tokens.bin", tokenizer, 16)
        packed.sequences(np.arange(0, len(packed), 10_000))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < big.stat().st_size / 2


def test_another_request_in_the_same_folder_is_refused(base: Base, text: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        adapt(base("bert"), [text], out, config(), stop_after(3))
    kept = {f: f.read_bytes() for f in out.rglob("*") if f.is_file()}
    for arguments, named in (
        ((base("bert"), [text], out, config(steps=7, seed=2)), "another seed, steps"),
        ((base("bert"), [text, text], out, config()), "another sources"),
        ((base("roberta"), [text], out, config()), "another base"),
    ):
        with pytest.raises(InputError, match=named):
            adapt(*arguments)
    assert kept == {f: f.read_bytes() for f in out.rglob("*") if f.is_file()}


def test_a_folder_of_something_else_is_left_alone(base: Base, text: str, tmp_path: Path) -> None:
    precious = tmp_path / "mine" / "backbone" / "thesis.txt"
    precious.parent.mkdir(parents=True)
    precious.write_text("years of work")
    with pytest.raises(InputError, match="holds no adaptation"):
        adapt(base("bert"), [text], tmp_path / "mine", config())
    with pytest.raises(InputError, match="is a file"):
        adapt(base("bert"), [text], precious, config())
    assert precious.read_text() == "years of work"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "no such file"),
        (b"", "no text at all"),
        (b"\n  \n\n", "no text at all"),
        (b"the red car\n", "two sequences of 16"),
        (b"the red car\ncaf\xe9\n", "line 2: is not UTF-8"),
    ],
)
def test_bad_text_is_refused_and_can_be_mended(
    content: bytes | None, complaint: str, base: Base, text: str, tmp_path: Path
) -> None:
    source = tmp_path / "bad.txt"
    if content is not None:
        source.write_bytes(content)
    with pytest.raises(InputError, match=complaint):
        adapt(base("bert"), [str(source)], tmp_path / "out", config())
    source.write_bytes(Path(text).read_bytes())
    assert adapt(base("bert"), [str(source)], tmp_path / "out", config(steps=1)).steps == 1


def test_requests_that_fit_no_backbone_are_refused(base: Base, text: str, tmp_path: Path) -> None:
    for start, sources, changes, complaint in (
        (base("bert"), [], {}, "no text is given"),
        (base("bert"), [text], {"fresh": True}, "only minilm can start fresh"),
        (base("bert"), [text], {"length": 128}, "length 128 is more than the 66"),
        ("minilm", [text], {"rank": 8}, "take its rank, or start fresh"),
        (str(tmp_path / "none.safetensors"), [text], {}, "does not exist"),
        (str(tmp_path / "none"), [text], {}, "cannot be loaded|neither"),
    ):
        with pytest.raises(InputError, match=complaint):
            adapt(start, sources, tmp_path / "out", config(**changes))
    assert not (tmp_path / "out").exists()


def test_a_damaged_or_foreign_update_is_refused(base: Base, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(pretrained.update_of("minilm").read_bytes()[:5000])
    with pytest.raises(InputError, match="is damaged"):
        load_backbone(str(damaged))
    with pytest.raises(InputError, match="not made for this base"):
        load_backbone(str(Path(base("bert")) / "model.safetensors"))


def test_a_sentence_without_a_mask_is_refused(base: Base) -> None:
    with pytest.raises(InputError, match=r"no \[MASK\]"):
        fill_mask(base("bert"), ["the red car"])
