"""Which texts a corpus has had, or may never have: an index on disk, so that memory does not grow with it.

The index covers all of the corpus's history, and knows a text by two digests. Of texts that may never come in no shard
has the rows, so their digests are kept in a file of their own too, to make the index again from.
"""

from __future__ import annotations

import hashlib
import sqlite3
import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from listflow.data.errors import InputError
from listflow.data.files import replacing
from listflow.data.shards import INDEX, KEPT_OUT_FILE

Verdict = Literal["new", "exact", "near", "kept out"]
KEPT_OUT = 0  # in place of a shard's number: texts that may never come in
ASKED_AT_ONCE = 500  # sqlite takes a limited number of values
DIGEST_BYTES = 16
_TABLE = "CREATE TABLE IF NOT EXISTS seen (near BLOB PRIMARY KEY, exact BLOB, shard INTEGER) WITHOUT ROWID"


@dataclass(frozen=True)
class Keys:
    """Two digests of 16 bytes: of a text as it is, and of its words alone."""

    exact: bytes
    near: bytes

    @staticmethod
    def of(text: str, pair: str | None) -> Keys:
        """Texts that differ in case, white space, punctuation or symbols only have one ``near``.

        Where nothing but these is left (``:)``), it is the text itself that counts.
        """
        parts = [text] if pair is None else [text, pair]
        words = [" ".join(part.casefold().translate(_WORDS).split()) for part in parts]
        exact = _digest("\0".join(parts))
        return Keys(exact, _digest("\0".join(words)) if any(words) else exact)


def keys_of(texts: Iterable[tuple[str, str | None]]) -> list[Keys]:
    """The keys of (text, second text or None) pairs."""
    return [Keys.of(text, pair) for text, pair in texts]


class Seen:
    """The index at ``path``; InputError when it is damaged. Nothing is kept before ``commit``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._base = sqlite3.connect(path)
            self._base.execute("PRAGMA cache_size = -65536")
            self._base.execute(_TABLE)
        except sqlite3.DatabaseError as error:
            raise InputError(f"{path}: is no readable index ({error}); delete it, and it is made again.") from error

    def __enter__(self) -> Seen:
        return self

    def __exit__(self, *ended: object) -> None:
        self._base.close()

    def judge(self, texts: Sequence[Keys], shard: int) -> list[Verdict]:
        """A verdict for each text; the new ones are remembered as rows of ``shard``.

        ``exact`` and ``near`` say which of a text's two digests the corpus has had.
        """
        known = self._known(texts)
        fresh: dict[bytes, bytes] = {}
        verdicts: list[Verdict] = []
        for keys in texts:
            exact, where = known.get(keys.near, (fresh.get(keys.near), shard))
            if exact is None:
                fresh[keys.near] = keys.exact
                verdicts.append("new")
            elif where == KEPT_OUT:
                verdicts.append("kept out")
            else:
                verdicts.append("exact" if exact == keys.exact else "near")
        self._base.executemany(
            "INSERT INTO seen VALUES (?, ?, ?)", ((near, exact, shard) for near, exact in fresh.items())
        )
        return verdicts

    def kept_out(self) -> list[Keys]:
        """The texts that may never come in, in one order however they came."""
        found = self._base.execute("SELECT exact, near FROM seen WHERE shard = ? ORDER BY near", (KEPT_OUT,))
        return [Keys(exact, near) for exact, near in found]

    def last_shard(self) -> int:
        """The highest shard with a text in the index; 0 without any."""
        with closing(self._base.execute("SELECT max(shard) FROM seen")) as found:
            return int(found.fetchone()[0] or 0)

    def forget_after(self, shard: int) -> None:
        """Drops the texts of later shards: those of an ingest that never ended."""
        self._base.execute("DELETE FROM seen WHERE shard > ?", (shard,))

    def commit(self) -> None:
        """Keeps what was remembered and dropped since the last time."""
        self._base.commit()

    def _known(self, texts: Sequence[Keys]) -> dict[bytes, tuple[bytes, int]]:
        """(exact, shard) of those that are in the index, by ``near``."""
        wanted = list({keys.near for keys in texts})
        found: dict[bytes, tuple[bytes, int]] = {}
        for start in range(0, len(wanted), ASKED_AT_ONCE):
            some = wanted[start : start + ASKED_AT_ONCE]
            marks = ",".join("?" * len(some))
            rows = self._base.execute(f"SELECT near, exact, shard FROM seen WHERE near IN ({marks})", some)
            found |= {near: (exact, shard) for near, exact, shard in rows}
        return found


def read_kept_out(folder: Path) -> list[Keys]:
    """What ``write_kept_out`` wrote, nothing before that; InputError when it is damaged."""
    path = folder / KEPT_OUT_FILE
    try:
        lines = [bytes.fromhex(line) for line in path.read_text("ascii").splitlines()]
    except FileNotFoundError:
        return []
    except ValueError:
        lines = [b""]
    if any(len(line) != 2 * DIGEST_BYTES for line in lines):
        raise InputError(f"{path} is damaged; delete it, and it is made again from {INDEX}.")
    return [Keys(exact=line[DIGEST_BYTES:], near=line[:DIGEST_BYTES]) for line in lines]


def write_kept_out(folder: Path, texts: Iterable[Keys]) -> None:
    """A line for each text, in place of those before."""
    with replacing(folder / KEPT_OUT_FILE) as aside:
        aside.write_text("".join(f"{(keys.near + keys.exact).hex()}\n" for keys in texts), "ascii")


class _WordsOnly(dict[int, str]):
    """For ``str.translate``: letters, marks and digits stay, all else becomes a space. Filled as characters come."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        self[code] = character if unicodedata.category(character)[0] in "LMN" else " "
        return self[code]


_WORDS = _WordsOnly()


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()
