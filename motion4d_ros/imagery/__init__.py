"""Image and camera messages <-> arrays, strictly checked, without ROS: for the node and for recordings alike."""
