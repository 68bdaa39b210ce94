// The kernels of a gradient step, compiled once per instruction set.
#include "step_frame.h"
#include "step_scene.h"

#define M4D_JOIN(a, b) a##b
#define M4D_FUNCTION(isa) M4D_JOIN(step_kernels_, isa)

const m4d::StepKernels &m4d::M4D_FUNCTION(M4D_KERNELS)() {
    static const StepKernels kernels = {pose_still, pose_moving, back_still, back_moving, gather,
                                        similarity, losses,      tracks,     adam};
    return kernels;
}
