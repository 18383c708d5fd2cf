"""A label's row starts at its word's, or at the mean of its pieces', and no label is refused for its name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from merged_models import backbone_of
from tiny import CONFIGS, tiny_backbone

from listflow.data.errors import InputError
from listflow.data.task import Task
from listflow.pipeline.backbone import pretrained
from listflow.pipeline.backbone.backbone import Backbone
from listflow.pipeline.backbone.prompt import Prompt
from listflow.pipeline.model.classifier import Classifier, logits_of
from listflow.pipeline.model.config import LinearHead, VerbalizerHead, YTuningHead
from listflow.pipeline.model.label_names import fill_in_words
from listflow.pipeline.model.verbalizer import label_word_ids, start_rows, word_ids_for, word_notices
from listflow.pipeline.stages.presets import stages
from listflow.pipeline.training.trainer import Material, Recipe, Trainer

LABELS = {"no": "a bad film", "yes": "good", "odd": "zzz"}


def task(labels: dict[str, Any]) -> Task:
    return Task.model_validate({"name": "t", "template": "{text} it was {mask} .", "labels": labels})


def words_of(labels: dict[str, Any], backbone: Backbone) -> tuple[tuple[int, ...], ...]:
    return label_word_ids(task(labels), backbone.tokenizer)


def build(labels: dict[str, Any], backbone: Backbone, head: Any, seed: int = 0) -> Classifier:
    words = word_ids_for(head, task(labels), backbone)
    return Classifier(backbone, stages("list", width=4), head, words, seed)


@pytest.mark.parametrize("family", CONFIGS)
def test_a_row_starts_at_the_mean_of_its_pieces(family: str) -> None:
    """The bias too; and of a single word it is the word's own row to the last bit."""
    backbone = backbone_of(family)
    a, bad, film, good = backbone.tokenizer.convert_tokens_to_ids(["a", "bad", "film", "good"])
    assert words_of(LABELS, backbone) == ((a, bad, film), (good,), ())
    rows, bias = backbone.word_rows, backbone.model.get_parameter(backbone.family.decoder_bias)
    words = build(LABELS, backbone, VerbalizerHead()).head.words
    with torch.no_grad():
        torch.testing.assert_close(words.weight[0], (rows[a] + rows[bad] + rows[film]) / 3)
        torch.testing.assert_close(words.bias[0], (bias[a] + bias[bad] + bias[film]) / 3)
        assert torch.equal(words.weight[1], rows[good])
        assert torch.equal(words.bias[1], bias[good])
        torch.testing.assert_close(words.weight[2], words.weight[:2].mean(0))
        torch.testing.assert_close(words.bias[2], words.bias[:2].mean())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_single_words_start_as_their_rows_are(dtype: torch.dtype) -> None:
    table = torch.randn(50, 7, generator=torch.Generator().manual_seed(0)).to(dtype)
    ids = [9, 3, 41]
    found = start_rows(table, [(i,) for i in ids])
    assert found.dtype == torch.float32
    assert torch.equal(found, table[ids].float())
    assert torch.equal(start_rows(table[:, 0], [(i,) for i in ids]), table[ids, 0].float())


def test_where_no_label_is_known_all_start_at_the_middle() -> None:
    table = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(start_rows(table, [(), ()]), table.mean(0).expand(2, -1))


def test_label_vectors_start_at_the_mean_too() -> None:
    backbone = tiny_backbone()
    head = YTuningHead(start="words", temperature=1.0)
    labels = build(LABELS, backbone, head).head.labels
    plain = build(LABELS, backbone, head.model_copy(update={"start": "normal"})).head.labels
    rows = start_rows(backbone.word_rows, words_of(LABELS, backbone))
    with torch.no_grad():
        torch.testing.assert_close(labels - plain, torch.nn.functional.layer_norm(rows, (32,)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("head", [VerbalizerHead(), YTuningHead(width=16)])
def test_labels_that_start_alike_are_told_apart_by_training(head: Any) -> None:
    """Two names that the tokenizer does not know, and the same bytes every time."""
    backbone = tiny_backbone()
    names, texts = {"xxx": None, "yyy": None}, [("w1 w2", None), ("w3 w4 w5", None)] * 4
    encoded = Prompt(task(names), backbone.tokenizer, 32).encode(texts)
    gold = torch.tensor([0, 1] * 4)

    def trained() -> Classifier:
        model = build(names, backbone, head, seed=1)
        Trainer(model, Recipe((("labelled", 40),), 0.02, 1, 8, seed=1), Material(encoded, gold)).run()
        return model

    model, again = trained(), trained()
    assert logits_of(model, encoded).argmax(1).tolist() == gold.tolist()
    assert all(torch.equal(value, again.tensors()[name]) for name, value in model.tensors().items())


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (["bad_film", "BadFilm"], "'bad_film' and 'BadFilm' are two labels of one name after tidying, 'bad film'"),
        ({"good": None, "yes": "good"}, "'good' and 'yes' are two labels of one name after tidying, 'good'"),
        (["bad-zzz", "bad_zzz"], "'bad-zzz' and 'bad_zzz' are two labels of one name after tidying, 'bad zzz'"),
    ],
)
def test_two_labels_of_one_name_are_refused(labels: Any, told: str) -> None:
    with pytest.raises(InputError) as raised:
        label_word_ids(task(labels), tiny_backbone().tokenizer)
    assert str(raised.value) == f"task 't': {told}; give one of them another word in a task file."


def test_labels_in_two_cases_start_alike() -> None:
    found = words_of(dict.fromkeys(["good", "Good", "bad"]), tiny_backbone())
    assert found[0] == found[1] != found[2]


def test_names_that_differ_are_two_labels_though_neither_is_known() -> None:
    assert words_of(dict.fromkeys(["xxx", "yyy", "bad xxx", "bad yyy"]), tiny_backbone())[:2] == ((), ())
    assert len({"-1", "1"}) == len(words_of(dict.fromkeys(["-1", "1"]), tiny_backbone()))


def test_labels_that_would_stay_alike_are_refused() -> None:
    backbone, still = tiny_backbone(), VerbalizerHead(trained=False)
    assert word_ids_for(still, task({"good": None, "bad": None}), backbone)
    for labels in (["xxx", "yyy", "good"], ["xxx", "good"]):
        with pytest.raises(InputError, match=r"'xxx' and '\w+' start alike.*head.trained=false"):
            word_ids_for(still, task(dict.fromkeys(labels)), backbone)


def test_a_head_that_reads_no_words_has_none() -> None:
    assert word_ids_for(LinearHead(), task(dict.fromkeys(["xxx", "good"])), tiny_backbone()) == ((), ())


def test_names_of_several_tokens_are_one_sentence() -> None:
    tokenizer = tiny_backbone().tokenizer
    assert list(word_notices(task({"good": None, "bad": "fine"}), tokenizer)) == []
    assert list(word_notices(task(["bad_film", "good"]), tokenizer)) == [
        "1 label has a name of several tokens, which starts at the mean of its pieces (such as 'bad film'); a task "
        "file can name single words."
    ]
    many = ["a film", "a plot", "the film", "zzz", "yyy"]
    assert list(word_notices(task(many), tokenizer)) == [
        "3 labels have names of several tokens, which start at the mean of their pieces (such as 'a film' and 'a "
        "plot'); a task file can name single words.",
        "2 labels have names that the backbone does not know, which start at the mean of the others (such as 'zzz' "
        "and 'yyy'); a task file can name words that it knows.",
    ]


def test_no_name_is_cut_to_a_word_of_it_with_a_real_tokenizer() -> None:
    tokenizer = pretrained.load_base()[1]
    names = ["Refund_not_showing_up", "hateful", "Sci/Tech", "billing"]
    named = fill_in_words(task(names))
    assert list(named.labels.values()) == ["refund not showing up", "hateful", "sci tech", "billing"]
    spelled = [tokenizer.convert_ids_to_tokens(list(ids)) for ids in label_word_ids(named, tokenizer)]
    assert spelled[0][:2] == ["ref", "##und"]
    assert spelled[0][2:] == ["not", "showing", "up"]
    assert (len(spelled[1]) > 1, spelled[3]) == (True, ["billing"])
