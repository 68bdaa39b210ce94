"""The messages: names that robots rely on, and constants that agree with the types they stand for."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path

import pytest

from motion4d_ros.types import ObjectPhase, PoseStatus, Scale, Stage

msg = pytest.importorskip("motion4d_ros.msg", reason="the messages are there only in a colcon install space")
srv = pytest.importorskip("motion4d_ros.srv", reason="the services are there only in a colcon install space")

FIELDS = {
    "TrackedObject": {
        "id": "uint32",
        "label": "string",
        "label_score": "float",
        "state": "string",
        "existence_probability": "float",
        "pose": "geometry_msgs/PoseWithCovariance",
        "twist": "geometry_msgs/TwistWithCovariance",
        "size": "geometry_msgs/Vector3",
        "point_count": "uint32",
        "first_seen": "builtin_interfaces/Time",
        "last_seen": "builtin_interfaces/Time",
    },
    "TrackedObjectArray": {
        "header": "std_msgs/Header",
        "stage": "string",
        "scale": "string",
        "objects": "sequence<motion4d_ros/TrackedObject>",
    },
    "ObjectPrompt": {
        "header": "std_msgs/Header",
        "object_id": "uint32",
        "points": "sequence<geometry_msgs/Point>",
        "positive": "sequence<boolean>",
        "box": "sequence<float, 4>",
        "mask": "sensor_msgs/Image",
        "name": "string",
        "remove": "boolean",
    },
    "PipelineStatus": {
        "header": "std_msgs/Header",
        "received": "uint64",
        "processed": "uint64",
        "dropped": "uint64",
        "rejected": "uint64",
        "queued": "uint64",
        "drop_reasons": "sequence<string>",
        "drop_counts": "sequence<uint64>",
        "reject_reasons": "sequence<string>",
        "reject_counts": "sequence<uint64>",
        "latency_live": "float",
        "latency_window": "float",
        "stage_names": "sequence<string>",
        "stage_seconds": "sequence<double>",
        "gaussians_static": "uint32",
        "gaussians_dynamic": "uint32",
        "bases": "uint32",
        "memory_rss": "uint64",
        "memory_gpu": "uint64",
        "scale": "string",
        "pose_status": "string",
    },
}


@pytest.mark.parametrize("name", FIELDS)
def test_fields_and_their_types(name: str) -> None:
    actual = getattr(msg, name).get_fields_and_field_types()
    assert {field: actual.get(field) for field in FIELDS[name]} == FIELDS[name]


def test_save_scene() -> None:
    assert srv.SaveScene.Request.get_fields_and_field_types() == {"folder": "string"}
    assert srv.SaveScene.Response.get_fields_and_field_types() == {
        "success": "boolean",
        "message": "string",
        "files": "sequence<string>",
    }


@pytest.mark.parametrize(
    ("message", "prefix", "meaning"),
    [
        ("TrackedObjectArray", "STAGE_", Stage),
        ("TrackedObjectArray", "SCALE_", Scale),
        ("TrackedObject", "STATE_", ObjectPhase),
        ("PipelineStatus", "SCALE_", Scale),
        ("PipelineStatus", "POSE_", PoseStatus),
    ],
)
def test_constants_are_the_values_of_the_enumeration(message: str, prefix: str, meaning: type[Enum]) -> None:
    cls = getattr(msg, message)
    for member in meaning:
        assert getattr(cls, prefix + member.name) == member.value


@pytest.mark.parametrize("path", ["msg/*.msg", "srv/*.srv"])
def test_every_field_is_commented(repository: Path, path: str) -> None:
    sources = sorted(repository.glob(path))
    assert sources
    for source in sources:
        for line in source.read_text().splitlines():
            is_field = re.match(r"^[A-Za-z]\S*\s+[a-z]\w*\s*(#.*)?$", line)
            assert not is_field or is_field[1], f"{source.name}: {line!r} has no comment"


def test_box_takes_at_most_four_numbers() -> None:
    prompt = msg.ObjectPrompt()
    assert list(prompt.box) == []
    prompt.box = [1.0, 2.0, 3.0, 4.0]
    with pytest.raises(AssertionError):
        prompt.box = [0.0] * 5


def test_messages_survive_serialisation() -> None:
    rclpy_serialization = pytest.importorskip("rclpy.serialization")
    array = msg.TrackedObjectArray(stage=msg.TrackedObjectArray.STAGE_WINDOW, scale=msg.TrackedObjectArray.SCALE_METRIC)
    array.header.stamp.sec, array.header.stamp.nanosec = 12, 34
    array.objects = [msg.TrackedObject(id=2**32 - 1, label="Tür", existence_probability=0.5)]
    array.objects[0].pose.covariance[35] = 0.25
    blob = rclpy_serialization.serialize_message(array)
    assert rclpy_serialization.deserialize_message(blob, msg.TrackedObjectArray) == array
