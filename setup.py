"""`pip install .`: the Python modules, the raster library and the shared files, without ROS. Metadata: pyproject.toml.

CMake builds the raster library (`raster/`) into `motion4d_ros/render/`, the same place as in a colcon install space.
Messages, presets and launch files lie at the top of the repository, where colcon wants them: a wheel gets them as
`motion4d_ros/share/`. `motion4d_ros/offline/resources.py` finds them in either place.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
LIBRARY = "libmotion4d_raster.so"
SHARED = ("package.xml", "msg/*.msg", "srv/*.srv", "config/*.yaml", "config/*.rviz", "config/*.json", "launch/*.py")


def version() -> str:
    """The version, which stands once, in package.xml."""
    found = re.search(r"<version>(.*?)</version>", (ROOT / "package.xml").read_text(encoding="utf-8"))
    assert found, "package.xml has no <version>"
    return found[1]


def shared_files() -> list[Path]:
    """What is not Python but travels with it, relative to the repository."""
    files = {pattern: sorted(path.relative_to(ROOT) for path in ROOT.glob(pattern)) for pattern in SHARED}
    missing = [pattern for pattern, found in files.items() if not found]
    if missing:
        sys.exit(f"motion4d_ros: {', '.join(missing)} not found in {ROOT.resolve()}: the sources are incomplete")
    return [path for found in files.values() for path in found]


class BuildWithRaster(build_py):
    """Lays the raster library and the shared files beside the modules."""

    def run(self) -> None:
        # An editable install uses the modules where they are, so the library goes there, too (git ignores it).
        if self.editable_mode:
            self._build_raster(ROOT / "motion4d_ros" / "render" / LIBRARY)
            super().run()
            return
        shutil.rmtree(self.build_lib, ignore_errors=True)  # or modules removed long ago get into the wheel
        super().run()
        self._build_raster(Path(self.build_lib) / "motion4d_ros" / "render" / LIBRARY)
        for target, source in self._shared_mapping().items():
            self.mkpath(str(Path(target).parent))
            self.copy_file(source, target)

    def get_output_mapping(self) -> dict[str, str]:
        return {**super().get_output_mapping(), **self._shared_mapping()}

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return [*super().get_outputs(include_bytecode), *self._shared_mapping()]

    def _shared_mapping(self) -> dict[str, str]:
        """Built file -> its source."""
        share = Path(self.build_lib) / "motion4d_ros" / "share"
        return {str(share / path): str(path) for path in shared_files()}

    def _build_raster(self, target: Path) -> None:
        if not shutil.which(os.environ.get("CXX", "c++")):
            sys.exit("motion4d_ros: no C++ compiler; install one with: sudo apt-get install -y g++ (or set CXX)")
        with tempfile.TemporaryDirectory(prefix="motion4d_raster_") as folder:
            source = str(ROOT / "raster")
            subprocess.run(["cmake", "-S", source, "-B", folder, "-DCMAKE_BUILD_TYPE=Release"], check=True)
            subprocess.run(["cmake", "--build", folder, "--config", "Release", "--parallel"], check=True)
            built = next(Path(folder).rglob(LIBRARY))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(built, target)


class PlatformWheel(bdist_wheel):
    """A wheel for this platform, but for any Python: the library has a plain C interface."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


class PlatformDistribution(Distribution):
    """Holds a compiled library although it has no extension module."""

    def has_ext_modules(self) -> bool:
        return True


setup(
    version=version(),
    distclass=PlatformDistribution,
    cmdclass={"build_py": BuildWithRaster, "bdist_wheel": PlatformWheel},
)
