"""The simulated engine: what it says, and when; driven by its caller's time."""
