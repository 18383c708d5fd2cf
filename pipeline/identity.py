"""Which backbone something was made on, in terms that hold in another folder and another precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.section import Section


class Identity(Section):
    """Type and checksum of a backbone's parameters, and the checksum of what they round to in bfloat16."""

    dtype: str
    checksum: str
    rounded: str

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Identity:
        """The identity that is part of a ``record``."""
        return cls.model_validate({name: record.get(name) for name in cls.model_fields})

    def is_of(self, other: Identity) -> bool:
        """Whether both are of one backbone; between two types, as far as the coarser one can tell.

        bfloat16 is made of float32 by rounding, and nothing gives the lost bits back.
        """
        return self.checksum == other.checksum if self.dtype == other.dtype else self.rounded == other.rounded
