"""A burst that is too large: 16 streams of 14 KV blocks each, for two pools of 40, beside chats that go on.

It asks the fleet of examples/burst.yaml; docs/guide/burst.md says what there is to see.

usage: burst.py [--short] [--tier bulk|batch] [HOST:PORT]
  --short: the streams may still come to 14 blocks, and most of them end long before
  --tier:  batch holds what such streams mostly come to; some go before, for the router to learn that
"""

import asyncio
import sys
from argparse import ArgumentParser
from itertools import count

import diplex
from diplex.v1.router_pb2 import Fleet, PoolAccount

STREAMS, PROMPT, OUTPUT = 16, 192, 256  # 448 tokens: 14 blocks of 32
CHATS, QUESTION, ANSWER = 2, 32, 128  # 5 blocks
SHORT_PROMPT, LONGEST, STOP = 64, 384, " ba"  # 14 blocks at most; one word in 64 begins so
LEARNED_FROM = 32
TOO_MUCH = 1
QUESTIONS = count(1)  # the first token of each


async def chat(client: diplex.AsyncClient, over: asyncio.Event, least: int = 0) -> list[diplex.Reply]:
    """Short interactive requests, one after the other until it is over, and at least so many."""
    heard: list[diplex.Reply] = []
    while len(heard) < least or not over.is_set():
        first = next(QUESTIONS)
        heard.append(
            await client.generate(
                prompt_ids=range(first, first + QUESTION), max_tokens=ANSWER, tier="interactive"
            )
        )
    return heard


async def stream(client: diplex.AsyncClient, number: int, tier: str, *, short: bool) -> diplex.Reply:
    """One of the burst."""
    first = 1000 * number  # no two prompts begin alike: none shares blocks with another
    return await client.generate(
        prompt_ids=range(first, first + (SHORT_PROMPT if short else PROMPT)),
        max_tokens=LONGEST if short else OUTPUT,
        stop=STOP if short else (),
        tier=tier,
        request_id=f"burst-{number:02}",
    )


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


def holds(blocks: PoolAccount) -> int:
    """By the router's account: what requests hold, and what is not yet known to be free again."""
    return blocks.reserved + blocks.pinned + blocks.reclaiming


def timeline(seen: list[Fleet]) -> None:
    """A line for each number of streams that waited."""
    print("\nwaiting  running" + "".join(f"  {pool.info.name} holds" for pool in seen[0].workers))
    last = None
    for fleet in seen:
        if fleet.leases.waiting != last:
            last = fleet.leases.waiting
            held = "".join(f"{holds(pool.blocks):6} of {pool.blocks.capacity}" for pool in fleet.workers)
            print(f"{last:7}  {fleet.leases.running:7} {held}")


async def main(target: str, tier: str, *, short: bool) -> int:
    names, seen = [f"burst-{number:02}" for number in range(1, STREAMS + 1)], list[Fleet]()
    nobody_bursts, over = asyncio.Event(), asyncio.Event()
    nobody_bursts.set()
    async with diplex.AsyncClient(target) as client, asyncio.TaskGroup() as tasks:
        chats = await asyncio.gather(*(chat(client, nobody_bursts, least=3) for _ in range(CHATS)))
        if tier == "batch":
            await asyncio.gather(*(stream(client, 100 + at, tier, short=short) for at in range(LEARNED_FROM)))
        beside = [tasks.create_task(chat(client, over)) for _ in range(CHATS)]
        burst = [
            tasks.create_task(stream(client, number, tier, short=short)) for number in range(1, STREAMS + 1)
        ]
        await watch(client, seen)
        print("\n".join(await reasons(client, names)))
        tasks.create_task(watch(client, seen, until=over))
        replies = [await one for one in burst]
        over.set()
    timeline(seen)
    tokens = sorted(reply.usage.completion_tokens for reply in replies)
    gave_way = seen[-1].leases.preempted - seen[0].leases.preempted
    print(f"\n{len(tokens)} streams came whole, of {tokens[0]} to {tokens[-1]} tokens; {gave_way} gave way")
    pools = [(pool.info.name, pool.blocks.peak, pool.blocks.capacity) for pool in seen[-1].workers]
    for name, peak, capacity in pools:
        print(f"{name} never held more than {peak} of its {capacity} blocks")
    alone = [reply for heard in chats for reply in heard]
    meanwhile = [reply for task in beside for reply in task.result()]
    print(f"chats: {rate(alone)} before the burst, {rate(meanwhile)} beside it")
    return TOO_MUCH if any(peak > capacity for _, peak, capacity in pools) else 0


if __name__ == "__main__":
    words = ArgumentParser(usage=__doc__.partition("usage: ")[2])
    words.add_argument("target", nargs="?", default="127.0.0.1:7600")
    words.add_argument("--short", action="store_true")
    words.add_argument("--tier", choices=("bulk", "batch"), default="bulk")
    args = words.parse_args()
    sys.exit(asyncio.run(main(args.target, args.tier, short=args.short)))
