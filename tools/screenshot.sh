#!/usr/bin/env bash
# A picture of the viewer Rerun with a result of `motion4d analyze` in it, without a display.
#
#   tools/screenshot.sh out docs/img/view.jpg [SIZE]     SIZE: 1000x640
#
# It needs the extra [view], in the environment that tools/env.bash finds, and Vulkan: a GPU, or Mesa's software renderer
# (apt-get install mesa-vulkan-drivers), which takes a minute or two on two cores.
set -euo pipefail

stop() { echo "screenshot: $*" >&2; exit 2; }

(($# == 2 || $# == 3)) || stop "expected RESULT PICTURE [SIZE], as in tools/screenshot.sh out view.jpg 1000x640"
result=$1 picture=$2 size=${3:-1000x640}
[[ $size =~ ^[0-9]+x[0-9]+$ ]] || stop "$size: expected WIDTHxHEIGHT, such as 1000x640"
[[ $picture == *.jpg || $picture == *.png ]] || stop "$picture: name a .jpg or .png file"
set +u  # set-up files of colcon use what is not set
source "$(dirname "${BASH_SOURCE[0]}")/env.bash"
set -u
command -v rerun > /dev/null || stop "the viewer Rerun is not installed: pip install 'motion4d_ros[view]' (or rerun-sdk)"

wait_s=120  # for one attempt
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python -m motion4d_ros.cli view "$result" --save "$work/view.rrd"
rerun analytics disable > /dev/null 2>&1 || true  # of this machine's user

shoot() {  # whether there is a picture now; the viewer waits for ever when drawing takes it longer than ten seconds
    : > "$work/log"
    rerun --headless --window-size "$size" --screenshot-to "$work/view.png" "$work/view.rrd" > "$work/log" 2>&1 &
    local viewer=$! second
    for ((second = 0; second < wait_s; second++)); do
        [[ ! -s $work/view.png ]] || break
        kill -0 $viewer 2> /dev/null || break
        ! grep -q "Failed to render" "$work/log" || break
        sleep 1
    done
    [[ ! -s $work/view.png ]] || sleep 1  # it may still be written
    pkill -P $viewer 2> /dev/null || true  # the program behind Python's
    kill $viewer 2> /dev/null || true
    wait $viewer 2> /dev/null || true
    [[ -s $work/view.png ]]
}

shoot || shoot || shoot || stop "the viewer took no picture in three attempts:" \
    "$(grep -iE 'fail|error|vulkan|adapter' "$work/log" | tail -1 | sed 's/\x1b\[[0-9;]*m//g')" \
    "(without a GPU: apt-get install mesa-vulkan-drivers; on a busy machine a smaller SIZE)"
python - "$work/view.png" "$picture" << 'END'
import sys

import cv2

image = cv2.imread(sys.argv[1])
if not cv2.imwrite(sys.argv[2], image, [cv2.IMWRITE_JPEG_QUALITY, 88]):
    sys.exit(f"screenshot: {sys.argv[2]}: cannot be written")
print(f"{sys.argv[2]}: {image.shape[1]}x{image.shape[0]} px")
END
