"""What may crash or hang is tried out here, in a process of its own: ``python -m motion4d_ros.doctor.child PROBE …``.

Prints one line of JSON for every thing tried, `{"name", "found"}` or `{"name", "error"}`, as soon as it is known: what
is missing from the output is what the process died of.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any


def version_of(name: str) -> str:
    """Imports a module; its version, and of onnxruntime the hardware it can use."""
    module: Any = importlib.import_module(name)
    found = str(getattr(module, "__version__", "") or _installed_version(name))
    if name == "onnxruntime":
        providers = [text.removesuffix("ExecutionProvider") for text in module.get_available_providers()]
        found += f", runs on {', '.join(providers)}"
    return found


def _installed_version(name: str) -> str:
    from importlib.metadata import packages_distributions, version

    names = packages_distributions().get(name.partition(".")[0], [])
    return version(names[0]) if names else "version unknown"


def raster_library() -> str:
    """Loads the C++ rasteriser; the instruction set of its kernels."""
    from motion4d_ros.raster_library import load_library

    return f"kernels for {load_library().m4d_raster_isa().decode()}"


def message_definitions() -> str:
    """The .msg files that the results of an analysis are described with."""
    from motion4d_ros.offline.resources import find_files

    count = len(find_files("msg", "*.msg"))
    if not count:
        raise FileNotFoundError("the .msg files are not installed beside the package")
    return f"{count} definitions"


def messages() -> str:
    """The generated messages of this package, which the node publishes."""
    made: Any = importlib.import_module("motion4d_ros.msg")
    made.TrackedObjectArray()
    return "generated and importable"


def rclpy() -> str:
    """ROS' Python client with the middleware it would use."""
    utilities: Any = importlib.import_module("rclpy.utilities")
    return f"rclpy runs on {utilities.get_rmw_implementation_identifier()}"


def cv_bridge() -> str:
    """Whether cv_bridge converts known pictures rightly (as the node asks)."""
    from motion4d_ros.imagery.backends import CvBridgeBackend, backend_is_healthy

    if not backend_is_healthy(CvBridgeBackend()):
        raise ValueError("it converts known pictures wrongly")
    return "converts known pictures rightly"


def models() -> str:
    """Which networks' weights lie in the cache."""
    from motion4d_ros.models.registry import MODELS
    from motion4d_ros.models.store import ModelStore

    store = ModelStore()
    here = [model.name for model in MODELS if store.is_here(model)]
    return f"{', '.join(here) or 'none'} in {store.folder}"


PROBES: dict[str, Callable[[], str]] = {
    probe.__name__: probe for probe in (raster_library, message_definitions, messages, rclpy, cv_bridge, models)
}


def main(words: Sequence[str]) -> int:
    """`words`: names of `PROBES`, or `import:MODULE`."""
    answer = os.dup(1)
    os.dup2(2, 1)  # what libraries print must not mix with the answer
    with os.fdopen(answer, "w") as stream:
        for word in words:
            module = word.partition("import:")[2]
            try:
                result = {"found": version_of(module) if module else PROBES[word]()}
            except Exception as error:  # libraries that do not fit fail in any way they like
                lines = str(error).strip().splitlines()
                result = {"error": lines[0] if lines else type(error).__name__}
            stream.write(json.dumps({"name": word, **result}) + "\n")
            stream.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
