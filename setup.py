"""`pip install .`: the Python modules and the raster library, without ROS. Metadata stand in pyproject.toml.

CMake builds the raster library (`raster/`) into `motion4d_ros/render/`, the same place as in a colcon install space.
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


def version() -> str:
    """The version, which stands once, in package.xml."""
    found = re.search(r"<version>(.*?)</version>", (ROOT / "package.xml").read_text(encoding="utf-8"))
    assert found, "package.xml has no <version>"
    return found[1]


class BuildWithRaster(build_py):
    """Builds the raster library beside the modules."""

    def run(self) -> None:
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)  # or modules removed long ago get into the wheel
        super().run()
        # An editable install uses the modules where they are, so the library goes there, too (git ignores it).
        package = ROOT / "motion4d_ros" if self.editable_mode else Path(self.build_lib) / "motion4d_ros"
        self._build_raster(package / "render" / LIBRARY)

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
