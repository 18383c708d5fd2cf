"""Tiny random models and texts that every test can build in milliseconds, with no network."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    AlbertConfig,
    AutoModelForMaskedLM,
    BertConfig,
    CamembertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ErnieConfig,
    ModernBertConfig,
    MPNetConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    XLMRobertaConfig,
)

from listflow.pipeline.backbone.backbone import Backbone

SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]"]
WORDS = ["good", "bad", "fine", "poor", "film", "plot", "it", "was", "a", "the", "very", "not", ".", ",", "?"]
FILLER = [f"w{i}" for i in range(40)]

_SMALL = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 32, "intermediate_size": 48}
CONFIGS = {
    "bert": BertConfig(**_SMALL, max_position_embeddings=64),
    "roberta": RobertaConfig(**_SMALL, max_position_embeddings=66, pad_token_id=0),
    "distilbert": DistilBertConfig(n_layers=2, n_heads=2, dim=32, hidden_dim=48, max_position_embeddings=64),
    "deberta-v2": DebertaV2Config(
        **_SMALL, max_position_embeddings=64, relative_attention=True, pos_att_type=["p2c", "c2p"]
    ),
    "electra": ElectraConfig(**_SMALL, embedding_size=16, max_position_embeddings=64),
    "modernbert": ModernBertConfig(
        **_SMALL,
        max_position_embeddings=64,
        pad_token_id=0,
        cls_token_id=1,
        sep_token_id=2,
        bos_token_id=1,
        eos_token_id=2,
    ),
    "xlm-roberta": XLMRobertaConfig(**_SMALL, max_position_embeddings=66, pad_token_id=1),
    "camembert": CamembertConfig(**_SMALL, max_position_embeddings=66, pad_token_id=1),
    "ernie": ErnieConfig(**_SMALL, max_position_embeddings=64, use_task_id=True),
    "mpnet": MPNetConfig(**_SMALL, max_position_embeddings=66),
    "albert": AlbertConfig(**_SMALL, embedding_size=16, max_position_embeddings=64),
}
PADDED_BY_ONE = {"xlm-roberta", "camembert", "mpnet"}  # as published; of MPNet nothing else is possible  # fmt: skip


def tiny_tokenizer(family: str = "bert") -> PreTrainedTokenizerFast:
    special = ["[CLS]", "[PAD]", *SPECIAL[2:]] if family in PADDED_BY_ONE else SPECIAL
    vocabulary = {word: i for i, word in enumerate(special + WORDS + FILLER)}
    raw = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    raw.pre_tokenizer = Whitespace()
    names = ("pad_token", "cls_token", "sep_token", "mask_token", "unk_token")
    return PreTrainedTokenizerFast(tokenizer_object=raw, **dict(zip(names, SPECIAL, strict=True)))


def tiny_backbone(family: str = "bert", seed: int = 0) -> Backbone:
    """A random fp32 masked LM of 2 layers; weights wide enough that logits differ clearly."""
    torch.manual_seed(seed)
    config = CONFIGS[family]
    config.vocab_size = len(SPECIAL + WORDS + FILLER)
    model = AutoModelForMaskedLM.from_config(config).float()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    return Backbone(model, tiny_tokenizer(family), f"tiny-{family}")


def sentences(count: int, seed: int, labelled: bool = True) -> list[dict[str, str]]:
    """Short texts whose label shows in one word, hidden among filler."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for i in range(count):
        label = ("negative", "positive")[i % 2]
        length = int(torch.randint(3, 12, (1,), generator=generator))
        words = [FILLER[int(j)] for j in torch.randint(0, len(FILLER), (length,), generator=generator)]
        words.insert(length // 2, ("poor", "fine")[i % 2])
        rows.append({"text": " ".join(words) + f" {seed} {i}"} | ({"label": label} if labelled else {}))
    return rows


OTHERS = [word for word in WORDS if word.isalpha() and word not in {"fine", "poor"}]


def foreign_sentences(count: int, seed: int) -> list[dict[str, str]]:
    """Texts of words that the tiny backbone knows, and that ``sentences`` never has."""
    generator = torch.Generator().manual_seed(seed)
    orders = (torch.randperm(len(OTHERS), generator=generator)[:9].tolist() for _ in range(count))
    return [{"text": " ".join(OTHERS[place] for place in order)} for order in orders]


def write_jsonl(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


TEXT_VIEW = {
    "face": "text",
    "student": {"learning_rate": 3e-3, "steps": 8, "batch": 6, "warmup": 0.6, "tail_epochs": 2, "tail_batch": 4},
}  # the "second" of a tiny run of two views


def tiny_overlay(files: dict[str, Path], run_dir: Path) -> dict[str, object]:
    """A configuration overlay for a run of seconds and of one view on ``tiny_files``."""
    return {
        "second": None,
        "task": str(files["task"]),
        "data": {
            "labelled": str(files["labelled"]), "unlabelled": [str(files["unlabelled"])], "test": str(files["test"]),
        },
        "backbone": {"name": str(files["backbone"]), "precision": "fp32", "device": "cpu"},
        "teacher": {"epochs": 2, "batch": 4},
        "student": {"steps": 8, "batch": 6, "warmup": 0.6, "tail_epochs": 2, "tail_batch": 4},
        "stage": {"width": 4, "layers": "all"},
        "reweight": {"batch": 4},
        "rounds": {"count": 2, "sample": 20},
        "run_dir": str(run_dir),
    }  # fmt: skip
