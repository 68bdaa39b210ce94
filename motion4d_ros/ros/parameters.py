"""`config.py` as ROS parameters: declared with description, type and range, refused with the reason.

A parameter is named like its tunable (`window.length`); those of the section `ros` carry no prefix (`map_frame`).
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter
from scipy.spatial.transform import Rotation

from motion4d_ros.config import ROS_ONLY_KEYS, Config, refuse_renamed
from motion4d_ros.ros.inputs.detections import demand_messages
from motion4d_ros.ros.pace import Pace
from motion4d_ros.tunables import Tunable, get, put
from motion4d_ros.types import FloatArray, Motion4DError
from motion4d_ros.viewer.destinations import FORMS, is_target

NODE_DEFAULTS: dict[str, Any] = {"budget.mode": "realtime"}
"""Where a robot wants something else than a recording does."""

CHANGES_AT_ONCE, CHANGES_PER_S = 300, 50.0
"""Changes of parameters that are looked at: a whole file of them at once, and few in the long run."""


def parameter_name(path: str) -> str:
    """The ROS parameter of a tunable."""
    return path.removeprefix("ros.")


def node_config() -> Config:
    """The configuration with the node's own defaults."""
    config = Config()
    config.update(NODE_DEFAULTS)
    return config


def descriptor(tunable: Tunable) -> ParameterDescriptor:
    """What `ros2 param describe` shows."""
    unit = f" [{tunable.unit}]" if tunable.unit else ""
    message = ParameterDescriptor(name=parameter_name(tunable.path), description=tunable.meaning + unit)
    message.read_only = tunable.fixed  # whoever may set parameters over the network must not lead the node to files
    if tunable.choices:
        message.additional_constraints = "one of: " + ", ".join(tunable.choices)
    if not tunable.live:
        change = "given at the start only" if tunable.fixed else "changes only while the node is unconfigured"
        message.additional_constraints = "; ".join(filter(None, [message.additional_constraints, change]))
    if tunable.minimum is None and tunable.maximum is None:
        return message
    low, high = tunable.minimum, tunable.maximum
    if tunable.type is int:
        span = IntegerRange(from_value=int(low or 0), to_value=int(high) if high is not None else 2**63 - 1, step=1)
        message.integer_range = [span]
    elif tunable.type is float:
        least = -sys.float_info.max if low is None else float(low)
        most = sys.float_info.max if high is None else float(high)
        message.floating_point_range = [FloatingPointRange(from_value=least, to_value=most, step=0.0)]
    return message


class Parameters:
    """The parameters of one node. `is_configured()` tells whether only live ones may change.

    Raises `Motion4DError` with one line when the values the node was started with are refused.
    """

    def __init__(self, node: Node, is_configured: Callable[[], bool]) -> None:
        self._node = node
        self._is_configured = is_configured
        self._tunables = {parameter_name(item.path): item for item in node_config().tunables()}
        self.pace = Pace(CHANGES_AT_ONCE, CHANGES_PER_S)
        defaults = node_config()
        for name, tunable in self._tunables.items():
            self._declare(name, tunable, get(defaults, tunable.path))
        self.unknown = self._find_unknown()
        check_together(self.read())
        node.add_on_set_parameters_callback(self._on_set)

    def read(self) -> Config:
        """The configuration as the parameters say now."""
        config = node_config()
        for name, tunable in self._tunables.items():
            put(config, tunable.path, tunable.parse(self._node.get_parameter(name).value))
        return config

    def live(self, parameters: Iterable[Parameter]) -> dict[str, Any]:
        """Dotted path -> value of those of the configuration that take effect at once."""
        known = [(self._tunables.get(parameter.name), parameter.value) for parameter in parameters]
        return {item.path: item.parse(value) for item, value in known if item is not None and item.live}

    def _declare(self, name: str, tunable: Tunable, default: Any) -> None:
        try:
            value = self._node.declare_parameter(name, default, descriptor(tunable)).value
        except Exception as error:  # rclpy has an exception for each way to be wrong
            raise Motion4DError(f"parameter {name}: {' '.join(str(error).split())}") from None
        tunable.parse(value)

    def _find_unknown(self) -> list[str]:
        """Overrides that nobody declared, most likely misspelt: `rclpy` is silent on them. Former names are refused."""
        overrides: dict[str, Any] = getattr(self._node, "_parameter_overrides", {})
        unknown = []
        for name in overrides:
            refuse_renamed(name)
            if name in self._tunables or name.split(".")[0] in ROS_ONLY_KEYS:
                continue
            near = difflib.get_close_matches(name, self._tunables, n=1)
            unknown.append(f"{name} (did you mean {near[0]}?)" if near else name)
        return unknown

    def _on_set(self, parameters: Iterable[Parameter]) -> SetParametersResult:
        ours = [parameter for parameter in parameters if parameter.name in self._tunables]
        if not ours:
            return SetParametersResult(successful=True)  # use_sim_time, qos_overrides and others of rclpy's own
        if len(ours) > len(self._tunables) or not self.pace.take():
            return SetParametersResult(
                successful=False, reason=f"too many changes of parameters: at most {CHANGES_PER_S:g} a second"
            )
        try:
            config = self.read()
            for parameter in ours:
                tunable = self._tunables[parameter.name]
                value = tunable.parse(parameter.value)
                if self._is_configured() and not tunable.live and value != get(config, tunable.path):
                    raise Motion4DError(
                        f"{parameter.name} cannot change while the node is configured: "
                        f"'ros2 lifecycle set {self._node.get_fully_qualified_name()} cleanup' first"
                    )
                put(config, tunable.path, value)
            check_together(config)
        except Motion4DError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)


def check_together(config: Config) -> None:
    """Refuses values that are legal one by one, but not together."""
    if config.depth.minimum >= config.depth.maximum:
        near, far = config.depth.minimum, config.depth.maximum
        raise Motion4DError(f"depth.minimum={near:g} must be below depth.maximum={far:g}")
    if config.window.horizon < config.window.length:
        horizon, length = config.window.horizon, config.window.length
        raise Motion4DError(f"window.horizon={horizon} must hold at least one window (window.length={length})")
    if config.ros.rerun and not is_target(config.ros.rerun):
        raise Motion4DError(f"rerun={config.ros.rerun!r}: expected {FORMS}")
    if config.finder == "detections" and config.detections.source == "given":
        demand_messages()
    base_to_camera(config)


def base_to_camera(config: Config) -> FloatArray | None:
    """(4, 4) T_base_cam of the parameter `base_to_camera`; None if it is empty. Raises `Motion4DError`."""
    text = config.ros.base_to_camera.replace(",", " ").split()
    if not text:
        return None
    try:
        values = np.array([float(word) for word in text])
    except ValueError:
        values = np.zeros(0)
    if len(values) != 7 or not np.isfinite(values).all():
        raise Motion4DError(f"base_to_camera={config.ros.base_to_camera!r}: must be seven numbers, x y z qx qy qz qw")
    if abs(np.linalg.norm(values[3:]) - 1.0) > 0.02:
        raise Motion4DError(f"base_to_camera: quaternion of length {np.linalg.norm(values[3:]):.3g}, must be 1")
    T = np.eye(4)
    T[:3, :3] = Rotation.from_quat(values[3:]).as_matrix()
    T[:3, 3] = values[:3]
    return T
