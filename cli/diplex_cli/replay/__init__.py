"""Load from a trace: read it, send it in an open loop, watch the fleet meanwhile, and report.

`traces.py` reads, `mix.py` deals rows to tiers, `prompts.py` makes what is sent, `load.py` sends it on time,
`watch.py` looks at the fleet, `session.py` puts them together. Only the first three know of traces.
"""
