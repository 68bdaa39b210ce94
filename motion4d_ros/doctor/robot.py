"""ROS 2: the distribution, this package's messages, optional packages, and what DDS is told."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from motion4d_ros.doctor.ask import Answer, installed
from motion4d_ros.doctor.packages import missing
from motion4d_ros.doctor.rows import Row, State
from motion4d_ros.remedies import apt_install

GROUP = "ROS"
DDS = "DDS"
DISTRIBUTIONS = ("jazzy", "kilted", "lyrical", "rolling")  # that this package is made for
OPTIONAL = (  # package, Python module ("" = none), what is lost without it
    ("message_filters", "message_filters", "a stand-in of ours matches stamps"),
    ("tf2_ros_py", "tf2_ros", "pose.source=tf and publish_tf need it"),
    ("vision_msgs", "vision_msgs", "boxes of other nodes' detectors need it"),
    ("compressed_image_transport", "", "publishers of compressed images need it; we read them without"),
    ("compressed_depth_image_transport", "", "publishers of compressed depth need it; we read it without"),
    ("rosbag2_py", "rosbag2_py", "ros2 bag and offline.launch.py need it; analyze reads and writes bags without"),
    ("launch_ros", "launch_ros", "the launch files need it; motion4d_node starts without"),
    ("rviz2", "", "to look at the outputs"),
)
DOMAINS = 233  # DDS' ports end there
SAFE_DOMAIN = 101  # beyond, Linux gives the ports away to others
PROFILES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE", "CYCLONEDDS_URI")
RANGES = ("", "SUBNET", "LOCALHOST", "OFF", "SYSTEM_DEFAULT")
SHARED_GOOD = 128 * 2**20  # bytes; containers have 64 MiB, a few large images
FULL_HD = 1920 * 1080 * 3  # bytes of a colour image, which UDP sends in one burst


def rows(answers: Mapping[str, Answer]) -> list[Row]:
    """All of it; where there is no ROS, one row says so."""
    definitions = definitions_row(answers)
    distro = os.environ.get("ROS_DISTRO", "")
    if not installed("rclpy"):
        return [definitions, absent_row(distro, sourceable())]
    found = [definitions, ros_row(distro, answers.get("rclpy", Answer(error="not looked at"))), messages_row(answers)]
    found.append(bridge_row(distro, answers))
    found += [optional_row(distro, *item) for item in OPTIONAL]
    return found + dds_rows(dict(os.environ))


def definitions_row(answers: Mapping[str, Answer]) -> Row:
    """The .msg files, with or without ROS."""
    name = "message files"
    if lacking := missing(("NumPy",), answers):
        return Row(GROUP, name, State.WARN, f"not looked at: needs {lacking}", f"mend {lacking} first")
    answer = answers.get("message_definitions", Answer(error="not looked at"))
    if answer.well:
        return Row(GROUP, name, State.OK, answer.found)
    return Row(GROUP, name, State.FAIL, answer.error, "pip install --force-reinstall --no-deps . (or make build)")


def sourceable(root: Path = Path("/opt/ros")) -> list[str]:
    """Distributions that are installed, newest name first."""
    return sorted((path.parent.name for path in root.glob("*/setup.bash")), reverse=True)


def absent_row(distro: str, there: list[str]) -> Row:
    """No rclpy for this Python."""
    if distro:
        found = f"ROS_DISTRO={distro}, but this Python has no rclpy: apt's ROS works with the system's Python only"
        return Row(GROUP, "ROS 2", State.FAIL, found, f"source /opt/ros/{distro}/setup.bash, and use /usr/bin/python3")
    if there:
        found = f"{', '.join(there)} installed, but not sourced (analyze works without, the node does not)"
        return Row(GROUP, "ROS 2", State.WARN, found, f"source /opt/ros/{there[0]}/setup.bash")
    found = "none here (analyze works without, the node does not)"
    return Row(GROUP, "ROS 2", State.WARN, found, "https://docs.ros.org, or make build, which takes ROS from PyPI")


def ros_row(distro: str, answer: Answer) -> Row:
    """rclpy and its middleware."""
    name = distro or "distribution unknown"
    if not answer.well:
        wanted = os.environ.get("RMW_IMPLEMENTATION", "")
        package = f"ros-{distro or 'jazzy'}-{(wanted or 'rclpy').replace('_', '-')}"
        return Row(GROUP, "ROS 2", State.FAIL, f"{name}: {answer.error}", apt_install(package))
    if distro not in DISTRIBUTIONS:
        return Row(GROUP, "ROS 2", State.WARN, f"{name}, {answer.found}", f"use one of {', '.join(DISTRIBUTIONS)}")
    return Row(GROUP, "ROS 2", State.OK, f"{name}, {answer.found}")


def messages_row(answers: Mapping[str, Answer]) -> Row:
    """The generated messages."""
    answer = answers.get("messages", Answer(error="not looked at"))
    if answer.well:
        return Row(GROUP, "our messages", State.OK, answer.found)
    found = f"{answer.error} (analyze works without, the node does not)"
    remedy = "colcon build --packages-select motion4d_ros && source install/setup.bash"
    return Row(GROUP, "our messages", State.WARN, found, remedy)


def bridge_row(distro: str, answers: Mapping[str, Answer]) -> Row:
    """cv_bridge, tried out on known pictures."""
    if not installed("cv_bridge"):
        return optional_row(distro, "cv_bridge", "cv_bridge", "rosbags-image converts images instead")
    answer = answers.get("cv_bridge", Answer(error="not looked at"))
    if answer.well:
        return Row(GROUP, "cv_bridge", State.OK, answer.found)
    found = f"not used: {answer.error}; rosbags-image converts images instead"
    return Row(
        GROUP, "cv_bridge", State.WARN, found, "none needed; it wants the NumPy and OpenCV that it was built with"
    )


def optional_row(distro: str, package: str, module: str, loss: str) -> Row:
    """A package that a robot may have."""
    if installed(module) if module else _in_index(package):
        return Row(GROUP, package, State.OK, "there")
    command = apt_install(f"ros-{distro or '$ROS_DISTRO'}-{package.replace('_', '-')}")
    return Row(GROUP, package, State.WARN, f"not installed ({loss})", command)


def dds_rows(environment: Mapping[str, str]) -> list[Row]:
    """What decides whether messages arrive."""
    rmw = environment.get("RMW_IMPLEMENTATION", "")
    middleware = Row(DDS, "RMW_IMPLEMENTATION", State.OK, rmw or "not set: the distribution's default")
    if rmw and not _in_index(rmw):
        package = f"ros-{environment.get('ROS_DISTRO', 'jazzy')}-{rmw.replace('_', '-')}"
        middleware = Row(DDS, "RMW_IMPLEMENTATION", State.FAIL, f"{rmw} is not installed",
                         f"{apt_install(package)}, or unset RMW_IMPLEMENTATION")  # fmt: skip
    files = [_file_row(environment, name) for name in PROFILES if environment.get(name)]
    return [
        middleware,
        domain_row(environment.get("ROS_DOMAIN_ID", "")),
        range_row(environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE", ""), environment.get("ROS_LOCALHOST_ONLY", "")),
        *files,
        shared_memory_row(),
        receive_buffer_row(),
    ]


def domain_row(text: str) -> Row:
    """Nodes hear each other in one domain only."""
    name = "ROS_DOMAIN_ID"
    if not text:
        return Row(DDS, name, State.OK, "not set: 0")
    if not text.isdigit() or int(text) >= DOMAINS:
        return Row(DDS, name, State.FAIL, f"{text!r} is no number below {DOMAINS}", f"export {name}=0")
    if int(text) > SAFE_DOMAIN:
        found = f"{text}: its ports may be taken by other programs on Linux"
        return Row(DDS, name, State.WARN, found, f"export {name}=n with n from 0 to {SAFE_DOMAIN}")
    return Row(DDS, name, State.OK, f"{text}: only nodes with the same one are heard")


def range_row(text: str, localhost_only: str) -> Row:
    """How far discovery reaches."""
    name = "discovery range"
    variable = "ROS_AUTOMATIC_DISCOVERY_RANGE"
    if text not in RANGES:
        found = f"{variable}={text} is none of {', '.join(RANGES[1:])}"
        return Row(DDS, name, State.WARN, found, f"export {variable}=SUBNET")
    if text == "OFF":
        return Row(DDS, name, State.WARN, "OFF: nothing is found but static peers", f"export {variable}=SUBNET")
    if text == "LOCALHOST" or localhost_only == "1":
        return Row(DDS, name, State.OK, "this machine only: cameras on other computers are not heard")
    return Row(DDS, name, State.OK, text or "not set: the whole subnet")


def shared_memory_row(folder: Path = Path("/dev/shm")) -> Row:
    """Large messages on one machine go through here."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError as error:
        found = f"{folder}: {error.strerror} (messages go over UDP instead, slowly)"
        return Row(DDS, "shared memory", State.WARN, found, "docker run --ipc=host, or --shm-size=1g")
    text = f"{usage.free / 2**20:.0f} of {usage.total / 2**20:.0f} MiB free in {folder}"
    if usage.free >= SHARED_GOOD:
        return Row(DDS, "shared memory", State.OK, text)
    remedy = "docker run --ipc=host, or --shm-size=1g"
    if usage.total >= SHARED_GOOD:
        remedy = f"remove what dead nodes left: fastdds shm clean, or rm {folder}/fastrtps_*"
    return Row(DDS, "shared memory", State.WARN, text, remedy)


def receive_buffer_row(path: Path = Path("/proc/sys/net/core/rmem_max")) -> Row:
    """Images from another machine come as a burst of UDP packets."""
    name = "net.core.rmem_max"
    try:
        size = int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return Row(DDS, name, State.OK, "cannot be read here")
    if size >= FULL_HD:
        return Row(DDS, name, State.OK, f"{size} bytes")
    found = f"{size} bytes: large images from other machines get lost"
    return Row(DDS, name, State.WARN, found, "sudo sysctl -w net.core.rmem_max=67108864")


def _file_row(environment: Mapping[str, str], name: str) -> Row:
    value = environment[name]
    if value.lstrip().startswith("<"):  # CycloneDDS takes the XML itself, too
        return Row(DDS, name, State.OK, "given in place")
    path = Path(value.removeprefix("file://"))
    if path.is_file():
        return Row(DDS, name, State.OK, str(path))
    return Row(DDS, name, State.WARN, f"{path}: no such file", f"unset {name}")


def _in_index(package: str) -> bool:
    """Whether ament knows a package."""
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    index = Path("share", "ament_index", "resource_index", "packages", package)
    return any((Path(prefix) / index).is_file() for prefix in prefixes if prefix)
