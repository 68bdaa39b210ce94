"""These tests need ROS 2."""

from __future__ import annotations

import os

import pytest

if "MOTION4D_INSTALLED" not in os.environ:  # `make test` always has ROS 2: there, an import that fails is an error
    pytest.importorskip("rclpy", reason="needs ROS 2")
