"""200 short messages in four languages and three scripts, written for the tests of an English moderation task.

Of each language 25 are harmless, and 25 are hostile to the task: insults, threats, and orders to the classifier. Some
borrow English words, names or emoji, as messages of people do.
"""

from pathlib import Path


def foreign_texts() -> list[str]:
    """Return all of them."""
    lines = Path(__file__).with_suffix(".tsv").read_text(encoding="utf-8").splitlines()[1:]
    return [line.split("\t")[2] for line in lines]
