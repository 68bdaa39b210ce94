"""The ROS 2 side: messages to frames, estimates to messages, and the node. Nothing else in the package knows ROS."""
