"""A million malformed messages, calls and parameters against the real node; fuzzers of readers are in tools/fuzz."""
