"""Templates keep their mask whatever the text."""

from __future__ import annotations

import pytest
from tiny import tiny_backbone, tiny_tokenizer

from listflow.data.errors import InputError
from listflow.data.task import Task
from listflow.pipeline.backbone.prompt import Prompt

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


def test_texts_keep_their_case_unless_the_task_lowers_them() -> None:
    upper = SINGLE.model_copy(update={"lower": True})
    assert decoded(SINGLE, "W1 w2")[1:3] == ["[UNK]", "w2"]
    assert decoded(upper, "W1 w2")[1:3] == ["w1", "w2"]


def test_unknown_tokens_are_counted_without_the_template() -> None:
    """Two of five, though the template brings words of its own, one of them unknown; and none where bytes are read."""
    tokenizer = tiny_tokenizer()
    task = Task(name="t", template="{text} zzz it was {mask} .", labels={"a": "bad", "b": "good"})
    prompt = Prompt(task, tokenizer, 32)
    encoded = prompt.encode([("w1 w2 🍕", None), ("🚂", None), ("w3", None)])
    found = prompt.tally(encoded)
    assert (found.tokens, found.unknown, found.share) == (5, 2, 0.4)
    assert prompt.met == found
    assert prompt.tally(prompt.encode([("", None)])).share == 0
    tokenizer.unk_token = None
    assert Prompt(task.model_copy(update={"template": "{text} it {mask}"}), tokenizer, 32).tally(encoded).unknown == 0


def test_a_key_says_what_decides_the_tokens() -> None:
    key = Prompt(SINGLE, TOKENS, 16).key()
    used = Prompt(SINGLE, tiny_tokenizer(), 16)
    used.encode([("a film", None)])
    assert len(key) == 64
    assert used.key() == key
    lower = SINGLE.model_copy(update={"lower": not SINGLE.lower})
    other = SINGLE.model_copy(update={"template": "{text} , {mask} ."})
    words = tiny_tokenizer()
    words.add_tokens(["another"])
    keys = {Prompt(task, TOKENS, length).key() for task, length in ((lower, 16), (other, 16), (PAIR, 16), (SINGLE, 17))}
    assert len(keys | {key, Prompt(SINGLE, words, 16).key()}) == 6
