"""`motion4d models list | fetch | verify`."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from motion4d_ros.models.fetch import fetch
from motion4d_ros.models.registry import DEFAULTS, MODELS, Model, find
from motion4d_ros.models.store import FileState, ModelStore
from motion4d_ros.types import Motion4DError

LIST_WIDTH = 140  # columns, where the output is no terminal


def add_parser(subparsers: Any) -> None:
    """Adds `models` to the command line. The namespace then carries `run`: namespace -> exit status."""
    parser = subparsers.add_parser("models", help="network weights: list, fetch, verify")
    actions = parser.add_subparsers(dest="action", required=True)

    shown = actions.add_parser("list", help="what there is, and what lies in the cache")
    shown.set_defaults(run=_run_list)

    fetched = actions.add_parser("fetch", help="download models into the cache (the licence is shown first)")
    fetched.add_argument("names", nargs="+", metavar="NAME", help="names from `motion4d models list`")
    fetched.add_argument("--yes", action="store_true", help="accept the licences without asking")
    fetched.add_argument("--force", action="store_true", help="download again even if the files are there")
    fetched.set_defaults(run=_run_fetch)

    verified = actions.add_parser("verify", help="compare the cached files with their checksums")
    verified.add_argument("names", nargs="*", metavar="NAME", help="default: everything in the cache")
    verified.set_defaults(run=_run_verify)

    for action in (shown, fetched, verified):
        action.add_argument("--folder", default="", help="cache folder (default: $XDG_CACHE_HOME/motion4d)")


def _run_list(arguments: argparse.Namespace) -> int:
    store = ModelStore(arguments.folder)
    table = Table(caption=f"cache: {store.folder}", caption_justify="left")
    for title in ("name", "for", "MB", "licence", "here", ""):
        table.add_column(title, justify="right" if title == "MB" else "left", no_wrap=title != "")
    for model in MODELS:
        licence = model.licence if model.commercial else f"[yellow]{model.licence}[/]"
        name = f"[bold]{model.name}[/]" if model.name in DEFAULTS.values() else model.name
        here = "yes" if store.is_here(model) else ""
        table.add_row(name, model.task, f"{model.megabytes:.0f}", licence, here, model.note)
    console = Console()
    Console(width=None if console.is_terminal else LIST_WIDTH).print(table)
    return 0


def _run_fetch(arguments: argparse.Namespace) -> int:
    store = ModelStore(arguments.folder)
    models = [find(name) for name in dict.fromkeys(arguments.names)]
    console = Console(stderr=True)
    for model in models:
        origin = f"{model.source}:{model.repository}@{model.revision}"
        console.print(f"[bold]{model.name}[/]  {origin}  {model.megabytes:.0f} MB", highlight=False)
        console.print(f"  licence {model.licence}  {model.licence_url}", highlight=False)
        if not model.commercial:
            console.print("  [yellow]this licence forbids commercial use[/]")
        if not arguments.yes and not _agreed(console):
            raise Motion4DError(f"{model.name}: not fetched, its licence was not accepted (--yes accepts it)")
        _fetch_visibly(model, store, console, arguments.force)
    return 0


def _agreed(console: Console) -> bool:
    if not sys.stdin.isatty():
        return False
    return console.input("  fetch it under this licence? [y/N] ").strip().lower() in ("y", "yes")


def _fetch_visibly(model: Model, store: ModelStore, console: Console, force: bool) -> None:
    columns = (
        TextColumn("  {task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        tasks: dict[str, Any] = {}

        def advance(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total or None)
            bar.update(tasks[what], completed=done, total=total or None)

        new = fetch(model, store, advance, force=force)
    pinned = all(item.sha256 for item in model.files)
    if not new:
        console.print("  already here and intact")
    elif pinned:
        console.print(f"  ok, checksums as expected → {store.folder_of(model)}", highlight=False)
    else:
        console.print(f"  ok → {store.folder_of(model)}", highlight=False)
        console.print("  its checksums were not known beforehand: recorded now, demanded from now on")


def _run_verify(arguments: argparse.Namespace) -> int:
    store = ModelStore(arguments.folder)
    named = [find(name) for name in arguments.names]
    models = named or [model for model in MODELS if store.folder_of(model).is_dir()]
    console = Console()
    if not models:
        console.print(f"{store.folder} holds no models", highlight=False)
    bad = 0
    for model in models:
        for path, state in store.state(model).items():
            console.print(f"{state.value:8s} {model.name}/{path}", highlight=False)
            bad += state is not FileState.OK
    if bad:
        raise Motion4DError(f"{bad} file(s) missing or altered: `motion4d models fetch --force NAME` mends that")
    return 0
