/* What the masks of neighbouring frames say about the pixels of a frame. Row-major arrays; the results are the same, bit
 * for bit, for any number of threads on one kind of CPU.
 *
 * The reference is in test/fit/semantics/test_native_opinions.py (NumPy and OpenCV). Images are read between pixels as
 * OpenCV does: bilinear, places rounded to 1/32 px, the border repeated. Images have at most 2^28 pixels.
 */
#ifndef MOTION4D_LABELS_H
#define MOTION4D_LABELS_H

#include "motion4d_raster.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One step of a chain of neighbours, from a frame to the next one. */
typedef struct {
    int32_t height, width, begins; /* of the flow; 1: the chain begins here, at the frame that is judged */
    const float *flow;             /* (h, w, 2) px */
    const float *worth;            /* (h, w) of what is said at its end, on the pixels of its start */
    const uint32_t *look;          /* (H, W) the picture at its end: three grey levels, the lowest byte first */
    const int32_t *label;          /* (H, W) number of the label there; -1 says nothing */
} m4d_label_link;

/* n pixels of a frame, on which L + 1 raters have an opinion: its own mask, and those at the ends of L links. */
typedef struct {
    int64_t count;
    int32_t height, width, labels, links, threads; /* H, W, K, L; threads 0 = one per CPU this process may use */
    const int32_t *pixels;                         /* (n,) y W + x */
    const uint32_t *look;                          /* (H, W) of the frame */
    const int32_t *label;                          /* (H, W) */
    const float *alike;                            /* (766,) worth by the sum of differences of the three colours */
    const m4d_label_link *link;                    /* (L,) */
    float *said;                                   /* (L + 1, n, K) worth times share of every label */
} m4d_label_question;

M4D_API void m4d_label_opinions(const m4d_label_question *question);

/* Whether any of the links leads a pixel to a label above 0, read at the nearest pixel: `seen` (n,) becomes 1. `look`,
 * `worth` and `said` are not read. */
M4D_API void m4d_label_seen(const m4d_label_question *question, uint8_t *seen);

/* Sums of what R raters say about n pixels, each times its weight, and what is rendered of them (NULL: nothing) ->
 * `shares` (n, K); the first label's where nothing is said. `largest` (n,) is the largest share of a pixel. */
typedef struct {
    int64_t count;
    int32_t raters, labels, threads;
    const float *const *said; /* (R,) of (n, K) */
    const float *weight, *rendered; /* (R,), (n, K) */
    float *shares, *largest;
} m4d_label_sums;

M4D_API void m4d_label_shares(const m4d_label_sums *sums);

#ifdef __cplusplus
}
#endif
#endif
