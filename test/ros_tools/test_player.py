"""The order in which a bag's messages are published."""

from __future__ import annotations

from motion4d_ros.ros_tools.player import small_ones_last


def test_messages_of_one_moment_are_sent_the_largest_first() -> None:
    recorded = [("info", 1, b"12"), ("image", 1, b"123"), ("odom", 1, b"1"), ("odom", 2, b"1"), ("image", 3, b"")]
    sent = list(small_ones_last(recorded))
    assert [(name, stamp) for name, stamp, _ in sent] == [
        ("image", 1), ("info", 1), ("odom", 1), ("odom", 2), ("image", 3),
    ]  # fmt: skip
