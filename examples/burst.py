"""A burst that is too large: 16 streams of 14 KV blocks each, for two pools of 40, beside chats that go on.

It asks the fleet of examples/burst.yaml; docs/guide/burst.md says what there is to see.
"""

import asyncio
import sys

import diplex
from diplex.v1.router_pb2 import Fleet

STREAMS, PROMPT, OUTPUT = 16, 192, 256  # 448 tokens: 14 blocks of 32
CHATS, QUESTION, ANSWER = 2, 32, 128  # 5 blocks
TOO_MUCH = 1


async def ask(client: diplex.AsyncClient, tier: str, name: str, prompt: int, output: int) -> diplex.Reply:
    return await client.generate(
        prompt_ids=range(1, prompt + 1), max_tokens=output, ignore_eos=True, tier=tier, request_id=name
    )


async def chat(client: diplex.AsyncClient, over: asyncio.Event, least: int = 0) -> list[diplex.Reply]:
    """Short interactive requests, one after the other until it is over, and at least so many."""
    heard: list[diplex.Reply] = []
    while len(heard) < least or not over.is_set():
        heard.append(await ask(client, "interactive", "", QUESTION, ANSWER))
    return heard


async def watch(client: diplex.AsyncClient, seen: list[Fleet], *, until: asyncio.Event | None = None) -> None:
    """Until it is over, or else until somebody waits."""
    async for fleet in client.watch_fleet(every=0.1):
        seen.append(fleet)
        if until.is_set() if until else fleet.leases.waiting:
            return


async def reasons(client: diplex.AsyncClient, names: list[str]) -> list[str]:
    """What the router says of those that wait now."""
    answers = [await client.explain(request_id=name) for name in names]
    return [f"{answer.request_id}: {answer.reason}" for answer in answers if answer.HasField("wait")]


def rate(replies: list[diplex.Reply]) -> str:
    """Of the chat in the middle."""
    rates = sorted(reply.tokens_per_s for reply in replies if reply.tokens_per_s)
    return f"{rates[len(rates) // 2]:.0f} tokens/s"


def timeline(seen: list[Fleet]) -> None:
    """A line for each number of streams that waited."""
    print("\nwaiting  running" + "".join(f"  {pool.info.name} holds" for pool in seen[0].workers))
    last = None
    for fleet in seen:
        if fleet.leases.waiting != last:
            last = fleet.leases.waiting
            held = "".join(f"{pool.blocks.reserved:6} of {pool.blocks.capacity}" for pool in fleet.workers)
            print(f"{last:7}  {fleet.leases.running:7} {held}")


async def main(target: str) -> int:
    names, seen = [f"burst-{number:02}" for number in range(1, STREAMS + 1)], list[Fleet]()
    nobody_bursts, over = asyncio.Event(), asyncio.Event()
    nobody_bursts.set()
    async with diplex.AsyncClient(target) as client, asyncio.TaskGroup() as tasks:
        chats = await asyncio.gather(*(chat(client, nobody_bursts, least=5) for _ in range(CHATS)))
        beside = [tasks.create_task(chat(client, over)) for _ in range(CHATS)]
        burst = [tasks.create_task(ask(client, "bulk", name, PROMPT, OUTPUT)) for name in names]
        await watch(client, seen)
        print("\n".join(await reasons(client, names)))
        tasks.create_task(watch(client, seen, until=over))
        replies = [await stream for stream in burst]
        over.set()
    timeline(seen)
    whole = sum(reply.usage.completion_tokens == OUTPUT for reply in replies)
    print(f"\n{whole} of {STREAMS} streams came whole")
    pools = [(pool.info.name, pool.blocks.peak, pool.blocks.capacity) for pool in seen[-1].workers]
    for name, peak, capacity in pools:
        print(f"{name} never held more than {peak} of its {capacity} blocks")
    alone = [reply for heard in chats for reply in heard]
    meanwhile = [reply for task in beside for reply in task.result()]
    print(f"chats: {rate(alone)} before the burst, {rate(meanwhile)} beside it")
    return TOO_MUCH if any(peak > capacity for _, peak, capacity in pools) else 0


sys.exit(asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:7600")))
