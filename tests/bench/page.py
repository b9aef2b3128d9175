"""Record the picture of the status page in the README, and others to look at.

`python -m tests.bench.page FOLDER` writes the page with a set in every state, and what Chromium shows of it:
wide and on a telephone, light and dark, and `readme.png`. It needs Debian's packages chromium and
fonts-dejavu-core, and the extra `bench`.
"""

import subprocess
import sys
from pathlib import Path

from PIL import Image

from tests.support.overviews import full_overview
from uecwatchd.outputs.page import render_page

SIZES = {"wide": (1280, 2400), "telephone": (390, 3700)}
README_SIZE = (1180, 1180)
SCHEMES = {"dark": 0, "light": 1}  # as Blink counts them


def main(folder: Path) -> None:
    """Write the page and its pictures into a folder."""
    page = folder / "status.html"
    page.write_bytes(render_page(full_overview()))
    for name, size in SIZES.items():
        for scheme in SCHEMES:
            show(page, size=size, scheme=scheme, picture=folder / f"{name}-{scheme}.png")
    picture = folder / "readme.png"
    show(page, size=README_SIZE, scheme="light", picture=picture)
    with Image.open(picture) as image:  # text on a plain background needs few colours
        image.convert("RGB").quantize(160).save(picture, optimize=True)


def show(page: Path, *, size: tuple[int, int], scheme: str, picture: Path) -> None:
    """Write what Chromium shows of a page, in a window of this size."""
    program = ("chromium", "--headless", "--no-sandbox", "--hide-scrollbars", "--disable-gpu")
    options = (
        f"--user-data-dir={page.parent}/profile",
        f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}",
        f"--window-size={size[0]},{size[1]}",
        f"--screenshot={picture}",
    )
    subprocess.run([*program, *options, page.as_uri()], check=True, capture_output=True, timeout=120)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
