"""A load against a simulated fleet in virtual time: the core decides as in a router, and no time passes.

`streams.py` says what comes (a trace, once or many times round; `synthetic.py`: drawn), `blocks.py` which
KV blocks prompts share, `fleet.py` who serves it, `capacity.py` how much that fleet can take, `faults.py`
what goes wrong and when; `session.py` runs it, `progress.py` says how far it is, `plot.py` draws it.
"""
