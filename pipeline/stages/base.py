"""What stages that live in some of the layers have in common: which layers these are."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from listflow.data.errors import InputError
from listflow.data.schema import Section

Layers = Annotated[
    Literal["all"] | Annotated[str, Field(pattern=r"^top:[1-9]\d*$")] | tuple[Annotated[int, Field(ge=0)], ...],
    Field(description="all, top:N, or a list of layer numbers from 0 upward"),
]


class Layered(Section):
    """A stage that lives in some of the layers."""

    layers: Layers = "all"

    def chosen(self, count: int) -> list[int]:
        """The numbers of its layers in a backbone of ``count``, ascending; InputError for one that is not there."""
        if self.layers == "all":
            return list(range(count))
        if isinstance(self.layers, str):
            return list(range(max(0, count - int(self.layers.removeprefix("top:"))), count))
        if not self.layers or max(self.layers) >= count:
            raise InputError(f"layers {list(self.layers)} do not fit a backbone with layers 0 to {count - 1}.")
        return sorted(set(self.layers))

    def lowest(self, count: int) -> int:
        """The first layer that it touches."""
        return self.chosen(count)[0]
