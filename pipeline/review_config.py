"""Whether a run asks a person about contested rows, which rounds ask, and how long it waits."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from listflow.data.schema import Section

Round = Annotated[int, Field(ge=1)]


class ReviewConfig(Section):
    """A pause after pseudo-labelling in which a person corrects the most contested rows."""

    rows: int = Field(0, ge=0, le=500, description="contested rows that a round asks about; 0: no review")
    rounds: Literal["first", "all"] | tuple[Round, ...] = Field(
        "first", description="first, all (but the last, which no round follows), or a list of rounds such as [1, 3]"
    )
    timeout: float = Field(
        60,
        ge=0,
        le=10_080,
        description="minutes to wait for answers; 0: go on at once, answers count until the next round",
    )

    def asks(self, number: int, count: int) -> bool:
        """Whether round ``number`` of ``count`` asks: its answers are labelled rows from the next one on."""
        if not self.rows or not 1 <= number < count:
            return False
        if isinstance(self.rounds, str):
            return self.rounds == "all" or number == 1
        return number in self.rounds

    def too_late(self, count: int) -> str:
        """What is wrong where a round of ``count`` is to ask and none follows it; empty where nothing is."""
        late = [number for number in self.rounds if number >= count] if isinstance(self.rounds, tuple) else []
        if not self.rows or (count > 1 and not late):
            return ""
        return (
            f"round {late[0] if late else 1} of {count} cannot ask for a review: its answers are for the round after it"
        )
