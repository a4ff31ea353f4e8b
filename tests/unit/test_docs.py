"""Pictures in the docs are there, and those of a day are made by the tests in the browser."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_picture_and_page_that_the_docs_point_to_is_there():
    for page in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} points to {target}"


def test_the_pictures_of_a_day_are_those_that_the_browser_tests_take():
    taken = set(re.findall(r'shot\("([^"]+)"', (ROOT / "tests/ui/test_workbench.py").read_text()))
    shown = {p.stem for p in (ROOT / "docs/images/days").glob("*.png")}
    assert shown
    assert shown <= taken
