"""The text face gives what the encoder alone gives, pooled as its makers say; nothing of a text is left unread."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from finished_views import saved_backbone, sentence_files
from tiny import CONFIGS, tiny_backbone
from transformers import AutoModel, AutoTokenizer

from listflow.pipeline.backbone.backbone import load_backbone
from listflow.pipeline.backbone.batch import Encoded
from listflow.pipeline.backbone.pooling import Pooling, joined
from listflow.pipeline.backbone.text_face import SharedFace, TextFace, text_face_of

TEXTS = ["w1 w2 good", "w3 poor w5 w6 w7 w8 w9 w10", "w9", "", "the film was not bad , was it ?"]
SPELLED = "w1 [MASK] w2 [SEP] [CLS] [PAD]"


def face_of(family: str = "bert", max_length: int = 32, **pooling: Any) -> TextFace:
    backbone = tiny_backbone(family)
    return TextFace(backbone.untouched, backbone.tokenizer, Pooling(**pooling), max_length)


def rows_of(encoded: Encoded) -> list[list[int]]:
    return [encoded.ids[a:b].tolist() for a, b in zip(encoded.offsets, encoded.offsets[1:], strict=False)]


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("mode", ["mean", "first", "max"])
def test_it_is_the_plain_encoder_pooled(family: str, mode: str, tmp_path: Path) -> None:
    """Text by text, without padding, by the library's own classes."""
    folder = saved_backbone(tmp_path, family)
    said = {"first": "cls_token", "mean": "mean_tokens", "max": "max_tokens"}[mode]
    sentence_files(folder, {f"pooling_mode_{said}": True}, normalised=mode != "max")
    found = text_face_of(load_backbone(str(folder), "fp32", "cpu"), 32).vectors([(text, None) for text in TEXTS])
    encoder, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    for text, vector in zip(TEXTS, found, strict=True):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        given = torch.tensor([[tokenizer.cls_token_id, *ids, tokenizer.sep_token_id]])
        with torch.no_grad():
            hidden = encoder(input_ids=given, attention_mask=torch.ones_like(given)).last_hidden_state[0]
        pooled = {"mean": hidden.mean(0), "first": hidden[0], "max": hidden.amax(0)}[mode]
        expected = pooled if mode == "max" else F.normalize(pooled, dim=-1)
        torch.testing.assert_close(vector, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", CONFIGS)
def test_the_middle_layer_stands_beside_the_embedding_of_a_text(family: str, tmp_path: Path) -> None:
    """The mean of its tokens, whatever the last layer's become; without padding, by the library's own classes."""
    folder = sentence_files(saved_backbone(tmp_path, family), {"pooling_mode_cls_token": True})
    backbone, texts = load_backbone(str(folder), "fp32", "cpu"), [(text, None) for text in TEXTS]
    found, alone = (text_face_of(backbone, 32, middle).vectors(texts) for middle in (True, False))
    torch.testing.assert_close(found[:, : backbone.hidden_size], alone)
    encoder, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    for text, vector in zip(TEXTS, found[:, backbone.hidden_size :], strict=True):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        given = torch.tensor([[tokenizer.cls_token_id, *ids, tokenizer.sep_token_id]])
        with torch.no_grad():
            layers = encoder(
                input_ids=given, attention_mask=torch.ones_like(given), output_hidden_states=True
            ).hidden_states
        assert len(layers) == 1 + backbone.n_layers
        middle = layers[(1 + backbone.n_layers) // 2][0].mean(0)
        torch.testing.assert_close(vector, F.normalize(middle, dim=-1), rtol=1e-4, atol=1e-5)


def test_special_tokens_that_a_text_spells_stay_text() -> None:
    face = face_of()
    special = set(face.tokenizer.all_special_ids) - {face.tokenizer.unk_token_id}
    (ids,) = rows_of(face.tokens([SPELLED]))
    assert (ids[0], ids[-1]) == (face.tokenizer.cls_token_id, face.tokenizer.sep_token_id)
    assert not special & set(ids[1:-1])
    plain = face.tokenizer(SPELLED, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert ids[1:-1] == plain


def test_a_long_text_is_cut_between_its_special_tokens() -> None:
    face = face_of(max_length=8)
    long, short = rows_of(face.tokens(["w1 w2 w3 w4 w5 w6 w7 w8 w9", "w1 w2"]))
    assert (len(long), len(short)) == (8, 4)
    assert long[-1] == short[-1] == face.tokenizer.sep_token_id
    assert long[1:3] == short[1:3]
    assert torch.equal(face.vectors([("w1 " * 6 + "good", None)]), face.vectors([("w1 " * 6 + "bad", None)]))


def test_the_makers_limit_holds_where_it_is_lower() -> None:
    backbone = tiny_backbone()
    for said, expected in ((8, 8), (99, 32), (None, 32)):
        assert TextFace(backbone.untouched, backbone.tokenizer, Pooling(max_length=said), 32).max_length == expected
    assert text_face_of(backbone, 4096).max_length == backbone.max_length


def test_prefix_and_lower_case_are_for_every_text() -> None:
    plain, own = face_of(), face_of(prefix="W1 ", lower=True)
    assert rows_of(own.tokens(["GOOD film"])) == rows_of(plain.tokens(["W1 good film"]))
    a, b = own.vectors([("GOOD film", "Bad")]), plain.vectors([("W1 good film", "W1 bad")])
    assert torch.equal(a, b)


def test_of_a_pair_both_are_read_alone_and_joined() -> None:
    face = face_of()
    first, second = (face.vectors([(text, None) for text in texts]) for texts in (TEXTS, TEXTS[::-1]))
    told: list[int] = []
    found = face.vectors(list(zip(TEXTS, TEXTS[::-1], strict=True)), told.append)
    assert found.shape == (5, face.width(is_pair=True)) == (5, 97)
    assert torch.equal(found, joined(first, second))
    assert told == [5]
    encoded = face.encode([("w1", None), ("w2", "")])
    assert encoded.features is not None
    assert encoded.features.values.shape == (2, 97)  # one that has no second text beside one that has


def test_order_and_neighbours_change_nothing_to_speak_of() -> None:
    face = face_of()
    rows = [(f"w{i % 40} " * (1 + i % 20), None) for i in range(150)]  # more than one batch
    found = face.vectors(rows)
    torch.testing.assert_close(face.vectors(rows[::-1]).flip(0), found, rtol=0, atol=1e-6)
    torch.testing.assert_close(face.vectors(rows[:1]), found[:1], rtol=0, atol=1e-6)


def test_the_checksum_tells_weights_and_pooling_and_not_the_precision() -> None:
    face = face_of()
    assert face.checksum() == face_of(max_length=9).checksum()
    assert face.checksum() != face_of(mode="max").checksum()
    assert face.checksum() != face_of(prefix="w1 ").checksum()
    other = tiny_backbone(seed=9)
    assert face.checksum() != TextFace(other.untouched, other.tokenizer, Pooling(), 32).checksum()
    rounded = copy.deepcopy(face.encoder).to(torch.bfloat16)
    assert TextFace(rounded, face.tokenizer, Pooling(), 32).checksum() == face.checksum()


def test_it_is_no_part_of_what_a_stage_trains() -> None:
    face = face_of()
    assert not face.encoder.training
    assert not any(parameter.requires_grad for parameter in face.encoder.parameters())
    assert not face.vectors([("w1", None)]).requires_grad


def test_a_shared_face_reads_the_same_texts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    face, passes = face_of(), []
    shared, embed = SharedFace(face), TextFace.embed
    monkeypatch.setattr(TextFace, "embed", lambda self, rows: passes.append(len(rows)) or embed(self, rows))
    texts: list[Any] = [("w1 good", None), ("w2", None)]
    first = shared.encode(texts)
    assert shared.encode(list(texts)) is first
    texts[1] = ("w3", None)
    second = shared.encode(texts)
    assert passes == [2, 2]
    assert first.features is not None
    assert second.features is not None
    assert torch.equal(torch.from_numpy(second.features.values), face.vectors(texts))
