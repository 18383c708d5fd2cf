"""The gate for cells of files and items of Python lists: what is a text, a label, or nothing."""

import unicodedata
from typing import Any

import numpy as np
import pandas as pd
import pytest

from listflow.data.errors import InputError
from listflow.data.values import known_label, label_of, text_of, texts_of

NFC, NFD = "café", unicodedata.normalize("NFD", "café")
NAN = float("nan")


@pytest.mark.parametrize("value", [None, NAN, np.float32("nan"), np.float64("nan"), pd.NA, pd.NaT])
def test_what_is_missing_is_nothing(value: Any) -> None:
    assert (text_of("x", value), label_of("x", value)) == ("", "")


@pytest.mark.parametrize(
    ("value", "label"),
    [
        (True, "true"), (False, "false"), (np.True_, "true"), (1, "1"), (0.0, "0"), (-0.0, "0"), (1.0, "1"),
        (-1.0, "-1"), (np.float64(3.0), "3"), (np.float32(2), "2"), (np.int8(7), "7"), (0.5, "0.5"),
        (1e300, "1e+300"), (" True ", "True"), ("010", "010"), ("1.0", "1.0"), (NFD, NFC), ("nan", "nan"), ("Ⅷ", "Ⅷ"),
    ],
)  # fmt: skip
def test_a_label_is_written_in_one_way(value: Any, label: str) -> None:
    assert label_of("x", value) == label


@pytest.mark.parametrize(("value", "text"), [(" a ", "a"), (7, "7"), (7.0, "7.0"), (NFD, NFD), (True, "True")])
def test_a_text_keeps_its_characters(value: Any, text: str) -> None:
    assert text_of("x", value) == text


@pytest.mark.parametrize(("value", "kind"), [(["a"], "list"), ({}, "dict"), (b"a", "bytes")])
def test_what_is_no_text_is_named(value: Any, kind: str) -> None:
    for read in (text_of, label_of):
        with pytest.raises(InputError, match=f"^x.csv, row 3: column 'text' holds a {kind}; it must hold text.$"):
            read("x.csv, row 3: column 'text'", value)


@pytest.mark.parametrize(
    ("label", "labels", "found"),
    [
        ("true", ["True", "False"], "True"), ("TRUE", ["true", "false"], "true"), ("1", ["0.0", "1.0"], "1.0"),
        ("1.0", ["0", "1"], "1"), ("True", ["true", "True"], "True"), ("TRUE", ["true", "True"], None),
        (NFC, [NFD, "tea"], NFD), ("Tea", ["tea"], None), ("010", ["10"], None), ("1.5", ["1"], None),
        ("-1", ["1.0", "-1.00"], "-1.00"),
    ],
)  # fmt: skip
def test_a_label_is_known_however_its_format_writes_it(label: str, labels: list[str], found: str | None) -> None:
    assert known_label(label, labels) == found


@pytest.mark.parametrize(
    "texts",
    [["a", "b"], ("a", "b"), np.array(["a", "b"]), pd.Series(["a", "b"]), iter(["a", "b"]), [("a", None), ["b", ""]]],
)
def test_texts_of_a_list(texts: Any) -> None:
    assert texts_of(texts, is_pair=False) == [("a", None), ("b", None)]


def test_texts_keep_their_blank_ends() -> None:
    assert texts_of([" a\n"], is_pair=False) == [(" a\n", None)]
    assert texts_of([("a ", " b")], is_pair=True) == [("a ", " b")]


@pytest.mark.parametrize("texts", [[("a", "b"), ("c", "")], np.array([["a", "b"], ["c", ""]])])
def test_pairs_of_a_list(texts: Any) -> None:
    assert texts_of(texts, is_pair=True) == [("a", "b"), ("c", "")]


def test_no_texts_are_no_rows() -> None:
    assert texts_of([], is_pair=False) == texts_of((), is_pair=True) == []


@pytest.mark.parametrize(
    ("texts", "is_pair", "said"),
    [
        ("one text", False, "one text is given where a list of texts is read; put it in a list: [text]."),
        (np.array("one text"), False, "one text is given where a list of texts is read; put it in a list: [text]."),
        (b"bytes", False, "one text is given where a list of texts is read; put it in a list: [text]."),
        (None, False, "a NoneType is given where a list of texts is read; pass a list: [text]."),
        ({"text": ["a"]}, False, "a dict is given where a list of texts is read; pass one column, as a list of its "
         "texts."),
        (pd.DataFrame({"text": ["a"]}), False, "a DataFrame is given where a list of texts is read; pass one column, "
         "as a list of its texts."),
        (["a", None], False, "texts[1] is missing; pass a text, or '' for none."),
        (["a", NAN], False, "texts[1] is missing; pass a text, or '' for none."),
        (pd.Series(["a", pd.NA]), False, "texts[1] is missing; pass a text, or '' for none."),
        (["a", b"b"], False, "texts[1] holds a bytes; it must hold text."),
        (["a", "\ud83d"], False, "texts[1] holds half a character; write it as UTF-8."),
        ([("a", "b")], False, "texts[0] has a second text where the task reads one; leave it out."),
        ([("a", "b", "c")], True, "texts[0] holds 3 items; pass (text, second text)."),
        ([("a", "b"), "c"], True, "texts[1] is one text where the task reads two; pass (text, second text)."),
        ([("a", None)], True, "texts[0][1] is missing; pass a text, or '' for none."),
    ],
)  # fmt: skip
def test_what_is_no_list_of_texts_is_refused_with_its_index(texts: Any, is_pair: bool, said: str) -> None:
    with pytest.raises(InputError) as refused:
        texts_of(texts, is_pair=is_pair)
    assert str(refused.value) == said
