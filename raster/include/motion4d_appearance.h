/* What speaks for an object's being at some poses, by what keyframes saw of it. Row-major arrays; the results are the
 * same, bit for bit, for any number of threads.
 *
 * The formulas are those of motion4d_ros/fit/relocalisation/appearance.py; the reference is in
 * test/fit/relocalisation/test_appearance.py (NumPy).
 */
#ifndef MOTION4D_APPEARANCE_H
#define MOTION4D_APPEARANCE_H

#include "motion4d_raster.h"

#ifdef __cplusplus
extern "C" {
#endif

/* N points of an object, and a frame (H, W) in which it is looked for. */
typedef struct {
    int32_t points, poses, shifts; /* N, K, S */
    int32_t height, width, threads;
    double fx, fy, cx, cy;
    double facing;           /* cosine between the directions from which a point was and would be seen */
    double behind;           /* what is nearer than this share of a point's depth hides it */
    double values, most;     /* independent grey values per point; points that count at most */
    double noise, off_mask;  /* share of the variance; evidence of a point beside the mask */
    double sigma;            /* of the mean depth, relative */
    const double *xyz, *side; /* (N, 3) m and unit vectors, canonical */
    const double *gray;      /* (N,) */
    const double *pose;      /* (K, 4, 4) canonical to camera */
    const double *shift;     /* (S, 2) px */
    const float *image;      /* (H, W) grey values */
    const uint8_t *mask;     /* (H, W) */
    const float *cover, *surface; /* (H, W) m: of what is not the object, and of the object (NaN: unknown) */
    double *evidence;        /* (K, S) nats */
} m4d_appearance;

/* Returns 0, or 1 when memory ran out. */
M4D_API int m4d_evidence(const m4d_appearance *appearance);

#ifdef __cplusplus
}
#endif
#endif
