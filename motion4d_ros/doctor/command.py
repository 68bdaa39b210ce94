"""`motion4d doctor [--json] [--compile]`."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from motion4d_ros.doctor import machine, packages, renderer, robot
from motion4d_ros.doctor.ask import Answer, ask, installed
from motion4d_ros.doctor.rows import Row, State, as_json, as_text, worst

WIDTH = 80  # columns, where the output is no terminal
WIDEST = 120
OURS = ("raster_library", "message_definitions", "models")
ROBOT = ("rclpy", "messages", "cv_bridge")


def add_parser(subparsers: Any) -> None:
    """Adds `doctor` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "doctor",
        help="look at this machine: what is there, what is missing, and what mends it",
        description="Looks at this machine: OK; WARN: not everybody needs it, or it will be slow; FAIL: an analysis or "
        "the node cannot run. Exit status 1 if anything is FAIL, else 0.",
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument(
        "--compile", action="store_true", dest="compile_kernels", help="compile gsplat's CUDA kernels now (minutes)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints the table; 1 if anything is FAIL, else 0."""
    rows = examine(compile_kernels=arguments.compile_kernels)
    if arguments.json:
        text = as_json(rows, _version())
    else:
        terminal = sys.stdout.isatty()
        width = min(shutil.get_terminal_size((WIDTH, 24)).columns, WIDEST) if terminal else WIDTH
        text = as_text(
            rows, width, colour=terminal and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        )
    sys.stdout.write(text + "\n")
    return int(worst(rows) is State.FAIL)


def examine(*, compile_kernels: bool = False) -> list[Row]:
    """All rows. Nothing that is looked at can break or stop this: a check that fails is a row."""
    answers, gpu = ask_all(compile_kernels)
    rows: list[Row] = []
    checks: tuple[tuple[str, Callable[[], list[Row]]], ...] = (
        (machine.GROUP, machine.rows),
        (packages.GROUP, lambda: [packages.python_row(), *packages.required_rows(answers)]),
        (renderer.GROUP, lambda: renderer.rows(answers, gpu)),
        ("networks", lambda: packages.network_rows(answers)),
        (robot.GROUP, lambda: robot.rows(answers)),
    )
    for group, check in checks:
        try:
            rows += check()
        except Exception as error:  # of an odd machine nobody has foreseen
            found = f"the check itself failed: {type(error).__name__}: {error}"
            rows.append(Row(group, "check", State.WARN, found, "please report this line"))
    return rows


def ask_all(compile_kernels: bool) -> tuple[dict[str, Answer], dict[str, Any]]:
    """Everything that is asked in other processes, side by side: what is not there is not asked for."""
    needed = [package.probe for package in packages.REQUIRED if installed(package.module.partition(".")[0])]
    networks = [package.probe for package in packages.NETWORKS if installed(package.module)]
    numpy = installed("numpy")
    ours = [*(OURS if numpy else ()), *(ROBOT if numpy and installed("rclpy") else ())]
    with ThreadPoolExecutor(4) as pool:
        gpu = pool.submit(renderer.ask_gpu, compile_kernels) if installed("torch") else None
        asked = [pool.submit(ask, probes) for probes in (needed, networks, ours)]
        answers: dict[str, Answer] = {}
        for future in asked:
            answers |= future.result()
        return answers, gpu.result() if gpu else {"error": "PyTorch is not installed"}


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("motion4d_ros")
    except PackageNotFoundError:
        return "unknown"
