"""A model of everything around the core, and of all that can go wrong with it.

wire.py      a connection: messages in flight both ways, a break that each end learns of by itself
words.py     what is said on those connections
memory.py    the KV blocks that an engine really has, and which of them it may evict
gate.py      whom a worker believes
worker.py    a worker: the truth about its pool
growth.py    how a worker's claims grow
feed.py      what one router is told by one worker
book.py      what a router must have charged on one worker, by rule
router.py    the core, driven as the router's shell drives it, and what must be true of a grant
client.py    a client that follows the protocol
truths.py    what is true after every step
scenes.py    who there is, and what the rules are
world.py     all of these together, and the steps that they can take
walk.py      random walks over those steps
"""
