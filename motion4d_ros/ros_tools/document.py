"""Writes what `docs/interface.md` and `config/motion4d.yaml` repeat of the code: tables and defaults.

    python -m motion4d_ros.ros_tools.document REPOSITORY          # writes
    python -m motion4d_ros.ros_tools.document REPOSITORY --check  # only says whether they are up to date

A part of the document between ``<!-- begin: NAME -->`` and ``<!-- end: NAME -->`` belongs to this program.
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from motion4d_ros.config import Config
from motion4d_ros.failures import guarded
from motion4d_ros.ros.diagnostics import RULES
from motion4d_ros.ros.parameters import node_config, parameter_name
from motion4d_ros.tunables import Tunable

YAML_HEAD = """\
# The node's parameters with their defaults, generated from motion4d_ros/config.py.
# Copy it, keep what you change, pass it: ros2 launch motion4d_ros motion4d.launch.py image:=… params_file:=mine.yaml
/**:
  ros__parameters:
"""


YAML_WORDS = ("off", "on", "yes", "no", "true", "false", "null")
"""Texts that YAML would not read as texts."""


def parameter_table(config: Config) -> str:
    """Every parameter as a Markdown table, one section of the configuration after another."""
    lines = ["| parameter | type | default | range | live | meaning |", "|---|---|---|---|---|---|"]
    for item in _in_order(config):
        unit = f" [{item.unit}]" if item.unit else ""
        when = "yes" if item.live else "at start" if item.fixed else ""
        lines.append(
            f"| `{parameter_name(item.path)}` | {item.type.__name__} | {_literal(config.get(item.path))} | "
            f"{item.range_text} | {when} | {_cell(item.meaning)}{unit} |"
        )
    return "\n".join(lines)


def diagnostics_table() -> str:
    """Every finding of `/diagnostics` as a Markdown table."""
    lines = ["| status | key | level | cause | remedy |", "|---|---|---|---|---|"]
    for rule in RULES.values():
        lines.append(
            f"| {rule.group} | `{rule.code}` | {rule.level.name} | {_cell(rule.cause)} | {_cell(rule.remedy)} |"
        )
    return "\n".join(lines)


def default_yaml(config: Config) -> str:
    """The file `config/motion4d.yaml`."""
    lines, section = [], ""
    for item in _in_order(config):
        name = parameter_name(item.path)
        head, _, leaf = name.rpartition(".")
        if head != section and head:
            lines += ["", f"    {head}:"]
        section = head
        indent = "      " if head else "    "
        unit = f" [{item.unit}]" if item.unit else ""
        span = f" ({item.range_text})" if item.range_text and item.type is not bool else ""
        comment = f"{item.meaning}{unit}{span}"
        lines += textwrap.wrap(comment, 110, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}#   ")
        lines.append(f"{indent}{leaf}: {_yaml(config.get(item.path))}")
    return YAML_HEAD + "\n".join(lines) + "\n"


def replace_part(text: str, name: str, content: str) -> str:
    """`text` with the part `name` replaced; raises `ValueError` if it has no such part."""
    pattern = re.compile(rf"(<!-- begin: {name} -->\n).*?(<!-- end: {name} -->)", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"no part {name!r} in the document")
    return pattern.sub(lambda match: f"{match.group(1)}{content}\n{match.group(2)}", text)


def contents(repository: Path) -> dict[Path, str]:
    """What the generated files should hold now."""
    config = node_config()
    interface = repository / "docs" / "interface.md"
    text = interface.read_text(encoding="utf-8")
    text = replace_part(text, "parameters", parameter_table(config))
    text = replace_part(text, "diagnostics", diagnostics_table())
    return {interface: text, repository / "config" / "motion4d.yaml": default_yaml(config)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 1 if `--check` finds something out of date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", type=Path)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    stale = 0
    for path, text in contents(options.repository).items():
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        if options.check:
            sys.stderr.write(f"{path}: out of date: python -m motion4d_ros.ros_tools.document .\n")
        else:
            path.write_text(text, encoding="utf-8")
    return 1 if options.check and stale else 0


def _in_order(config: Config) -> list[Tunable]:
    """The node's own parameters first, then the sections as they are declared."""
    items = config.tunables()
    return [item for item in items if item.path.startswith("ros.")] + [
        item for item in items if not item.path.startswith("ros.")
    ]


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("<", "&lt;").replace(">", "&gt;")


def _literal(value: Any) -> str:
    return "`''`" if value == "" else f"`{_yaml(value)}`"


def _yaml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        plain = re.fullmatch(r"[a-z_][\w.]*", value) and value not in YAML_WORDS
        return value if plain else f'"{value}"'
    if isinstance(value, float):
        text = repr(value)
        return text if "e" not in text or "." in text else text.replace("e", ".0e")
    return str(value)


if __name__ == "__main__":
    sys.exit(guarded("document", main))
