// The C interface and the order of the stages: project, sort by depth, list per tile, blend, and back.

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <system_error>
#include <vector>

#include "frame.h"
#include "parallel.h"

struct m4d_pass {
    int width, height, channels, padded, threads, tiles_x, tiles_y;
    int64_t count, longest, pairs;
    std::vector<m4d::Splat> splats;
    std::vector<int64_t> tile_begin, entry_slot;
    std::vector<uint32_t> entry_splat;
    std::vector<uint16_t> entry_mask;
};

namespace m4d {

int instruction_set() {
    const char *wanted = std::getenv("MOTION4D_RASTER_ISA");  // to test the slower ones
    const auto allowed = [&](const char *name) { return !wanted || !*wanted || !std::strcmp(wanted, name); };
    (void)allowed;
#ifdef M4D_HAVE_AVX512
    if (allowed("avx512") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw"))
        return 2;
#endif
#ifdef M4D_HAVE_AVX2
    if ((allowed("avx2") || allowed("avx512")) && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return 1;
#endif
    return 0;
}

namespace {

constexpr int64_t kChunk = 512;  // Gaussians handled together; fixed, so that sums do not depend on threads

const Kernels &kernels() {
    switch (instruction_set()) {
#ifdef M4D_HAVE_AVX512
        case 2: return kernels_avx512();
#endif
#ifdef M4D_HAVE_AVX2
        case 1: return kernels_avx2();
#endif
        default: return kernels_baseline();
    }
}

struct Free {
    void operator()(void *p) const { std::free(p); }
};

// Uninitialised memory on a cache line.
template <class T>
class Buffer {
public:
    explicit Buffer(int64_t count) {
        const size_t bytes = (static_cast<size_t>(std::max<int64_t>(count, 1)) * sizeof(T) + 63) / 64 * 64;
        memory_.reset(static_cast<T *>(std::aligned_alloc(64, bytes)));
        if (!memory_) throw std::bad_alloc();
    }
    T *get() const { return memory_.get(); }

private:
    std::unique_ptr<T, Free> memory_;
};

// Indices of the drawn splats, near to far; equal depths keep the order of the Gaussians. Radix sort: depths are
// positive, so their bits order like the numbers.
std::vector<uint32_t> near_to_far(const std::vector<Splat> &splats) {
    struct Item {
        uint32_t key, index;
    };
    constexpr int kBits = 11, kBuckets = 1 << kBits;
    std::vector<Item> items, other;
    items.reserve(splats.size());
    std::vector<uint32_t> counts(3 * kBuckets, 0);
    for (size_t i = 0; i < splats.size(); ++i) {
        if (!(splats[i].depth > 0)) continue;
        Item item{0, static_cast<uint32_t>(i)};
        std::memcpy(&item.key, &splats[i].depth, 4);
        items.push_back(item);
        for (int pass = 0; pass < 3; ++pass) ++counts[pass * kBuckets + (item.key >> pass * kBits) % kBuckets];
    }
    other.resize(items.size());
    for (int pass = 0; pass < 3; ++pass) {
        uint32_t *count = counts.data() + pass * kBuckets, total = 0;
        for (int k = 0; k < kBuckets; ++k) {
            const uint32_t here = count[k];
            count[k] = total;
            total += here;
        }
        for (const Item &item : items) other[count[(item.key >> pass * kBits) % kBuckets]++] = item;
        items.swap(other);
    }
    std::vector<uint32_t> order(items.size());
    for (size_t i = 0; i < items.size(); ++i) order[i] = items[i].index;
    return order;
}

// Whether tile number `k` of the splat's rectangle is touched.
bool touches(const Splat &s, int k) { return k >= 64 || (s.tiles >> k & 1); }

template <class Visit>
void for_each_tile(const Splat &s, int tiles_x, const Visit &visit) {
    int k = 0;
    for (int y = s.ty0; y < s.ty1; ++y)
        for (int x = s.tx0; x < s.tx1; ++x, ++k)
            if (touches(s, k)) visit(y * tiles_x + x);
}

void list_tiles(m4d_pass &pass) {
    const int tiles = pass.tiles_x * pass.tiles_y;
    pass.tile_begin.assign(tiles + 1, 0);
    int64_t slots = 0;
    for (Splat &s : pass.splats) {
        s.slot = slots;
        if (!(s.depth > 0)) continue;
        slots += s.entries;
        for_each_tile(s, pass.tiles_x, [&](int tile) { ++pass.tile_begin[tile + 1]; });
    }
    for (int tile = 0; tile < tiles; ++tile) {
        pass.longest = std::max(pass.longest, pass.tile_begin[tile + 1]);
        pass.tile_begin[tile + 1] += pass.tile_begin[tile];
    }
    pass.entry_splat.resize(slots);
    pass.entry_slot.resize(slots);
    pass.entry_mask.resize(slots);
    std::vector<int64_t> next(pass.tile_begin.begin(), pass.tile_begin.end() - 1);
    for (const uint32_t index : near_to_far(pass.splats)) {
        const Splat &s = pass.splats[index];
        int64_t slot = s.slot;
        for_each_tile(s, pass.tiles_x, [&](int tile) {
            const int64_t entry = next[tile]++;
            pass.entry_splat[entry] = index;
            pass.entry_slot[entry] = slot++;
        });
    }
}

Frame frame_of(const m4d_scene &scene, const m4d_pass &pass) {
    return {pass.width,
            pass.height,
            pass.channels,
            pass.padded,
            pass.tiles_x,
            pass.tiles_y,
            pass.splats.data(),
            pass.tile_begin.data(),
            pass.entry_splat.data(),
            pass.entry_slot.data(),
            const_cast<uint16_t *>(pass.entry_mask.data()),
            scene.features,
            scene.background};
}

// One worker's memory; what a pass does not need stays empty.
struct Workspace {
    Workspace(const m4d_pass &pass, bool backward, bool stats)
        : params(pass.longest * 8),
          features(pass.longest * pass.padded),
          lists(pass.longest * kBlocks),
          weights(backward ? 0 : pass.longest * kLanes),
          counts(stats ? pass.longest * 2 * kLanes : 0),
          stream(backward ? pass.longest * kBlocks * 2 * kLanes : 0),
          image(static_cast<int64_t>(backward ? kBlocks : 1) * (pass.padded + 1) * kLanes),
          scratch{params.get(), features.get(), lists.get(), weights.get(), stats ? counts.get() : nullptr,
                  stream.get(), image.get(),    pass.longest} {}
    Buffer<float> params, features;
    Buffer<uint32_t> lists;
    Buffer<float> weights, counts, stream, image;
    Scratch scratch;
};

template <class Job>
void for_each_tile_in_parallel(const m4d_pass &pass, bool backward, bool stats, const Job &job) {
    const int tiles = pass.tiles_x * pass.tiles_y, threads = std::min(pass.threads, tiles);
    std::vector<std::unique_ptr<Workspace>> spaces;
    for (int i = 0; i < threads; ++i) spaces.push_back(std::make_unique<Workspace>(pass, backward, stats));
    parallel_for(tiles, threads, [&](int64_t tile, int worker) {
        job(static_cast<int>(tile), spaces[worker]->scratch);
    });
}

int64_t chunks(int64_t count) { return (count + kChunk - 1) / kChunk; }

bool plausible(const m4d_scene &s) {
    return s.width >= 1 && s.height >= 1 && s.width <= 1 << 15 && s.height <= 1 << 15 && s.channels >= 0 &&
           s.channels <= 4096 && s.count >= 0 && s.count < int64_t{1} << 31;
}

void forward(const m4d_scene &scene, const m4d_images &images, m4d_pass &pass) {
    pass.width = scene.width, pass.height = scene.height, pass.channels = scene.channels, pass.count = scene.count;
    pass.padded = (scene.channels + 1 + 3) / 4 * 4;
    pass.threads = scene.threads > 0 ? scene.threads : usable_cpus();
    pass.tiles_x = (scene.width + kTile - 1) / kTile, pass.tiles_y = (scene.height + kTile - 1) / kTile;
    pass.longest = 0, pass.pairs = -1;
    pass.splats.resize(scene.count);
    const Kernels &kernel = kernels();
    parallel_for(chunks(scene.count), pass.threads, [&](int64_t chunk, int) {
        kernel.project(scene, chunk * kChunk, std::min(scene.count, (chunk + 1) * kChunk), pass.splats.data());
    });
    list_tiles(pass);

    const bool stats = images.weight_sum || images.weight_max;
    const int64_t slots = static_cast<int64_t>(pass.entry_splat.size());
    Buffer<float> slot_sum(stats ? slots : 0), slot_max(stats ? slots : 0);
    std::vector<int64_t> tile_pairs(stats ? pass.tiles_x * pass.tiles_y : 0, 0);
    const Frame frame = frame_of(scene, pass);
    const Forward out{&images, slot_sum.get(), slot_max.get(), tile_pairs.data()};
    for_each_tile_in_parallel(pass, false, stats, [&](int tile, const Scratch &scratch) {
        kernel.forward(frame, out, tile, scratch);
    });

    if (images.radii)
        for (int64_t i = 0; i < scene.count; ++i) images.radii[i] = pass.splats[i].radius;
    if (!stats) return;
    pass.pairs = 0;
    for (const int64_t pairs : tile_pairs) pass.pairs += pairs;
    for (int64_t i = 0; i < scene.count; ++i) {
        const Splat &s = pass.splats[i];
        float sum = 0, most = 0;
        for (int64_t k = s.slot; s.depth > 0 && k < s.slot + s.entries; ++k) {
            sum += slot_sum.get()[k];
            most = std::max(most, slot_max.get()[k]);
        }
        if (images.weight_sum) images.weight_sum[i] = sum;
        if (images.weight_max) images.weight_max[i] = most;
    }
}

void backward(const m4d_scene &scene, const m4d_pass &pass, const m4d_image_gradients &given,
              const m4d_scene_gradients &wanted) {
    const int stride = kMoments + pass.padded;
    Buffer<float> slots(static_cast<int64_t>(pass.entry_splat.size()) * stride);
    const Frame frame = frame_of(scene, pass);
    const int tiles = pass.tiles_x * pass.tiles_y;
    Buffer<float> tile_background(wanted.background ? tiles * pass.padded : 0);
    const Backward out{&given, slots.get(), wanted.background ? tile_background.get() : nullptr,
                       wanted.means != nullptr};
    const Kernels &kernel = kernels();
    for_each_tile_in_parallel(pass, true, false, [&](int tile, const Scratch &scratch) {
        kernel.backward(frame, out, tile, scratch);
    });

    std::vector<double> T(chunks(scene.count) * 12, 0.0);
    parallel_for(chunks(scene.count), pass.threads, [&](int64_t chunk, int) {
        std::vector<double> sums(stride);
        const int64_t end = std::min(scene.count, (chunk + 1) * kChunk);
        for (int64_t i = chunk * kChunk; i < end; ++i) {
            const Splat &s = pass.splats[i];
            float *feature = wanted.features ? wanted.features + i * pass.channels : nullptr;
            if (wanted.means) {
                std::fill_n(wanted.means + 3 * i, 3, 0.0f);
                std::fill_n(wanted.quats + 4 * i, 4, 0.0f);
                std::fill_n(wanted.scales + 3 * i, 3, 0.0f);
                wanted.opacities[i] = 0.0f;
            }
            if (!(s.depth > 0)) {
                if (feature) std::fill_n(feature, pass.channels, 0.0f);
                continue;
            }
            std::fill(sums.begin(), sums.end(), 0.0);
            for (int64_t k = s.slot; k < s.slot + s.entries; ++k)
                for (int c = wanted.means ? 0 : kMoments; c < stride; ++c) sums[c] += slots.get()[k * stride + c];
            if (feature)
                for (int c = 0; c < pass.channels; ++c) feature[c] = static_cast<float>(sums[kMoments + c]);
            if (!wanted.means) continue;
            kernel.project_backward(scene, i, sums.data(), sums[kMoments + pass.channels], wanted.means + 3 * i,
                                    wanted.quats + 4 * i, wanted.scales + 3 * i, wanted.opacities + i,
                                    T.data() + chunk * 12);
        }
    });
    for (int c = 0; wanted.background && c < pass.channels; ++c) {
        double sum = 0.0;
        for (int tile = 0; tile < tiles; ++tile) sum += tile_background.get()[tile * pass.padded + c];
        wanted.background[c] = static_cast<float>(sum);
    }
    if (!wanted.T_cam_map) return;
    std::fill_n(wanted.T_cam_map, 12, 0.0);
    for (int64_t chunk = 0; chunk < chunks(scene.count); ++chunk)
        for (int k = 0; k < 12; ++k) wanted.T_cam_map[k] += T[chunk * 12 + k];
}

}  // namespace
}  // namespace m4d

extern "C" {

int m4d_raster_forward(const m4d_scene *scene, const m4d_images *images, m4d_pass **pass) try {
    if (!m4d::plausible(*scene)) return 2;
    auto made = std::make_unique<m4d_pass>();
    m4d::forward(*scene, *images, *made);
    if (pass) *pass = made.release();
    return 0;
} catch (const std::exception &) {
    return 1;
}

int m4d_raster_backward(const m4d_scene *scene, const m4d_pass *pass, const m4d_image_gradients *given,
                        const m4d_scene_gradients *wanted) try {
    if (scene->count != pass->count || scene->channels != pass->channels || scene->width != pass->width ||
        scene->height != pass->height || (wanted->T_cam_map && !wanted->means && scene->count > 0))
        return 2;
    m4d::backward(*scene, *pass, *given, *wanted);
    return 0;
} catch (const std::exception &) {
    return 1;
}

void m4d_raster_free(m4d_pass *pass) { delete pass; }

int64_t m4d_raster_pairs(const m4d_pass *pass) { return pass->pairs; }

int m4d_raster_abi(void) { return M4D_RASTER_ABI; }

const char *m4d_raster_isa(void) { return m4d::kernels().name; }
}
