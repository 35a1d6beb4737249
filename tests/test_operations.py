"""The operations guide against the code: alerts, commands, SQL."""

import re
import sqlite3
from pathlib import Path

import pytest

from tests.test_deploy import DEPLOY, RULES
from tests.tiny import rows_now, tiny_task
from tracer_serve.cli import COMMANDS
from tracer_serve.stock import import_traces, store_of

ROOT = DEPLOY.parent
GUIDE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


def test_every_alert_says_what_to_do() -> None:
    """Each rule has its section, each section under Alerts is a rule's, and none is empty."""
    part = GUIDE.split("## Alerts")[1].split("\n## ")[0]
    sections = dict(re.findall(r"^### (\w+)\n\n(.+?)(?=\n### |\Z)", part, re.MULTILINE | re.DOTALL))
    assert set(sections) == {rule["alert"] for group in RULES["groups"] for rule in group["rules"]}
    assert all(len(text.split()) > 20 for text in sections.values())


@pytest.mark.parametrize("page", ["docs/operations.md", "README.md"])
def test_commands_and_files_are_there(page: str) -> None:
    """Every `tracer-serve COMMAND` is one, every relative link leads to a file."""
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"`tracer-serve ([a-z]+)[` ]", text))
    assert named <= set(COMMANDS), named - set(COMMANDS)
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert ((ROOT / page).parent / link).exists(), link


def test_old_handled_rows_may_go(tmp_path: Path) -> None:
    """The guide's statement runs on the store's table, removes unlabelled handled rows, and leaves the rest."""
    task = tiny_task(tmp_path)
    store = store_of(task)
    import_traces(task, store)
    store.add(rows_now(10, decision="handled", label_source=None, teacher_label=None, surrogate_label="red"))
    labelled, counted = len(list(store.labelled())), store.counts().total
    (statement,) = re.findall(r"```sql\n(.+?);\n```", GUIDE, re.DOTALL)
    database = sqlite3.connect(task.state / "traces.db")
    with database:
        done = database.execute(statement.replace("extract(epoch FROM now())", "unixepoch() + 8 * 86400"))
    database.close()
    assert done.rowcount == 10
    assert len(list(store.labelled())) == labelled
    assert store.counts().total == counted
    store.close()
