/* Gaussian splatting on the CPU: forward and backward pass behind a plain C interface.
 *
 * Conventions: row-major float32 arrays, metres and pixels, quaternions w x y z (normalised here), the camera looks
 * along +z, pixel (0, 0) is the centre of the top-left pixel. EWA projection after Zwicker et al. 2001 as used by
 * 3D Gaussian Splatting (Kerbl et al. 2023): 0.3 px^2 dilation, opacity clipped at 0.999, contributions under 1/255
 * skipped, a ray ends when its transmittance would fall to 1e-4.
 *
 * Every result is the same, bit for bit, for any number of threads on one kind of CPU. No call keeps global state.
 */
#ifndef MOTION4D_RASTER_H
#define MOTION4D_RASTER_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define M4D_RASTER_ABI 4

#define M4D_API __attribute__((visibility("default")))

/* What is looked at and from where. Pointers must stay valid during the call only. */
typedef struct {
    int32_t width, height;     /* px, at least 1 */
    int32_t channels;          /* C >= 0 */
    int32_t threads;           /* 0 = one per CPU this process may use */
    int64_t count;             /* N >= 0 Gaussians */
    double fx, fy, cx, cy;     /* px */
    double near_plane;         /* m; what is not beyond is not drawn */
    double T_cam_map[12];      /* first three rows of the map-to-camera transform */
    const float *means;        /* (N, 3) m, map frame */
    const float *quats;        /* (N, 4) w x y z, any length but zero */
    const float *scales;       /* (N, 3) m, standard deviations */
    const float *opacities;    /* (N,) */
    const float *features;     /* (N, C) */
    const float *background;   /* (C,) or NULL for zeros */
} m4d_scene;

/* Where the forward pass writes. The last three may be NULL: they cost time only when asked for. */
typedef struct {
    float *features;    /* (H, W, C) alpha-composited, background included */
    float *alpha;       /* (H, W) */
    float *depth_sum;   /* (H, W) m, alpha-composited depth, not divided by alpha */
    float *radii;       /* (N,) px, larger half extent of the drawn box; 0 = not drawn */
    float *weight_sum;  /* (N,) sum over pixels of the blending weight */
    float *weight_max;  /* (N,) its maximum over pixels */
} m4d_images;

/* Gradients of the loss with respect to the images; a NULL pointer means zero. */
typedef struct {
    const float *features;   /* (H, W, C) */
    const float *alpha;      /* (H, W) */
    const float *depth_sum;  /* (H, W) */
} m4d_image_gradients;

/* Gradients of the loss with respect to the inputs; the last three pointers may be NULL, and the first four together,
 * when T_cam_map is NULL, too: gradients of features and background alone cost about half. */
typedef struct {
    float *means, *quats, *scales, *opacities;
    float *features;    /* (N, C) or NULL */
    float *background;  /* (C,) or NULL */
    double *T_cam_map;  /* (12,) or NULL */
} m4d_scene_gradients;

/* What the backward pass needs to know about a forward pass. */
typedef struct m4d_pass m4d_pass;

/* Renders. Returns 0, or 1 when memory ran out, or 2 for sizes that cannot be. When `pass` is not NULL it receives an
 * object for m4d_raster_backward, to be released with m4d_raster_free. */
M4D_API int m4d_raster_forward(const m4d_scene *scene, const m4d_images *images, m4d_pass **pass);

/* Differentiates the forward pass that made `pass`; `scene` must hold the same values as then. Returns as above. */
M4D_API int m4d_raster_backward(const m4d_scene *scene, const m4d_pass *pass, const m4d_image_gradients *given,
                                const m4d_scene_gradients *wanted);

M4D_API void m4d_raster_free(m4d_pass *pass);

/* Number of (pixel, Gaussian) pairs blended; counted only when weight_sum or weight_max was asked for, else -1. */
M4D_API int64_t m4d_raster_pairs(const m4d_pass *pass);

M4D_API int m4d_raster_abi(void);

/* The instruction set the kernels run with on this machine: "avx512", "avx2" or "baseline". The environment variable
 * MOTION4D_RASTER_ISA asks for a lesser one, for tests. */
M4D_API const char *m4d_raster_isa(void);

#ifdef __cplusplus
}
#endif
#endif
