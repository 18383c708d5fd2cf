"""The texts that may never come into a corpus, by their digests: no shard has them to make the index again from."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from listflow.data.errors import InputError
from listflow.data.files import replacing
from listflow.data.shards import INDEX, KEPT_OUT_FILE
from listflow.data.text_index import DIGEST_BYTES, Keys


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
