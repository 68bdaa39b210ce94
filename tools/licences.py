"""Which licences the package's dependencies have, and whether each is one that may be passed on with it.

    python tools/licences.py             # a table of what is installed; status 1 if one is unknown or not allowed
    python tools/licences.py --all       # with what only development, tests and networks need

The dependencies are followed from requirements/*.txt through what is installed.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REQUIREMENTS = Path(__file__).parent.parent / "requirements"
ALLOWED = (
    "MIT", "BSD", "Apache", "PSF", "Python Software Foundation", "ISC", "HPND", "MIT-CMU", "Zlib", "Unlicense",
    "Public Domain", "0BSD", "BSL-1.0", "MPL", "Mozilla Public License", "FreeType", "libpng", "CNRI",
)  # fmt: skip
"""Permissive ones, and the MPL, whose terms hold for its own files only."""
KNOWN = {
    "apsw": "any licence that OSI approves",
    "setuptools": "MIT",
    "nvidia": "NVIDIA proprietary (PyTorch's CUDA build only; redistribution as its EULA says)",
    "cuda": "NVIDIA proprietary (PyTorch's CUDA build only; redistribution as its EULA says)",
}
"""What no metadata tells in a word, by the beginning of the package's name."""


def wanted(*, everything: bool) -> list[str]:
    """Names of the packages that the requirement files ask for here."""
    files = ("runtime.txt", "dev.txt", "networks.txt", "view.txt") if everything else ("runtime.txt",)
    lines = [line.split("#")[0].strip() for file in files for line in (REQUIREMENTS / file).read_text().splitlines()]
    asked = [Requirement(line) for line in lines if line]
    return [each.name for each in asked if each.marker is None or each.marker.evaluate()]


def closure(names: list[str]) -> dict[str, Distribution]:
    """Canonical name -> installed distribution, of `names` and all that they need, as far as it is installed."""
    found: dict[str, Distribution] = {}
    waiting = list(names)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue
        for line in found[name].requires or []:
            need = Requirement(line)
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                waiting.append(need.name)
    return found


def licence(name: str, package: Distribution) -> str:
    """In a few words: the SPDX expression, else the classifiers, else the free text's first line."""
    metadata: Any = package.metadata
    if (expression := metadata.get("License-Expression")) and name not in KNOWN:
        return str(expression)
    classifiers = [item for item in metadata.get_all("Classifier") or [] if item.startswith("License :: ")]
    named = [item.split(" :: ")[-1] for item in classifiers]
    named = [item for item in named if item not in ("OSI Approved", "DFSG approved")]
    known = next((text for start, text in KNOWN.items() if name.startswith(start)), "")
    text = (metadata.get("License") or "").strip().splitlines()
    return known or "; ".join(named) or (text[0][:80] if text else "")


def allowed(text: str) -> bool:
    """Whether every part of an expression that must be fulfilled is allowed."""
    if any(text == known for known in KNOWN.values()):
        return True
    parts = re.split(r"\s+AND\s+|;", text.replace("(", " ").replace(")", " "))
    return bool(text) and all(any(word.lower() in part.lower() for word in ALLOWED) for part in parts if part.strip())


def main() -> int:
    """Command line."""
    found = closure(wanted(everything="--all" in sys.argv))
    faults = 0
    print("| package | version | licence |\n|---|---|---|")
    for name, package in sorted(found.items()):
        text = licence(name, package)
        good = allowed(text)
        faults += not good
        print(f"| {name} | {package.version} | {text or 'unknown'}{'' if good else ' **not allowed**'} |")
    if faults:
        print(f"licences: {faults} of {len(found)} packages are unknown or not allowed: see ALLOWED", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
