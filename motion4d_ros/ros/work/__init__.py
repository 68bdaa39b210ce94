"""The worker thread that owns the engine, and the queue between it and the callbacks."""
