"""Python, the libraries that everything needs, and those that only networks need."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version

from motion4d_ros.doctor.ask import Answer, installed
from motion4d_ros.doctor.rows import Row, State
from motion4d_ros.remedies import apt_install, externally_managed, pip_install

GROUP = "Python"
OLDEST = (3, 10)


@dataclass(frozen=True)
class Package:
    """A library: the name people know, the module, and what pip calls it."""

    name: str
    module: str
    distribution: str
    apt: str = ""  # what Debian and Ubuntu call it, for their own Python
    purpose: str = ""  # of optional ones
    install: str = ""  # the command, where `pip install DISTRIBUTION` will not do

    @property
    def probe(self) -> str:
        """What `ask` is asked."""
        return f"import:{self.module}"

    @property
    def command(self) -> str:
        """Installs it."""
        if self.install:
            return self.install
        return apt_install(self.apt) if self.apt and externally_managed() else pip_install(self.distribution)


REQUIRED = (
    Package("NumPy", "numpy", "numpy", "python3-numpy"),
    Package("SciPy", "scipy", "scipy", "python3-scipy"),
    Package("PyTorch", "torch", "torch", "python3-torch"),
    Package("OpenCV", "cv2", "opencv-python-headless", "python3-opencv"),
    Package("packaging", "packaging", "packaging", "python3-packaging"),
    Package("Pillow", "PIL", "pillow", "python3-pil"),
    Package("PyYAML", "yaml", "PyYAML", "python3-yaml"),
    Package("Jinja2", "jinja2", "Jinja2", "python3-jinja2"),
    Package("matplotlib", "matplotlib", "matplotlib", "python3-matplotlib"),
    Package("imageio-ffmpeg", "imageio_ffmpeg", "imageio-ffmpeg"),
    Package("psutil", "psutil", "psutil", "python3-psutil"),
    Package("rich", "rich", "rich", "python3-rich"),
    Package("rosbags", "rosbags", "rosbags"),
    Package("rosbags-image", "rosbags.image", "rosbags-image"),
    Package("safetensors", "safetensors", "safetensors"),
)
SHOWN = 4  # of these, the first have a row of their own even if all is well
NETWORKS = (
    Package("onnxruntime", "onnxruntime", "onnxruntime", purpose="masks, depth, detections by ONNX networks"),
    Package("transformers", "transformers", "transformers", purpose="masks by SAM 2, depth by Depth Anything"),
    Package("timm", "timm", "timm", purpose="masks by EdgeTAM"),
    Package("huggingface_hub", "huggingface_hub", "huggingface_hub", purpose="fetching networks"),
    Package(
        "sam2",
        "sam2",
        "sam2",
        purpose="masks by SAM 2",
        install="SAM2_BUILD_CUDA=0 pip install --no-deps --no-build-isolation sam2 && "
        "pip install hydra-core iopath tqdm",
    ),
)


def python_row(found: tuple[int, ...] = tuple(sys.version_info[:3])) -> Row:
    """The interpreter."""
    text = f"{'.'.join(map(str, found))} ({sys.executable or 'embedded'})"
    if found[:2] < OLDEST:
        return Row(GROUP, "Python", State.FAIL, text, "use Python 3.10 or newer: python3.12 -m venv .venv")
    return Row(GROUP, "Python", State.OK, f"{text}, {platform.python_implementation()}")


def required_rows(answers: Mapping[str, Answer]) -> list[Row]:
    """A row for each of the first and for each that fails; one for all the others."""
    ranges = version_ranges()
    rows, fine = [], []
    for number, package in enumerate(REQUIRED):
        row = _row(GROUP, package, answers.get(package.probe), State.FAIL, ranges.get(package.distribution.lower(), ""))
        if number < SHOWN or row.state is not State.OK:
            rows.append(row)
        else:
            fine.append(package.name)
    if fine:
        rows.append(Row(GROUP, "others", State.OK, ", ".join(fine)))
    return rows


def network_rows(answers: Mapping[str, Answer]) -> list[Row]:
    """What networks need; nothing else does."""
    rows = [_row("networks", package, answers.get(package.probe), State.WARN, "") for package in NETWORKS]
    models = answers.get("models", Answer(error="not looked at"))
    if models.well:
        remedy = "motion4d models list shows what can be fetched" if models.found.startswith("none") else ""
        return [*rows, Row("networks", "models", State.OK, models.found, remedy)]
    return [*rows, Row("networks", "models", State.WARN, models.error, "motion4d models list")]


def version_ranges() -> dict[str, str]:
    """Distribution -> range of versions (">=2.4,<3") that this package was installed with; {} where nobody wrote it."""
    try:
        from packaging.requirements import Requirement

        stated = [Requirement(text) for text in requires("motion4d_ros") or []]
    except (ImportError, PackageNotFoundError, ValueError):
        return {}
    return {item.name.lower(): str(item.specifier) for item in stated if item.marker is None and item.specifier}


def missing(names: Sequence[str], answers: Mapping[str, Answer]) -> str:
    """The first of the named libraries that does not work, "" if all do: what needs it cannot be looked at."""
    for package in REQUIRED:
        answer = answers.get(package.probe)
        if package.name in names and (answer is None or not answer.well):
            return package.name
    return ""


def _row(group: str, package: Package, answer: Answer | None, bad: State, wanted: str) -> Row:
    what = f" (optional: {package.purpose})" if package.purpose else ""
    if answer is None or not installed(package.module.partition(".")[0]):
        return Row(group, package.name, bad, f"not installed{what}", package.command)
    if not answer.well:
        return Row(group, package.name, bad, f"cannot be imported: {answer.error}{what}", _again(package))
    if wanted and not _fits(package.distribution, wanted):
        return Row(
            group,
            package.name,
            State.WARN,
            f"{answer.found}, outside {wanted}",
            pip_install(f"'{package.distribution}{wanted}'"),
        )
    return Row(group, package.name, State.OK, answer.found)


def _again(package: Package) -> str:
    return package.install or pip_install(package.distribution, "--force-reinstall")


def _fits(distribution: str, wanted: str) -> bool:
    """Whether the installed version lies in a range; true where it is not known."""
    from packaging.specifiers import SpecifierSet

    try:
        return SpecifierSet(wanted).contains(version(distribution), prereleases=True)
    except (PackageNotFoundError, ValueError):
        return True
