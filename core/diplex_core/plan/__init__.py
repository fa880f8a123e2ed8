"""The planner: how a model lies in memory, and what to expect of it, before anything is started."""
