"""What mkdocs asks while it builds the site: the navigation, from the folders, and formulas as MathML.

The sections and the order of their pages stand in `mkdocs.yml` (`extra.sections`). A page that is not named there still
gets its place, and a named page that does not exist is left out; both are said.
"""

from __future__ import annotations

import html
import logging
import re
from typing import Any

log = logging.getLogger("mkdocs.hooks.site")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\s*(?:\\\((.*?)\\\)|\\\[(.*?)\\\])\s*</\1>', re.DOTALL)
ALONE = {"Home": "index.md", "Research log": "research_log.md"}  # beside the folders: the first and the last of all


def navigation(pages: list[str], sections: list[dict[str, Any]]) -> tuple[list[Any], list[str]]:
    """(Nav of mkdocs, what is worth saying) for `pages`, paths below `docs/`.

    A page outside of every section's folder goes to the second section, the how-to pages.
    """
    said, nav, left = [], [], sorted(set(pages) - set(ALONE.values()))
    folders = {section["folder"] for section in sections}
    for number, section in enumerate(sections):
        folder = section["folder"]
        own = [page for page in left if page.split("/")[0] == folder]
        named = [f"{folder}/{name}.md" for name in section["order"]]
        said += [f"{page}: named in mkdocs.yml, but there is no such page" for page in named if page not in own]
        strays = [page for page in left if page.split("/")[0] not in folders] if number == 1 else []
        said += [f"{page}: lies outside the folders, shown under {section['title']}" for page in strays]
        rest = [page for page in own if page not in named]
        said += [f"{page}: not named in mkdocs.yml, shown at the end of {section['title']}" for page in rest]
        nav.append({section["title"]: [page for page in named if page in own] + rest + strays})
    first, last = ([{title: page}] if page in pages else [] for title, page in ALONE.items())
    return [*first, *nav, *last], said


def on_files(files: Any, config: Any) -> Any:
    """Writes the navigation once the pages are known."""
    pages = [file.src_uri for file in files.documentation_pages()]
    config.nav, said = navigation(pages, config.extra["sections"])
    for line in said:
        log.info(line)
    return files


def on_page_content(content: str, **_: Any) -> str:
    """Formulas, which browsers draw by themselves: no script is loaded; sources of data classes are unfolded."""
    content = content.replace('<details class="mkdocstrings-source">', '<details class="mkdocstrings-source" open>')
    return FORMULA.sub(_mathml, content)


def _mathml(match: re.Match[str]) -> str:
    from latex2mathml.converter import convert

    inline, block = match[2], match[3]
    text = html.unescape(inline if inline is not None else block)
    return str(convert(text.strip(), display="inline" if inline is not None else "block"))
