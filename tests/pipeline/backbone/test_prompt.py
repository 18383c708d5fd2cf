"""Templates keep their mask whatever the text; label words are single tokens or a clear refusal."""

from __future__ import annotations

import pytest
from tiny import tiny_backbone

from listflow.data.errors import InputError
from listflow.data.task import Task
from listflow.pipeline.backbone import pretrained
from listflow.pipeline.backbone.prompt import Prompt
from listflow.pipeline.model.verbalizer import fill_in_words, label_word_ids

BACKBONE = tiny_backbone()
TOKENS = BACKBONE.tokenizer
SINGLE = Task(name="one", template="{text} it was {mask} .", labels={"no": "bad", "yes": "good"})
PAIR = Task(name="two", template="{text_a} ? {mask} , {text_b}", labels={"no": "bad", "yes": "good"})


def decoded(task: Task, text: str, pair: str | None = None, length: int = 16) -> list[str]:
    encoded = Prompt(task, TOKENS, length).encode([(text, pair)])
    tokens: list[str] = TOKENS.convert_ids_to_tokens(encoded.ids.tolist())
    assert tokens[encoded.mask_at[0]] == "[MASK]"
    return tokens


def test_template_around_a_text() -> None:
    assert decoded(SINGLE, "a film") == ["[CLS]", "a", "film", "it", "was", "[MASK]", ".", "[SEP]"]


def test_a_long_text_is_cut_and_the_template_stays() -> None:
    tokens = decoded(SINGLE, "w1 " * 500)
    assert len(tokens) == 16
    assert tokens[-5:] == ["it", "was", "[MASK]", ".", "[SEP]"]


@pytest.mark.parametrize(("first", "second", "kept"), [(500, 500, (5, 6)), (500, 2, (9, 2)), (1, 500, (1, 10))])
def test_both_texts_of_a_pair_are_shortened_fairly(first: int, second: int, kept: tuple[int, int]) -> None:
    tokens = decoded(PAIR, "w1 " * first, "w2 " * second)
    assert (tokens.count("w1"), tokens.count("w2")) == kept
    assert len(tokens) == 16


def test_a_text_that_spells_a_special_token_stays_text() -> None:
    tokens = decoded(SINGLE, "[MASK] [SEP] w1", length=32)
    assert tokens.count("[MASK]") == 1
    assert tokens.count("[SEP]") == 1


def test_a_template_without_room_for_text_is_refused() -> None:
    long = Task(name="long", template="{text} " + "it was " * 10 + "{mask}", labels={"no": "bad", "yes": "good"})
    with pytest.raises(InputError, match="leaves no room"):
        Prompt(long, TOKENS, 16)


def test_batches_pad_on_the_right_and_take_keeps_order() -> None:
    encoded = Prompt(SINGLE, TOKENS, 32).encode([("w1 w2 w3", None), ("w4", None), ("w5 w6", None)])
    batch = encoded.take([2, 0]).batch([0, 1])
    assert batch.attention.sum(1).tolist() == [8, 9]
    assert batch.ids[0, 8].item() == TOKENS.pad_token_id
    assert TOKENS.convert_ids_to_tokens(batch.ids[1, 1:4].tolist()) == ["w1", "w2", "w3"]


def test_a_word_of_several_tokens_is_refused_with_one_that_works() -> None:
    task = Task(name="t", template="{text} {mask}", labels={"no": "bad film", "yes": "good"})
    with pytest.raises(InputError, match=r"'bad film' of label 'no' is 2 tokens.*\"no\": bad"):
        label_word_ids(task, TOKENS, BACKBONE.word_rows)


def test_two_labels_with_one_word_are_refused() -> None:
    task = Task(name="t", template="{text} {mask}", labels={"good": None, "yes": "good"})
    with pytest.raises(InputError, match="share the word"):
        label_word_ids(task, TOKENS, BACKBONE.word_rows)


def test_missing_words_are_suggested_by_a_real_model() -> None:
    model, tokenizer = pretrained.load_minilm()
    rows = model.get_input_embeddings().weight.detach()
    labels = dict.fromkeys(["refund_request", "unsubscribing", "Sci/Tech"])
    task = Task(name="t", template="{text} {mask}", labels=labels)
    with pytest.raises(InputError, match=r"'refund_request' has no label word.*request"):
        label_word_ids(task, tokenizer, rows)
    filled, notices = fill_in_words(task, tokenizer, rows)
    assert len(label_word_ids(filled, tokenizer, rows)) == 3
    assert "request" in notices[0]


def test_a_word_that_the_tokenizer_does_not_know_is_never_chosen() -> None:
    model, tokenizer = pretrained.load_minilm()
    rows = model.get_input_embeddings().weight.detach()
    task = Task(name="t", template="{text} {mask}", labels=dict.fromkeys(["ልጅነት", "good"]))
    with pytest.raises(InputError, match="is unknown to the backbone"):
        label_word_ids(task, tokenizer, rows)
    filled, _ = fill_in_words(task, tokenizer, rows)
    assert tokenizer.unk_token_id not in label_word_ids(filled, tokenizer, rows)


def test_texts_keep_their_case_unless_the_task_lowers_them() -> None:
    upper = SINGLE.model_copy(update={"lower": True})
    assert decoded(SINGLE, "W1 w2")[1:3] == ["[UNK]", "w2"]
    assert decoded(upper, "W1 w2")[1:3] == ["w1", "w2"]
