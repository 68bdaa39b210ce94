/* Points of one picture found in another: patches aligned by grey values, inverse compositional (Baker and Matthews,
 * "Lucas-Kanade 20 Years On", IJCV 2004), from coarse to fine.
 *
 * A patch is expected to be warped by a map of second order that the caller knows; its place, and the gain and offset
 * of its grey values, are found. Pixels of other labels have no say, on either side. The reference is
 * `test/fit/patch_reference.py` (NumPy, double precision). Every result is the same, bit for bit, for any number
 * of threads on one kind of CPU.
 */
#ifndef MOTION4D_ALIGN_H
#define MOTION4D_ALIGN_H

#include "motion4d_raster.h"

#ifdef __cplusplus
extern "C" {
#endif

#define M4D_ALIGN_LEVELS 3
#define M4D_ALIGN_SIDE 11 /* px, of a patch, at every level */

/* Grey values of a picture: level 0 as it is, each further one half as wide and high, pixel (x, y) of it at pixel
 * (2 x, 2 y) of the one before. */
typedef struct {
    const float *gray[M4D_ALIGN_LEVELS]; /* (H_l, W_l) */
    int32_t width[M4D_ALIGN_LEVELS], height[M4D_ALIGN_LEVELS];
    const int32_t *labels; /* (H_0, W_0) */
} m4d_picture;

/* N points. What is found is NaN where nothing is. */
typedef struct {
    int64_t count;
    int32_t levels, threads;         /* levels to use, 1 to M4D_ALIGN_LEVELS; 0 threads: one per CPU */
    const int32_t *source, *target;  /* (N,) which pictures */
    const int32_t *label;            /* (N,) */
    const float *uv_source;          /* (N, 2) px */
    const float *uv_guess;           /* (N, 2) px; NaN: not looked for */
    const float *warp;               /* (N, 2, 5) where a step (x, y) in the source goes in the target: for its x, then
                                        its y, the coefficients of x, y, x^2, x y, y^2 */
    float *uv;                       /* (N, 2) px, where the point is in the target */
    float *returned;                 /* (N,) px of the target: how far from its start it lands on the way back; infinity: it does not */
    float *likeness;                 /* (N,) correlation of the patches */
    float *sigma;                    /* (N,) px, one standard deviation that noise of the grey values explains */
} m4d_alignments;

/* The surface about N points of a depth image: inverse depth as a polynomial of steps (x, y) px, by least squares over
 * the pixels of the same label that are about as far away. */
typedef struct {
    int64_t count;
    int32_t width, height, reach;    /* px; windows of 2 reach + 1 */
    float tolerance;                 /* by which depths may differ, relative */
    const float *depth_m;            /* (H, W) m; NaN or less than 0: unknown */
    const int32_t *labels;           /* (H, W) */
    const int32_t *column, *row;     /* (N,) px */
    float *inverse_depth;            /* (N, 6) 1/m, coefficients of 1, x, y, x^2, x y, y^2; NaN where unknown */
} m4d_surfaces;

M4D_API void m4d_fit_surfaces(const m4d_surfaces *points);

/* 0, or 1 when memory ran out, 2 when a point names a picture or level that is not there. */
M4D_API int m4d_align(const m4d_picture *pictures, int32_t count, const m4d_alignments *points);

#ifdef __cplusplus
}
#endif
#endif
