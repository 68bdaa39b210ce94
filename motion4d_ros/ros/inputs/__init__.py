"""Messages in: subscriptions, synchronisation, frames, poses and prompts."""
