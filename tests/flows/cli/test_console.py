"""What is said of a long count where no line can move."""

from io import StringIO

from rich.console import Console

from listflow.flows.cli.console import Count, counted


def test_every_tenth_is_said_once() -> None:
    said = StringIO()
    with Count(Console(file=said, width=200), "begin") as count:
        for name in ("one", "two"):
            for done in range(1, 41):
                count.show(done, 40, name, f"loss {done}")
    lines = said.getvalue().splitlines()
    assert len(lines) == 22
    assert (lines[0], lines[1], lines[10]) == ("one: 1 of 40 loss 1", "one: 4 of 40 loss 4", "one: 40 of 40 loss 40")
    assert lines[11] == "two: 1 of 40 loss 1"


def test_a_terminal_shows_one_line_that_is_gone_at_the_end() -> None:
    said = StringIO()
    with Count(Console(file=said, width=100, force_terminal=True), "begin") as count:
        count.show(40, 40, "one")
        count.show(1, 40, "two", "loss 0.5")
    assert "two" in said.getvalue()
    assert said.getvalue().endswith("\x1b[2K")


def test_one_of_something_is_singular() -> None:
    assert [counted(count, "row") for count in (0, 1, 2, 1000)] == ["0 rows", "1 row", "2 rows", "1,000 rows"]
