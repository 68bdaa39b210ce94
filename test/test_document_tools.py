"""The tools around the documents: navigation and formulas of the site, prose, where figures come from."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def tool(repository: Path) -> Callable[[str], ModuleType]:
    """Loads a module of `tools/` by its name."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, repository / "tools" / f"{name}.py")
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look there
        spec.loader.exec_module(module)
        return module

    return load


SECTIONS = [
    {"folder": "tutorials", "title": "Tutorials", "order": ["second", "gone"]},
    {"folder": "how-to", "title": "How-to", "order": []},
]


def test_every_page_gets_a_place_and_what_is_odd_is_said(tool: Callable[[str], ModuleType]) -> None:
    pages = ["index.md", "tutorials/first.md", "tutorials/second.md", "stray.md", "how-to/one.md"]
    nav, said = tool("site_hooks").navigation(pages, SECTIONS)
    assert nav == [
        {"Home": "index.md"},
        {"Tutorials": ["tutorials/second.md", "tutorials/first.md"]},
        {"How-to": ["how-to/one.md", "stray.md"]},
    ]
    assert {line.split(":")[0] for line in said} == {
        "tutorials/gone.md",
        "tutorials/first.md",
        "how-to/one.md",
        "stray.md",
    }


def test_long_lines_are_found_but_not_in_tables_code_or_generated_parts(tool: Callable[[str], ModuleType]) -> None:
    prose, long = tool("check_prose"), "word " * 30
    text = f"{long}\n\n| {long} |\n\n```text\n{long}\n```\n\n<!-- cost -->\n{long}\n<!-- /cost -->\n\n- {long}\n"
    assert [line for line, _ in prose.long_lines(text)] == [1, 13]
    wrapped = prose.wrapped(text)
    assert list(prose.long_lines(wrapped)) == []
    assert wrapped.split() == text.split(), "wrapping changes no word"
    assert prose.wrapped(wrapped) == wrapped


def test_sentences_that_nobody_reads_once_are_found(tool: Callable[[str], ModuleType]) -> None:
    prose = tool("check_prose")
    assert [line for line, _ in prose.long_sentences("Short one.\n\n" + "word " * 60 + ".\n")] == [3]
    assert list(prose.long_sentences(("word " * 20 + ". ") * 3)) == []
    assert [line for line, _ in prose.long_sentences("| a |\n\n" + "word: " * 40 + "\n")] == [3], "a colon is no end"
    assert [line for line, _ in prose.long_sentences("One.\n\n" + ("word " * 9 + ".\n") * 14)] == [3], "a paragraph"
    assert list(prose.long_sentences(("- " + "word " * 9 + ".\n") * 14)) == [], "items are counted by themselves"
    assert list(prose.long_sentences("<!-- cost -->\n" + "word " * 60 + "\n<!-- /cost -->\n")) == []
    assert [line for line, _ in prose.own_words("One.\nA network is a guest here.\n")] == [2]
    assert list(prose.own_words("`a guest`\n")) == []
    assert [line for line, _ in prose.diary("One.\nA prior: tried and left out.\n")] == [2]


PAGE = """# Page

## Speed

`python -m motion4d_ros.evaluation.bench_render
--seconds 1` on 2026-11-30 at 1234567 ([log](log.md#2026-12-01-later)):

| image | forward | backward |
|---|---|---|
| a | 1.5 | 2.5 |
| b | 3.5 | 4.5 |

## Words

| a | b |
|---|---|
| one | two |
"""


def test_tables_of_figures_have_their_command_and_date(
    tool: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = tool("collect_claims")
    monkeypatch.setattr(claims, "ROOT", tmp_path)
    monkeypatch.setattr(claims, "git", lambda *arguments: "7" if "1234567..HEAD" in arguments else "3")
    (tmp_path / "page.md").write_text(PAGE)
    (claim,) = claims.claims_of(tmp_path / "page.md")
    assert (claim.heading, claim.line, claim.date, claim.stated) == ("Speed", 8, "2026-11-30", True)
    assert claim.command == "python -m motion4d_ros.evaluation.bench_render --seconds 1"
    assert claim.commits == 7, "a revision says more than a date"


def test_every_table_of_figures_names_a_command(
    tool: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = tool("collect_claims")
    monkeypatch.setattr(claims, "git", lambda *_: "")  # dates do not matter here
    pages = [claims.ROOT / "README.md", *sorted((claims.ROOT / "docs").rglob("*.md"))]
    found = [claim for page in pages if page.stem not in claims.REPEATED for claim in claims.claims_of(page)]
    assert len(found) > 10
    assert [f"{claim.page}:{claim.line}" for claim in found if not claim.command] == []


def test_the_extra_is_what_make_docs_installs(repository: Path) -> None:
    lines = (repository / "requirements" / "docs.txt").read_text(encoding="utf-8").splitlines()
    project = (repository / "pyproject.toml").read_text(encoding="utf-8")
    extra = project.split("\ndocs = [")[1].split("\n]")[0]
    assert sorted(line for line in lines if not line.startswith("#")) == sorted(extra.split('"')[1::2])
