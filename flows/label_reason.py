"""Why a range of shards was not labelled to its end, carried by the state of its task or flow run: from any machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from prefect.states import Failed, State

from listflow.data.errors import InputError

REFUSED = "Refused"


@dataclass(frozen=True)
class Reason:
    """``is_refusal``: the words are the sentence of an InputError."""

    words: str
    is_refusal: bool = False


def or_refused(label: Callable[[], int]) -> int | State[Any]:
    """What ``label`` returns, or a state that says the sentence of its InputError."""
    try:
        return label()
    except InputError as error:
        return Failed(name=REFUSED, message=str(error))


def reason_of(state: State[Any]) -> Reason | None:
    """Why what has ended in ``state`` failed; None where it did not."""
    return None if state.is_completed() else Reason(str(state.message), state.name == REFUSED)
