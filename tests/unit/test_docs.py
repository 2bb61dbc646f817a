"""The documents say what the program does: every command, every setting."""

from pathlib import Path

from observe.cli import cli
from observe.settings import table

ROOT = Path(__file__).parents[2]


def test_every_command_is_documented():
    text = (ROOT / "docs/operations.md").read_text()
    assert [name for name in cli.commands if f"`observe {name}" not in text] == []


def test_the_settings_page_is_current():
    assert (ROOT / "docs/settings.md").read_text() == table(), "renew it: python -m observe.settings > docs/settings.md"


def test_links_of_the_readme_lead_somewhere():
    import re

    text = (ROOT / "README.md").read_text()
    targets = [t for t in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in t]
    assert targets
    assert [t for t in targets if not (ROOT / t).exists()] == []
