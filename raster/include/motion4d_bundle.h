/* Bundle adjustment of one body: its cost, and the normal equations of a Gauss-Newton step.
 *
 * The reference is `motion4d_ros/fit/motion/bundle_adjustment.py` (NumPy), which says what is adjusted and why. Row-major
 * arrays of doubles. Everything is computed in one thread and in one order: several bodies are adjusted at once.
 */
#ifndef MOTION4D_BUNDLE_H
#define MOTION4D_BUNDLE_H

#include "motion4d_raster.h"

#ifdef __cplusplus
extern "C" {
#endif

#define M4D_PER_FRAME 8 /* unknowns of a frame: rotation (3), translation (3), depth scale, depth offset */

/* N points of a body over T frames, and what was seen of them. Entries that are not visible are never read. */
typedef struct {
    int64_t points, frames;      /* N, T */
    const double *uv;            /* (N, T, 2) px */
    const double *sigma;         /* (N, T) px */
    const uint8_t *visible;      /* (N, T) */
    const double *inverse_depth; /* (N, T) 1/m; NaN: unknown */
    const double *T_cam_map;     /* (T, 4, 4) */
    const double *R;             /* (T, 3, 3) */
    const double *t;             /* (T, 3) m */
    const double *xyz;           /* (N, 3) m, canonical */
    const double *depth_scale;   /* (T,) */
    const double *depth_offset;  /* (T,) 1/m */
    double center[3];            /* m */
    double fx, fy, cx, cy;       /* px */
    double sigma_depth, cauchy;
    int32_t free_poses, free_offset;
} m4d_body;

/* Sums over all observations, each with its robust weight; without what is known beforehand. */
typedef struct {
    double *H_frames; /* (T, 8, 8) */
    double *g_frames; /* (T, 8) */
    double *H_points; /* (N, 3, 3) */
    double *g_points; /* (N, 3) */
    double *W;        /* (N, T, 8, 3) */
} m4d_normal_equations;

/* Robust cost of all observations, and how many there are. */
M4D_API double m4d_body_cost(const m4d_body *body, int64_t *observations);

M4D_API void m4d_body_linearise(const m4d_body *body, const m4d_normal_equations *out);

#ifdef __cplusplus
}
#endif
#endif
