"""`python -m motion4d_ros.ros.demo`."""

import sys

from motion4d_ros.ros.demo.command import main

sys.exit(main())
