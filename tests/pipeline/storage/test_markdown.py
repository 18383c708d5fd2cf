"""What a renderer makes of a text from anywhere: that text, and nothing else."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from listflow.pipeline.storage.markdown import code, plain, table

RENDERER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
SHOWN = {"text", "text_special", "code_inline"}
HOSTILE = (
    '<img src="http://x.test/a"> the soup', "![p](http://x.test/b) [pay](javascript:alert(1))", "| a | b |", "a\\|b",
    "\\", "`a` ``b", "# head #", "1. one", "12) two", "- item", "+ item", "===", "---", "***", "[a]: http://x.test",
    "<http://x.test>", "&lt;b&gt; &#60;", "www.x.test", "a@x.test", "~~no~~ $x$", "a\n\n    code", "<!-- -->", "[^1]",
)  # fmt: skip
texts = st.one_of(
    st.sampled_from(HOSTILE), st.text(st.sampled_from("\\`*_[]()<>&|~#!-+=:/.1a \n\"'"), max_size=20), st.text()
)


def shown(document: str) -> tuple[str, set[str]]:
    """All text that a reader sees, and the kinds of what it is made of."""
    inline: list[Token] = [part for block in RENDERER.parse(document) for part in block.children or ()]
    return "".join(part.content for part in inline), {part.type for part in inline} - SHOWN


def as_seen(text: str) -> str:
    return " ".join(text.replace("\0", "\ufffd").split())


@given(texts)
def test_a_text_is_what_is_read(text: str) -> None:
    for make in (plain, code):
        for document in (
            make(text),
            f"# {make(text)}",
            f"- {make(text)}",
            f"words {make(text)}",
            f"{make(text)} words",
        ):
            read, others = shown(document)
            assert not others
            assert read.removeprefix("words").removesuffix("words").strip() == as_seen(text), document


@given(texts, texts)
def test_a_cell_is_what_is_read(first: str, second: str) -> None:
    for make in (plain, code):
        document = "\n".join(table((make(f"a {first} a"), "b:"), [(make(f"a {first}"), make(f"b {second}"))]))
        read, others = shown(document)
        assert not others
        assert read == as_seen(f"a {first} a") + "b" + as_seen(f"a {first}") + as_seen(f"b {second}")


@pytest.mark.parametrize("text", ["the soup was cold.", "85.0 % accuracy, 3 of 9 rows; a-b (c)", "a: b", "x/y 1.5"])
def test_plain_words_stay_plain(text: str) -> None:
    assert plain(text) == text


@pytest.mark.parametrize("text", ["http://x.test/a", "www.x.test", "WWW.x.test", "a@x.test", "<http://x.test>"])
def test_no_address_is_found_by_those_that_look_for_them(text: str) -> None:
    """As the pages of Prefect do, in the text of the document."""
    assert not re.search(r"https?://|www\.|\w@\w", plain(text), re.IGNORECASE)


def test_code_and_tables() -> None:
    assert code("a | ![x](http://x.test/y.png)\n<b>") == "`a | ![x](http://x.test/y.png) <b>`"
    assert code("<b>`c`</b>") == r"\<b\>\`c\`\</b\>"
    assert code(" \n") == ""
    assert table(("a", "b:"), [("1", "`2|3`")]) == ["| a | b |", "| --- | ---: |", "| 1 | `2\\|3` |"]
