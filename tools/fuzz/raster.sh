#!/usr/bin/env bash
# Builds the rasteriser with sanitizers and feeds it scenes made from a seed: tools/fuzz/raster.sh KIND RUNS SEED OUT
#
#   KIND   address (ASan and UBSan) or thread (TSan)
#   OUT    folder for what is built
set -euo pipefail
kind=$1 runs=${2:-2000} seed=${3:-0} out=${4:-out/fuzz}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
case $kind in
    address) flags=(-fsanitize=address,undefined -fno-sanitize-recover=undefined) ;;
    thread) flags=(-fsanitize=thread) ;;
    *) echo "raster.sh: $kind: address or thread" >&2; exit 2 ;;
esac
mkdir -p "$out"
"${CXX:-g++}" -std=gnu++17 -g -O1 -fno-omit-frame-pointer "${flags[@]}" -DM4D_OWN_MAIN -DM4D_KERNELS=baseline \
    -I"$root/raster/include" -I"$root/raster/src" "$root/tools/fuzz/raster.cpp" "$root/raster/src/raster.cpp" \
    "$root/raster/src/blend.cpp" "$root/raster/src/align.cpp" "$root/raster/src/align_kernels.cpp" \
    "$root"/raster/src/{image,labels,label_kernels,body,body_kernels,appearance,step,step_kernels}.cpp -pthread -o "$out/raster_$kind"
MOTION4D_RASTER_ISA=baseline "$out/raster_$kind" "$runs" "$seed"
