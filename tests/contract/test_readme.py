"""What the README shows is what the code is."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_loop_in_the_readme_is_the_loop_of_the_driver() -> None:
    (loop,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(loop.splitlines()) <= 50
    assert loop.strip() in (ROOT / "rl" / "driver.py").read_text()


def test_every_local_link_leads_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *(ROOT / "docs").glob("*.md")]
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text())]
    assert links
    assert not [(page.name, link) for page, link in links if not (page.parent / link).exists()]
