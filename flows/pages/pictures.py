"""The plots of a run as the Prefect pages show them: small, and within the page, which loads nothing from elsewhere."""

from __future__ import annotations

import io
import struct
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from listflow.pipeline.storage.run_folder import RunFolder

# A table of more than 100 classes would be no more than noise there.
WIDTH, TALLEST, COLOURS, MOST_PIXELS = 900, 1200, 64, 40_000_000


def pictures(folder: Path, most: int) -> Iterator[str]:
    """The plots of a finished run as lines of Markdown, in fewer colours and pixels: ``most`` bytes in all.

    Those that are left out, as they do not fit or cannot be read, are named in a last line.
    """
    # matplotlib is slow to import, and a run that is refused or cancelled has no pictures.
    from listflow.pipeline.results.plots import PLOTS

    left, plots = list[str](), RunFolder(folder).plots
    for path in (path for draw in PLOTS if (path := plots / f"{draw.__name__}.png").exists()):
        png = _smaller(path)
        line = f"\n![{path.stem.replace('_', ' ')}](data:image/png;base64,{b64encode(png).decode()})\n"
        if not png or len(line) > most:
            left.append(f"plots/{path.name}")
            continue
        most -= len(line)
        yield line
    if left:
        yield f"\nNot on this page, but in the folder of the run: {', '.join(left)}.\n"


def _smaller(path: Path) -> bytes:
    """The PNG of a page, as wide as its text; nothing of one that is too large for that, or damaged."""
    content = io.BytesIO()
    try:
        width, height = struct.unpack(">II", path.read_bytes()[16:24])  # where a PNG says its size
        if width * height <= MOST_PIXELS:
            with Image.open(path) as drawn:
                drawn.thumbnail((WIDTH, TALLEST), Image.Resampling.LANCZOS)
                drawn.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(content, "png", optimize=True)
    except (OSError, SyntaxError, ValueError, struct.error):
        return b""
    return content.getvalue()
