"""Measuring: standard metrics, a synthetic scene with exact truth, scores of an analysis and the benchmark."""
