"""diplex decides here: the ledger, the queues, placement, the performance model, the simulator.

Plain Python and nothing else: no clock, no sockets, no asyncio, no logging. Time and randomness come
in as arguments and decisions go out as values, so that server, simulator and hostile tests drive the
same code. Start reading at `words`, then `ledger`, then `admission`.
"""
