"""Standard measures, each by its published definition; pure functions of NumPy arrays."""

from motion4d_ros.evaluation.metrics.depth import DepthErrors, depth_errors
from motion4d_ros.evaluation.metrics.images import masked_ssim, psnr, ssim
from motion4d_ros.evaluation.metrics.points3d import PointErrors, point_errors
from motion4d_ros.evaluation.metrics.segmentation import (
    MaskScores,
    boundary_f,
    identity_flips,
    match_labels,
    region_j,
    score_masks,
)
from motion4d_ros.evaluation.metrics.tracking import TrackScores, score_tracks, strided_queries
from motion4d_ros.evaluation.metrics.trajectory import (
    absolute_trajectory_error,
    align_umeyama,
    associate,
    relative_pose_error,
)

__all__ = [
    "DepthErrors",
    "MaskScores",
    "PointErrors",
    "TrackScores",
    "absolute_trajectory_error",
    "align_umeyama",
    "associate",
    "boundary_f",
    "depth_errors",
    "identity_flips",
    "masked_ssim",
    "match_labels",
    "point_errors",
    "psnr",
    "region_j",
    "relative_pose_error",
    "score_masks",
    "score_tracks",
    "ssim",
    "strided_queries",
]
