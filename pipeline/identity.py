"""Which backbone something was made on, in terms that hold in another folder and another precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from listflow.data.schema import Section


class Identity(Section):
    """Type and checksum of a backbone's parameters, and the checksum of what they round to in bfloat16.

    The latter is empty in records of earlier versions.
    """

    dtype: str
    checksum: str
    rounded: str = ""

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Self:
        """What a ``record`` says of it, among other things."""
        return cls.model_validate({name: record[name] for name in cls.model_fields if name in record})

    def is_of(self, other: Identity) -> bool:
        """Whether both are of one backbone; between two types, as far as the coarser one can tell.

        bfloat16 is made of float32 by rounding, and nothing gives the lost bits back. True where a record lacks what it
        would take to tell.
        """
        if self.dtype == other.dtype:
            return self.checksum == other.checksum
        return not (self.rounded and other.rounded) or self.rounded == other.rounded
