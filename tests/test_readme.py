"""The README's picture is there, and shows nothing of the machine it was recorded on."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_picture_of_the_readme_exists() -> None:
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert pictures
    assert [name for name in pictures if not (ROOT / name).is_file()] == []


def test_the_recorded_terminal_shows_no_absolute_path() -> None:
    texts = re.findall(r"<tspan[^>]*>([^<]*)</tspan>", (ROOT / "etc/images/drop.svg").read_text("utf-8"))
    assert texts
    assert [text for text in texts if re.search(r"(?:^|\s)/\w", text)] == []
