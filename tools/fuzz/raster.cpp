/* Fuzzes the rasteriser's C interface: scenes of any numbers, NaN and infinity among them, forward and backward; half
 * of the inputs align patches of such pictures, filter them, are the flow of a body, labels that are carried along flow,
 * points of an object that is looked for, or frames with losses.
 *
 * With clang:  clang++ -g -O1 -fsanitize=fuzzer,address,undefined -DM4D_KERNELS=baseline -Iraster/include -Iraster/src \
 *                  tools/fuzz/raster.cpp raster/src/{raster,blend,align,align_kernels,image,labels,label_kernels,body,body_kernels,appearance,step,step_kernels}.cpp \
 *                  -pthread -o fuzz_raster
 * With gcc, which has no libFuzzer: tools/fuzz/raster.sh address|thread makes the inputs from a seed instead. */
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "motion4d_align.h"
#include "motion4d_appearance.h"
#include "motion4d_image.h"
#include "motion4d_labels.h"
#include "motion4d_raster.h"
#include "motion4d_step.h"

namespace {

/* Reads values from the input; zeros when it is used up. */
struct Bytes {
    const uint8_t *at;
    size_t left;

    uint8_t byte() {
        if (left == 0) return 0;
        --left;
        return *at++;
    }

    /* Mostly sane values, some of the worst. */
    float real(float low, float high) {
        static const float worst[] = {0.0f, -0.0f, NAN, INFINITY, -INFINITY, 1e-38f, 1e38f, -1e38f, 1e-45f};
        const uint8_t kind = byte();
        if (kind < 9) return worst[kind];
        return low + (high - low) * (static_cast<float>(byte()) * 256.0f + static_cast<float>(byte())) / 65535.0f;
    }

    std::vector<float> reals(size_t count, float low, float high) {
        std::vector<float> values(count);
        for (float &value : values) value = real(low, high);
        return values;
    }
};

/* Two pictures of any values; points that may lie anywhere, and name pictures that are not there. */
void align(Bytes &in) {
    m4d_picture pictures[2]{};
    std::vector<float> gray[2][M4D_ALIGN_LEVELS];
    std::vector<int32_t> labels[2];
    for (int i = 0; i < 2; ++i)
        for (int k = 0; k < M4D_ALIGN_LEVELS; ++k) {
            const int32_t width = in.byte() % 18, height = in.byte() % 18;  // levels need not fit to one another
            gray[i][k] = in.reals(static_cast<size_t>(width) * static_cast<size_t>(height), 0.0f, 255.0f);
            pictures[i].gray[k] = gray[i][k].data(), pictures[i].width[k] = width, pictures[i].height[k] = height;
        }
    for (int i = 0; i < 2; ++i) {
        labels[i].resize(gray[i][0].size());
        for (int32_t &label : labels[i]) label = in.byte() % 8 == 0;
        pictures[i].labels = labels[i].data();
    }
    const size_t n = in.byte() % 16;
    std::vector<int32_t> source(n), target(n), label(n), column(n), row(n);
    for (size_t i = 0; i < n; ++i) {
        source[i] = in.byte() % 64 ? in.byte() % 2 : -1, target[i] = in.byte() % 64 ? in.byte() % 2 : 2;
        label[i] = in.byte() % 8 == 0, column[i] = in.byte() % 20 - 2, row[i] = in.byte() % 20 - 2;
    }
    const auto from = in.reals(2 * n, -2.0f, 18.0f), guess = in.reals(2 * n, -2.0f, 18.0f);
    auto warp = in.reals(10 * n, -0.05f, 0.05f);
    for (size_t i = 0; i < n; ++i) warp[10 * i] += 1.0f, warp[10 * i + 6] += 1.0f;
    std::vector<float> uv(2 * n), returned(n), likeness(n), sigma(n), inverse(6 * n);
    m4d_alignments points{static_cast<int64_t>(n), in.byte() % 5, in.byte() % 4, source.data(), target.data(), label.data(),
                          from.data(), guess.data(), warp.data(), uv.data(), returned.data(), likeness.data(), sigma.data()};
    m4d_align(pictures, 2, &points);
    m4d_surfaces surfaces{static_cast<int64_t>(n), pictures[0].width[0], pictures[0].height[0], in.byte() % 7, 0.1f,
                          gray[0][0].data(), labels[0].data(), column.data(), row.data(), inverse.data()};
    m4d_fit_surfaces(&surfaces);
}

/* A filter of an image of any values, and the misfit of a body to any flow. */
void filter(Bytes &in) {
    const int32_t width = in.byte() % 12, height = in.byte() % 12, channels = in.byte() % 4, colors = 1 + 2 * (in.byte() % 2);
    const int32_t frames = in.byte() % 4;
    const size_t pixels = static_cast<size_t>(width) * static_cast<size_t>(height), many = static_cast<size_t>(frames);
    auto values = in.reals(pixels * static_cast<size_t>(channels), -1.0f, 1.0f);
    std::vector<uint8_t> guide(pixels * static_cast<size_t>(colors)), valid(many * pixels), where(pixels);
    for (std::vector<uint8_t> *bytes : {&guide, &valid, &where})
        for (uint8_t &byte : *bytes) byte = bytes == &guide ? in.byte() : in.byte() % 2;
    m4d_domain_transform(values.data(), height, width, channels, guide.data(), colors, in.real(0.1f, 20.0f),
                         in.real(1.0f, 40.0f), in.byte() % 4);
    const auto flow = in.reals(2 * many * pixels, -3.0f, 3.0f), sigma = in.reals(many, 0.2f, 1.0f);
    const auto affine = in.reals(6 * many, -1.0f, 1.0f), parallax = in.reals(2 * many, -1.0f, 1.0f);
    std::vector<float> misfit(pixels);
    m4d_body_flow body{frames, height, width, 50.0f, 4.0f, 1.2f, 3.0f, flow.data(), valid.data(), sigma.data(),
                       affine.data(), parallax.data(), where.data(), misfit.data()};
    m4d_body_misfit(&body);
    std::vector<int32_t> chosen(pixels ? in.byte() : 0);
    for (int32_t &pixel : chosen) pixel = static_cast<int32_t>(in.byte() % pixels);
    const auto weight = in.reals(chosen.size(), 0.0f, 2.0f);
    std::vector<float> found(6 * many), along(2 * many);
    m4d_body_fit fit{frames, height, width, static_cast<int32_t>(chosen.size()), in.byte() % 5, in.byte() % 9, in.byte() % 30,
                     50.0f, 2.0f, 2.0f, in.real(1.0f, 3.0f), 3.0f, flow.data(), valid.data(), sigma.data(), chosen.data(),
                     in.byte() % 2 ? weight.data() : nullptr, found.data(), along.data()};
    m4d_fit_body(&fit);
}

/* Labels carried along chains of any flow, and their sums. */
void carry(Bytes &in) {
    const int32_t width = 1 + in.byte() % 12, height = 1 + in.byte() % 12, labels = 1 + in.byte() % 4;
    const int32_t flow_width = 1 + in.byte() % 9, flow_height = 1 + in.byte() % 9;
    const size_t pixels = static_cast<size_t>(width * height), small = static_cast<size_t>(flow_width * flow_height);
    const size_t many = in.byte() % 5;
    const auto flow = in.reals(2 * small * (many + 1), -9.0f, 9.0f), worth = in.reals(small, 0.0f, 1.0f);
    std::vector<uint32_t> look(pixels);
    std::vector<int32_t> number(pixels), chosen(in.byte());
    for (uint32_t &colour : look) colour = in.byte() * 0x01010101u;
    for (int32_t &value : number) value = in.byte() % (labels + 1) - 1;
    for (int32_t &pixel : chosen) pixel = static_cast<int32_t>(in.byte() % pixels);
    const auto alike = in.reals(766, 0.0f, 1.0f);
    std::vector<m4d_label_link> links(many + 1);
    for (size_t k = 0; k < many; ++k)
        links[k] = {flow_height, flow_width, k == 0 || in.byte() % 3 == 0, flow.data() + 2 * small * k, worth.data(),
                    look.data(), number.data()};
    const size_t n = chosen.size(), c = static_cast<size_t>(labels);
    const auto share = in.reals(small * c, 0.0f, 1.0f);
    std::vector<int32_t> channels(c);
    for (int32_t &channel : channels) channel = in.byte() % labels;
    const m4d_label_scene scene{flow_height, flow_width, labels, share.data(), channels.data()};
    const bool shown = in.byte() % 2;
    const size_t raters = many + 1 + shown, most = 4 * (many + 1) + M4D_SCENE_LABELS;
    std::vector<int32_t> counts(n);
    std::vector<uint8_t> rater(n * most);
    std::vector<uint16_t> named(n * most);
    std::vector<float> weight(n * most);
    std::vector<uint8_t> seen(n);
    m4d_label_question question{static_cast<int64_t>(n), height, width, labels, static_cast<int32_t>(many), in.byte() % 4,
                                chosen.data(), look.data(), number.data(), alike.data(), links.data(),
                                shown ? &scene : nullptr, counts.data(), rater.data(), named.data(), weight.data()};
    m4d_label_opinions(&question);
    m4d_label_seen(&question, seen.data());
    std::vector<int64_t> start(n + 1), first(n + 1);  // n is below the size of a piece: entries have no gaps
    for (size_t i = 0; i < n; ++i) start[i + 1] = start[i] + counts[i];
    const size_t m = static_cast<size_t>(start[n]);
    const m4d_label_said said{static_cast<int64_t>(n), static_cast<int32_t>(raters), labels, question.threads,
                              start.data(), rater.data(), named.data(), weight.data()};
    std::vector<uint16_t> possible(m + n);
    std::vector<float> value(m + n);
    const auto worths = in.reals(raters, 0.0f, 1.0f), likelihood = in.reals(c * c, -4.0f, 0.0f);
    const m4d_label_shares shares{worths.data(), counts.data(), possible.data(), value.data()};
    m4d_label_share(&said, &shares);
    for (size_t i = 0; i < n; ++i) first[i + 1] = first[i] + counts[i];
    const m4d_label_values values{first.data(), possible.data(), value.data()};
    const std::vector<const float *> likelihoods(raters, likelihood.data());
    m4d_label_judge(&said, &values, worths.data(), likelihoods.data(), in.byte() % 7 - 1, in.byte() % 2);
    std::vector<double> confusion(c * c);
    std::vector<double *> asked(raters);
    for (double *&one : asked) one = in.byte() % 2 ? confusion.data() : nullptr;
    m4d_label_count(&said, &values, asked.data());
}

/* Points of an object at any poses before any picture. */
void look_for(Bytes &in) {
    m4d_appearance a{};
    a.points = in.byte() % 20, a.poses = in.byte() % 4, a.shifts = in.byte() % 4, a.threads = in.byte() % 4;
    a.height = 1 + in.byte() % 12, a.width = 1 + in.byte() % 12;
    a.fx = a.fy = in.real(5.0f, 60.0f), a.cx = in.real(0.0f, 12.0f), a.cy = in.real(0.0f, 12.0f);
    a.facing = 0.35, a.behind = 0.94, a.values = 0.1, a.most = 15, a.noise = 0.1, a.off_mask = -1.4;
    a.sigma = in.real(0.001f, 0.1f);
    const size_t n = static_cast<size_t>(a.points), pixels = static_cast<size_t>(a.width * a.height);
    const size_t k = static_cast<size_t>(a.poses), s = static_cast<size_t>(a.shifts);
    const auto doubles = [&](size_t count, float low, float high) {
        const auto values = in.reals(count, low, high);
        return std::vector<double>(values.begin(), values.end());
    };
    const auto xyz = doubles(3 * n, -1.0f, 1.0f), side = doubles(3 * n, -1.0f, 1.0f), gray = doubles(n, 0.0f, 255.0f);
    const auto pose = doubles(16 * k, -1.0f, 1.0f), shift = doubles(2 * s, -9.0f, 9.0f);
    const auto image = in.reals(pixels, 0.0f, 255.0f), cover = in.reals(pixels, 0.1f, 3.0f);
    const auto surface = in.reals(pixels, 0.1f, 3.0f);
    std::vector<uint8_t> mask(pixels);
    for (uint8_t &value : mask) value = in.byte() % 2;
    std::vector<double> evidence(k * s);
    a.xyz = xyz.data(), a.side = side.data(), a.gray = gray.data(), a.pose = pose.data(), a.shift = shift.data();
    a.image = image.data(), a.mask = mask.data(), a.cover = cover.data(), a.surface = surface.data();
    a.evidence = evidence.data();
    m4d_evidence(&a);
}

/* A rendered frame of any values, smaller than a window of SSIM or not, against labels that exist. */
void lose(Bytes &in) {
    m4d_frame f{};
    f.width = 1 + in.byte() % 24, f.height = 1 + in.byte() % 24, f.threads = in.byte() % 4;
    f.channels = 1 + in.byte() % 4, f.appearance = in.byte() % 4 != 0, f.trusting = in.byte() % 2;
    f.points = f.appearance ? in.byte() % 12 : 0;
    f.features = f.appearance ? 4 + f.channels + (f.points ? 3 : 0) : f.channels;
    f.rgb = f.mask = f.depth = f.track = f.confidence = 1.0, f.ssim = 0.2, f.confidence_color = 0.1;
    f.fx = f.fy = in.real(5.0f, 60.0f), f.cx = in.real(0.0f, 24.0f), f.cy = in.real(0.0f, 24.0f);
    for (double &value : f.T_other) value = in.real(-1.0f, 1.0f);
    const size_t pixels = static_cast<size_t>(f.width * f.height), n = static_cast<size_t>(f.points);
    const size_t width = static_cast<size_t>(f.features);
    const auto rendered = in.reals(pixels * width, 0.0f, 1.0f), alpha = in.reals(pixels, 0.0f, 1.0f);
    const auto depth_sum = in.reals(pixels, 0.0f, 3.0f), image = in.reals(3 * pixels, 0.0f, 1.0f);
    const auto known = in.reals(pixels, 0.0f, 1.0f), depth = in.reals(pixels, 0.0f, 3.0f);
    const auto source = in.reals(2 * n, -2.0f, 26.0f), target = in.reals(2 * n, -2.0f, 26.0f);
    const auto weight = in.reals(n, 0.0f, 4.0f), means = in.reals(3 * pixels, 0.0f, 1.0f);
    std::vector<int64_t> label(pixels);
    for (int64_t &value : label) value = in.byte() % f.channels;
    std::vector<float> scratch(12 * pixels), by_features(pixels * width), by_alpha(pixels), by_depth_sum(pixels);
    f.rendered = rendered.data(), f.alpha = alpha.data(), f.depth_sum = depth_sum.data(), f.image = image.data();
    f.label = f.label_there = label.data(), f.image_there = image.data(), f.known = known.data();
    f.depth_m = f.depth_weight = depth.data(), f.scratch = scratch.data();
    f.uv_source = source.data(), f.uv_target = target.data(), f.track_weight = weight.data();
    if (f.width >= 7 && f.height >= 7) f.window_mean = f.window_square = means.data();
    m4d_frame_gradients gradients{by_features.data(), by_alpha.data(), by_depth_sum.data(), {}};
    m4d_frame_losses(&f, &gradients);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Bytes in{data, size};
    static void (*const others[])(Bytes &) = {align, filter, carry, look_for, lose};
    const uint8_t kind = in.byte() % 10;
    if (kind < 5) {
        others[kind](in);
        return 0;
    }
    m4d_scene scene{};
    scene.width = in.byte() % 40;  // 0 is one of the sizes that cannot be
    scene.height = in.byte() % 40;
    scene.channels = in.byte() % 9;
    scene.threads = in.byte() % 4;
    const size_t n = in.byte() % 24, c = static_cast<size_t>(scene.channels);
    scene.count = static_cast<int64_t>(n);
    scene.fx = in.real(5.0f, 60.0f), scene.fy = in.real(5.0f, 60.0f);
    scene.cx = in.real(0.0f, 40.0f), scene.cy = in.real(0.0f, 40.0f);
    scene.near_plane = in.real(0.01f, 1.0f);
    for (double &value : scene.T_cam_map) value = in.real(-1.0f, 1.0f);
    const auto means = in.reals(3 * n, -2.0f, 4.0f), quats = in.reals(4 * n, -1.0f, 1.0f);
    const auto scales = in.reals(3 * n, 0.001f, 2.0f), opacities = in.reals(n, 0.0f, 1.0f);
    const auto features = in.reals(n * c, -1.0f, 1.0f), background = in.reals(c, 0.0f, 1.0f);
    scene.means = means.data(), scene.quats = quats.data(), scene.scales = scales.data();
    scene.opacities = opacities.data(), scene.features = features.data();
    scene.background = in.byte() % 2 ? background.data() : nullptr;
    const size_t pixels = static_cast<size_t>(scene.width) * static_cast<size_t>(scene.height);
    std::vector<float> image(pixels * c), alpha(pixels), depth(pixels), radii(n), sum(n), most(n);
    const bool all = in.byte() % 2 != 0;
    m4d_images images{image.data(), alpha.data(), depth.data(), all ? radii.data() : nullptr,
                      all ? sum.data() : nullptr, all ? most.data() : nullptr};
    m4d_pass *pass = nullptr;
    const int status = m4d_raster_forward(&scene, &images, in.byte() % 4 ? &pass : nullptr);
    if (status == 0 && pass != nullptr) {
        const auto given = in.reals(pixels, -1.0f, 1.0f);
        std::vector<float> d_image(pixels * c, 0.5f), d_means(3 * n), d_quats(4 * n), d_scales(3 * n), d_opacities(n);
        std::vector<float> d_features(n * c), d_background(c);
        std::vector<double> d_T(12);
        m4d_image_gradients gradients{d_image.data(), given.data(), in.byte() % 2 ? given.data() : nullptr};
        m4d_scene_gradients wanted{d_means.data(), d_quats.data(), d_scales.data(), d_opacities.data(),
                                   all ? d_features.data() : nullptr, all ? d_background.data() : nullptr,
                                   all ? d_T.data() : nullptr};
        m4d_raster_backward(&scene, pass, &gradients, &wanted);
        m4d_raster_pairs(pass);
    }
    m4d_raster_free(pass);
    return 0;
}

#ifdef M4D_OWN_MAIN
int main(int argc, char **argv) {
    const long runs = argc > 1 ? std::atol(argv[1]) : 1000;
    std::mt19937 random(argc > 2 ? static_cast<unsigned>(std::atol(argv[2])) : 0u);
    for (long run = 0; run < runs; ++run) {
        std::vector<uint8_t> data(random() % 8000);
        for (uint8_t &value : data) value = static_cast<uint8_t>(random());
        LLVMFuzzerTestOneInput(data.data(), data.size());
    }
    std::printf("%ld runs\n", runs);
    return 0;
}
#endif
