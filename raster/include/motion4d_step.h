/* One gradient step of the fit on the CPU, around the rasteriser: the scene posed at a time, the losses of one frame
 * with their gradients by the rendered images, the way back to the scene's parameters, and Adam.
 *
 * The reference is `motion4d_ros/fit/optimisation/trainer.py` (PyTorch): the same formulas, the same weights. Arrays
 * are row-major; conventions as in motion4d_raster.h. Every result is the same, bit for bit, for any number of threads
 * on one kind of CPU. No call keeps global state.
 */
#ifndef MOTION4D_STEP_H
#define MOTION4D_STEP_H

#include "motion4d_raster.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The scene's parameters, and the time it is wanted at. Of N Gaussians M move: they are carried by those of the B bases
 * that are theirs. */
typedef struct {
    int32_t threads;                /* 0 = one per CPU this process may use */
    int32_t channels;               /* C >= 1 semantic channels */
    int32_t bases, times;           /* B, T >= 0 */
    int32_t column, other;          /* of the T times: the one that is posed; another one (-1: none) */
    int32_t appearance;             /* 0: features are labels only */
    int64_t count, moving;          /* N, M */
    const float *means;             /* (N, 3) m, canonical */
    const float *quats;             /* (N, 4) w x y z, any length */
    const float *log_scales;        /* (N, 3) log m */
    const float *opacity_logits;    /* (N,) */
    const float *colors;            /* (N, 3) */
    const float *semantics;         /* (N, C) logits */
    const float *confidence_logits; /* (N,) */
    const float *motion_logits;     /* (N, B) */
    const float *base_quats;        /* (B, T, 4) any length but zero */
    const float *base_trans;        /* (B, T, 3) m */
    const float *centers;           /* (B, 3) m */
    const int64_t *first;           /* (B,) the first base of the same owner: quaternions take its sign */
    const int64_t *rows;            /* (M,) which Gaussians move, ascending */
    const uint8_t *forbidden;       /* (M, B) bases that are not theirs; each has at least one that is */
} m4d_model;

/* The Gaussians as the rasteriser takes them. Features are, in this order, colours (3), label distribution (C),
 * confidence (1) and, with another time, the positions then (3 m); without appearance only the label distribution. */
typedef struct {
    float *means, *quats, *scales, *opacities; /* (N, 3), (N, 4), (N, 3), (N,) */
    float *features;                           /* (N, F) */
    float *weights;                            /* (M, B) shares of the bases */
} m4d_posed;

/* Gradients by the parameters, shaped like them; NULL where none is wanted. */
typedef struct {
    float *means, *quats, *log_scales, *opacity_logits, *colors, *semantics, *confidence_logits, *motion_logits;
    float *base_quats, *base_trans;
    double scale_spread; /* weight of the loss "variance of the log-scales of a Gaussian", which is added here */
} m4d_model_gradients;

/* A rendered frame and what it should look like. */
typedef struct {
    int32_t width, height, threads;
    int32_t channels, features, appearance; /* C, F and the layout as above */
    int32_t points;                         /* P: track targets; > 0 only where features end with positions */
    int32_t trusting;                       /* 0: the rendered confidence weighs nothing and is not taught */
    double rgb, ssim, mask, depth, track, confidence; /* weights of the losses; `ssim` is a share of `rgb` */
    double confidence_color;                /* largest mean difference of a colour that counts as the same */
    double fx, fy, cx, cy;
    double T_other[12];                     /* map to camera at the other time */
    const float *rendered, *alpha, *depth_sum; /* (H, W, F), (H, W), (H, W) */
    const float *image;                     /* (H, W, 3) */
    const int64_t *label;                   /* (H, W) semantic channel */
    const float *known;                     /* (H, W) weight of the label */
    const float *depth_m, *depth_weight;    /* (H, W) */
    const float *window_mean, *window_square; /* (H - 6, W - 6, 3) of the image, its square; NULL: no SSIM */
    const float *uv_source, *uv_target, *track_weight; /* (P, 2), (P, 2) px, (P,) */
    const float *image_there;               /* (H, W, 3) at the other time */
    const int64_t *label_there;             /* (H, W) */
    float *scratch;                         /* (12 H W,) working memory */
} m4d_frame;

/* Unweighted losses, in the order of m4d_loss. */
enum m4d_loss { M4D_L1, M4D_SSIM, M4D_SEMANTIC, M4D_DEPTH, M4D_TRACK, M4D_CONFIDENCE, M4D_LOSSES };

typedef struct {
    float *features, *alpha, *depth_sum; /* by the images; without appearance the last two may be NULL */
    double losses[M4D_LOSSES];
} m4d_frame_gradients;

/* One parameter, its gradient and its moments, kept bias-corrected; `steps` counts for each of S slots of `width`. */
typedef struct {
    float *value, *mean, *square, *steps; /* (S, width) x 3, (S,) */
    const float *gradient;                /* (S, width) */
    const float *first_share, *second_share; /* (shares,) (1 - beta) / (1 - beta^k) of the two moments, for k = 0, 1, ... */
    int64_t slots, width, shares;            /* beyond the last of the shares, the last one holds */
    double rate, epsilon;
    int32_t threads;
} m4d_adam_state;

/* All return 0, or 1 when memory ran out. */
M4D_API int m4d_pose(const m4d_model *model, const m4d_posed *posed);
M4D_API int m4d_pose_backward(const m4d_model *model, const m4d_posed *posed, const m4d_posed *gradients,
                              const m4d_model_gradients *wanted);
M4D_API int m4d_frame_losses(const m4d_frame *frame, m4d_frame_gradients *gradients);

/* One step of Adam. A gradient that is not finite counts as zero there; `bad` says whether there was one. */
M4D_API int m4d_adam(const m4d_adam_state *state, int32_t *bad);

#ifdef __cplusplus
}
#endif
#endif
