"""The operations guide against the code: alerts and commands."""

import re

import pytest

from tests.project.test_deploy import DEPLOY, RULES
from tracer_serve.cli.main import COMMANDS

ROOT = DEPLOY.parent
GUIDE = (ROOT / "docs" / "how-to" / "alerts.md").read_text(encoding="utf-8")


def test_every_alert_says_what_to_do() -> None:
    """Each rule has its section, each section is a rule's, and none is empty."""
    sections = dict(re.findall(r"^## (\w+)\n\n(.+?)(?=\n## |\Z)", GUIDE, re.MULTILINE | re.DOTALL))
    assert set(sections) == {rule["alert"] for group in RULES["groups"] for rule in group["rules"]}
    assert all(len(text.split()) > 10 for text in sections.values())


@pytest.mark.parametrize("page", ["docs/operations.md", "docs/how-to/alerts.md", "README.md"])
def test_commands_and_files_are_there(page: str) -> None:
    """Every `tracer-serve COMMAND` is one, every relative link leads to a file."""
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"`tracer-serve ([a-z]+)[` ]", text))
    assert named <= set(COMMANDS), named - set(COMMANDS)
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert ((ROOT / page).parent / link).exists(), link
