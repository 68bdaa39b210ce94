"""``python -m motion4d_ros.evaluation.synthetic NAME --out DIR``: writes a scene as bag, truth and contact sheet."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from motion4d_ros.evaluation.synthetic import PRESETS, UNSTEADY, make_scene, write_bag
from motion4d_ros.evaluation.synthetic.sheet import write_contact_sheet
from motion4d_ros.failures import guarded
from motion4d_ros.types import Motion4DError


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0, or 2 after one line on what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m motion4d_ros.evaluation.synthetic", description=__doc__)
    parser.add_argument("name", choices=sorted(PRESETS | UNSTEADY), help="which scene")
    parser.add_argument("--out", type=Path, required=True, help="new folder for bag/, gt.npz, queries.npy, sheet.png")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--size", type=int, nargs=2, default=(240, 320), metavar=("HEIGHT", "WIDTH"))
    options = parser.parse_args(arguments)
    try:
        if (options.out / "bag").exists():
            raise Motion4DError(f"{options.out / 'bag'} exists already: choose another --out")
        scene = make_scene(options.name, options.seed, options.frames, tuple(options.size))
        scene.save_npz(options.out / "gt.npz")
        write_bag(scene, options.out / "bag")
        write_contact_sheet(scene, options.out / "sheet.png")
    except (Motion4DError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{options.out}: {len(scene.images)} frames, {len(scene.queries)} query points")
    return 0


if __name__ == "__main__":
    sys.exit(guarded("synthetic", main))
