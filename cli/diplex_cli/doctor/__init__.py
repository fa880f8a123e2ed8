"""Is this deployment healthy? The chapter's checklist (§7), made real: each file looks at one side of it.

examination.py  all of them, in order
looks.py        what this machine's GPUs say, before and while a load runs
machine.py      1 driver, CUDA, compute capability, partitions; 4 memory, utilisation, power, clocks
engine.py       2 quantisation and kernels, 3 the KV cache's type and pool, as far as the engine tells
speed.py        5 one stream, 6 throughput, 7 a long prompt, through the router, against the prediction
names.py        the names that diplex relies on, looked up in an installed engine
"""
