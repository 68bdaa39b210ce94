"""What to do when memory runs out."""

from __future__ import annotations

import sys

from motion4d_ros.config import Config


def lower_budgets(config: Config) -> None:
    """Takes a third off what may be held, down to the least that is allowed."""
    least = {item.path: item.minimum for item in config.tunables()}
    for path in ("budget.max_static", "budget.max_dynamic"):
        floor = int(least[path] or 1)
        config.set(path, max(floor, int(config.get(path) * 2 / 3)))


def free_gpu_memory() -> None:
    """Gives cached blocks back to the driver, if torch is there and uses a GPU."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
