"""The README's pictures are there, say in words what they show, and load nothing from elsewhere."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PICTURES = re.findall(r"<picture>(.*?)</picture>", README, re.DOTALL)
TERMINALS = sorted((ROOT / "docs" / "images").glob("terminal-*.svg"))


@pytest.mark.parametrize("picture", PICTURES)
def test_a_picture_has_two_schemes_and_a_text(picture: str) -> None:
    dark, light = re.findall(r'src(?:set)?="([^"]+)"', picture)
    assert "prefers-color-scheme: dark" in picture.partition(dark)[0]
    assert ("dark" in dark, "light" in light) == (True, True)
    assert (ROOT / dark).is_file()
    assert (ROOT / light).is_file()
    (text,) = re.findall(r'alt="([^"]+)"', picture)
    assert len(text.split()) > 15


@pytest.mark.parametrize("path", TERMINALS, ids=lambda path: path.stem)
def test_the_terminal_is_a_small_svg_of_the_command(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    shown = "".join(ET.fromstring(text).itertext()).replace("\xa0", " ")
    for words in ("council run", "critique", "synthesise", "tokens", "Reasoning"):
        assert words in shown
    assert re.findall(r"https?://[^\"'\s)]+", text) == ["http://www.w3.org/2000/svg"]
    assert len(text) < 40_000


def test_the_main_job_fits_on_a_screen() -> None:
    assert len(TERMINALS) == 2
    before_trying = README.partition("## Try it")[0].splitlines()
    assert len(before_trying) <= 40
    assert len(PICTURES) == 2  # of the terminal, and of the page
