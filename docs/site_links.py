"""Bring the repository's files that a page links to into the site, so that a link works in both places."""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"\]\((\.\./[\w./-]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add each linked file under `source/`; a link to a file that is missing stays, and fails a strict build."""
    pages = files.documentation_pages()
    linked = {_in_repository(link, page) for page in pages for link in _LINK.findall(page.content_string)}
    for path in sorted(linked):
        if not path.startswith("docs/") and (_ROOT / path).is_file():
            files.append(File.generated(config, _in_site(path), abs_src_path=str(_ROOT / path)))
    return files


def on_page_markdown(markdown: str, *, page: Page, files: Files, **_: Any) -> str:
    """Point links at the copies."""

    def replaced(link: re.Match[str]) -> str:
        target = _in_site(_in_repository(link[1], page.file))
        if files.get_file_from_path(target) is None:
            return link[0]
        return f"]({posixpath.relpath(target, posixpath.dirname(page.file.src_uri) or '.')})"

    return _LINK.sub(replaced, markdown)


def _in_repository(link: str, page: File) -> str:
    """Return the path from the root of the repository that a page's relative link leads to."""
    return posixpath.normpath(posixpath.join("docs", posixpath.dirname(page.src_uri), link))


def _in_site(path: str) -> str:
    """Return a path at which the file is shown as text."""
    return f"source/{path}.txt"
