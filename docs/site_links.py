"""Bring the repository's files that a page links to into the site, so that a link works in both places."""

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

_ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"\]\(\.\./((?!reference/)[\w./-]+)\)")  # a path from docs/ to the rest of the repository


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add each linked file under `source/`; a link to a file that is missing stays, and fails a strict build."""
    linked = {path for page in files.documentation_pages() for path in _LINK.findall(page.content_string)}
    for path in sorted(linked):
        if (_ROOT / path).is_file():
            files.append(File.generated(config, _in_site(path), abs_src_path=str(_ROOT / path)))
    return files


def on_page_markdown(markdown: str, *, files: Files, **_: Any) -> str:
    """Point links at the copies."""

    def replaced(link: re.Match[str]) -> str:
        target = _in_site(link[1])
        return f"]({target})" if files.get_file_from_path(target) else link[0]

    return _LINK.sub(replaced, markdown)


def _in_site(path: str) -> str:
    """Return a path at which the file is shown as text."""
    return f"source/{path}.txt"
