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

/* The labels that a scene shows in a frame. */
typedef struct {
    int32_t height, width, channels;
    const float *share;    /* (h, w, C) */
    const int32_t *number; /* (C,) the label of every channel */
} m4d_label_scene;

/* n pixels of a frame, on which R = L + 1 raters have an opinion: its own mask, and those at the ends of L links; and
 * R + 1 with a scene.
 *
 * An opinion is an entry for each label that a rater names: the rater's number, the label's, worth times share (above
 * 0). Entries stand pixel by pixel, for a pixel rater by rater. Pixels 4096 p to 4096 (p + 1) are piece p: its entries
 * stand one after the other from place 4096 p (4 R + M4D_SCENE_LABELS) on. */
#define M4D_SCENE_LABELS 8 /* of a pixel: of more, those with the largest shares */
typedef struct {
    int64_t count;
    int32_t height, width, labels, links, threads; /* H, W, K, L; threads 0 = one per CPU this process may use */
    const int32_t *pixels;                         /* (n,) y W + x */
    const uint32_t *look;                          /* (H, W) of the frame */
    const int32_t *label;                          /* (H, W) */
    const float *alike;                            /* (766,) worth by the sum of differences of the three colours */
    const m4d_label_link *link;                    /* (L,) */
    const m4d_label_scene *scene;                  /* NULL: none */
    int32_t *many;                                 /* (n,) entries of every pixel */
    uint8_t *rater;                                /* (n (4 R + M4D_SCENE_LABELS),); at most 255 raters */
    uint16_t *named;                               /* the same */
    float *weight;                                 /* the same */
} m4d_label_question;

M4D_API void m4d_label_opinions(const m4d_label_question *question);

/* Whether any of the links leads a pixel to a label above 0, read at the nearest pixel: `seen` (n,) becomes 1. What
 * else is said is not read. */
M4D_API void m4d_label_seen(const m4d_label_question *question, uint8_t *seen);

/* What R raters say about n pixels: entries `start[i]` to `start[i + 1]` are about pixel i. */
typedef struct {
    int64_t count;
    int32_t raters, labels, threads; /* R, K */
    const int64_t *start;            /* (n + 1,) */
    const uint8_t *rater;            /* (m,) */
    const uint16_t *named;           /* (m,) */
    const float *weight;             /* (m,) */
} m4d_label_said;

/* The labels that are named about each pixel, ascending, background (0) always among them, and the share that each has
 * in the sum of all words times the `worth` (R,) of their raters; background has it all where nothing is said. Those of
 * a piece of 4096 pixels stand one after the other from place start[4096 p] + 4096 p on. */
typedef struct {
    const float *worth;
    int32_t *many;      /* (n,) labels of every pixel */
    uint16_t *possible; /* (m + n,) */
    float *share;       /* (m + n,) */
} m4d_label_shares;

M4D_API void m4d_label_share(const m4d_label_said *said, const m4d_label_shares *shares);

/* Labels that are possible: `first[i]` to `first[i + 1]` are those of pixel i. */
typedef struct {
    const int64_t *first;     /* (n + 1,) */
    const uint16_t *possible; /* (c,) */
    float *value;             /* (c,) of each */
} m4d_label_values;

/* Posterior of the possible labels: the exponential of the sum of all words times worth (R,) times log-likelihood (R,) of
 * (K, K), truth times said; 0 for labels that nobody but the rater `unheard` (-1: none) names. Without `normalised` the
 * sums themselves. */
M4D_API void m4d_label_judge(const m4d_label_said *said, const m4d_label_values *labels, const float *worth,
                             const float *const *likelihood, int32_t unheard, int32_t normalised);

/* Adds to `counts` (R) of (K, K), NULL for raters that are not asked: value of each possible label (truth) times word.
 * One thread: sums keep their order. */
M4D_API void m4d_label_count(const m4d_label_said *said, const m4d_label_values *labels, double *const *counts);

#ifdef __cplusplus
}
#endif
#endif
