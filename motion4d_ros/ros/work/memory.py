"""What to do when memory runs out."""

from __future__ import annotations

import sys

from motion4d_ros.config import Config


def lower_budgets(config: Config, engines: Config) -> str:
    """Takes a third off what may be held, down to the least that is allowed; what is said of it. The engine has a
    configuration of its own, or shares the other.
    """
    for each in (config,) if engines is config else (config, engines):
        least = {item.path: item.minimum for item in each.tunables()}
        for path in ("budget.max_static", "budget.max_dynamic"):
            each.set(path, max(int(least[path] or 1), int(each.get(path) * 2 / 3)))
    static, moving = config.budget.max_static, config.budget.max_dynamic
    return f"out of memory: at most {static} static and {moving} moving Gaussians from now on"


def free_gpu_memory() -> None:
    """Gives cached blocks back to the driver, if torch is there and uses a GPU."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
