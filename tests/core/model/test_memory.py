"""What lies in an engine's memory, and what is left of it for its KV cache."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diplex_core.model import catalogue
from diplex_core.model.catalogue import Gpu, Link, Model
from diplex_core.model.chapter import calibrated_for, memory_beside
from diplex_core.model.memory import (
    WEIGHTS,
    Layout,
    bytes_read,
    kv_bytes_per_token,
    layout_of,
    weights_bytes,
)
from diplex_core.model.steps import memory_of
from diplex_core.words import Pattern

B200, QWEN = catalogue.gpu("b200"), catalogue.model("qwen2.5-72b")
OWN = dict(zip(("gpu", "profile", "weights", "kv_cache"), calibrated_for(), strict=True))
RECIPES = (*catalogue.names("profiles/formats"), *catalogue.names("profiles/recipes"))


def memory(pattern: Pattern = Pattern.A, **other: Any) -> Layout:
    return memory_of(pattern, **{**OWN, **other})


def lies(layout: Layout, die: int | None = None) -> dict[str, int]:
    return {group.name: group.bytes for group in layout.groups if group.die == die}


# 80 layers, 8 KV heads of 128: 163,840 elements a token, so 160 KiB in FP8; MX adds 1/32, NVFP4 has 9/16.
@pytest.mark.parametrize(
    ("kv_cache", "size"), [("bf16", 327_680), ("fp8", 163_840), ("mxfp8", 168_960), ("nvfp4", 92_160)]
)
def test_a_token_of_qwen_takes_two_vectors_a_layer_and_head(kv_cache: str, size: int):
    assert kv_bytes_per_token(QWEN, kv_cache) == size


@pytest.mark.parametrize(
    ("batch", "context", "size"),
    [
        (1, 2048, 0.336e9),
        (8, 2048, 2.68e9),
        (32, 2048, 10.74e9),
        (64, 2048, 21.47e9),
        (32, 16_384, 85.90e9),
        (1, 32_768, 5.37e9),
        (16, 32_768, 85.90e9),
        (64, 32_768, 343.6e9),
        (1, 131_072, 21.47e9),
        (32, 65_536, 343.6e9),
    ],
)
def test_the_kv_cache_grows_with_batch_and_context(batch: int, context: int, size: float):
    assert memory(kv_cache="fp8").kv_bytes(batch, context) == pytest.approx(size, rel=0.002)


# Of the 72.7 billion parameters of Qwen2.5-72B, 12.080 are attention, 58.133 FFN, and 1.246 in embedding and
# head each; norms and biases are 2.1 million. Bytes: OCP's and NVIDIA's block scales, and BF16 for the rest.
@pytest.mark.parametrize(
    ("weights", "attention", "ffn", "total"),
    [
        ("mxfp4", 6.42e9, 30.88e9, 42.29e9),
        ("nvfp4", 6.79e9, 32.70e9, 44.48e9),
        ("mxfp6", 9.44e9, 45.42e9, 59.84e9),
        ("fp8", 12.08e9, 58.13e9, 75.20e9),
        ("bf16", 24.16e9, 116.27e9, 145.41e9),
        ("mxfp6-mxfp4", 9.44e9, 30.88e9, 45.30e9),
        ("fp8-mxfp4", 12.08e9, 30.88e9, 47.95e9),
    ],
)
def test_each_group_takes_what_its_parameters_take(weights: str, attention: float, ffn: float, total: float):
    sizes = catalogue.recipe(weights).weights(QWEN)
    assert sizes.attention == pytest.approx(attention, rel=0.001)
    assert sizes.ffn == pytest.approx(ffn, rel=0.001)
    assert sizes.embeddings == sizes.head == pytest.approx(2.49e9, rel=0.002)
    assert sizes.norms == pytest.approx(0.004e9, rel=0.1)
    assert weights_bytes(QWEN, weights) == sizes.total == pytest.approx(total, rel=0.001)


@pytest.mark.parametrize(
    ("profile", "weights", "size"),
    [
        ("qwen2.5-72b", "mxfp4-mixed", 44.7e9),
        ("qwen2.5-32b", "fp8", 34.32e9),
        ("qwen2.5-7b", "nvfp4", 5.85e9),
        (
            "qwen2.5-7b",
            "mxfp4",
            5.65e9,
        ),  # the chapter's "~4 GB" leaves out the tables: 3.47 GB of linear layers
        ("smollm2-135m", "bf16", 0.269e9),
    ],
)
def test_weights_take_what_their_groups_take(profile: str, weights: str, size: float):
    assert weights_bytes(catalogue.model(profile), weights) == pytest.approx(size, rel=0.002)


@pytest.mark.parametrize(
    ("profile", "weights", "size"),
    [
        ("qwen2.5-72b", "nvfp4", 44.48e9 - 2.49e9),
        ("qwen2.5-7b", "nvfp4", 4.76e9),
        ("qwen2.5-72b", "mxfp4-mixed", 44.7e9),  # one table, which is then the head
        ("smollm2-135m", "bf16", 0.269e9),  # the table is the head
    ],
)
def test_a_step_reads_all_weights_but_the_table_that_tokens_are_looked_up_in(
    profile: str, weights: str, size: float
):
    assert bytes_read(catalogue.model(profile), weights) == pytest.approx(size, rel=0.002)


def test_the_chapters_recipe_is_the_weights_of_the_chapters_box():
    groups = catalogue.read("calibrations", "chapter")["memory"]
    assert weights_bytes(QWEN, "mxfp4-mixed") == groups["weights"]
    assert dict(memory_beside()) == {name: size for name, size in groups.items() if name != "weights"}
    assert catalogue.recipe("mxfp4-mixed").bytes_of(QWEN) == {
        "attention": 14_000_000_000,
        "ffn": 28_000_000_000,
        "embeddings": 2_600_000_000,
        "head": 0,
        "norms": 100_000_000,
    }


def test_the_chapters_recipe_takes_other_models_in_proportion_group_by_group():
    llama = catalogue.model("llama-3.1-70b")
    sizes = catalogue.recipe("mxfp4-mixed").weights(llama)
    assert sizes.attention == 14_000_000_000
    assert sizes.ffn == pytest.approx(28e9 * llama.ffn_parameters / QWEN.ffn_parameters, rel=1e-6)
    assert (sizes.head, sizes.looked_up) == (0, 0)


def test_the_pool_is_what_the_chapters_groups_leave():
    left = B200.memory_bytes - (1.5e9 + 3e9 + 44.7e9 + 12e9 + 10e9)
    assert memory().pool_bytes == left
    assert memory().capacity_blocks(32) == int(left / (168_960 * 32))
    assert memory(Pattern.A_EAGLE) == memory()


def test_the_pool_holds_more_than_the_chapters_box_which_leaves_memory_free():
    assert memory().capacity_blocks(32) * 32 > 16 * 32_768


def test_block_scales_are_told_apart_where_the_recipe_does():
    counted = lies(memory(weights="nvfp4"))
    assert counted["block scales"] == pytest.approx((12.080e9 + 58.133e9) / 16, rel=0.001)
    assert counted["attention"] == pytest.approx(12.080e9 / 2, rel=0.001)
    assert "block scales" not in lies(memory())


def test_an_engine_on_one_die_has_half_the_memory_and_everything_of_its_own_in_it():
    half = memory(Pattern.B)
    assert half.memory == ((0, B200.memory_bytes // 2),)
    assert lies(half, die=0) == {
        "context": 1_500_000_000,
        "scratch": 3_000_000_000,
        "attention": 14_000_000_000,
        "ffn": 28_000_000_000,
        "embeddings": 2_600_000_000,
        "norms": 100_000_000,
        "activations": 6_000_000_000,
        "reserve": 5_000_000_000,
    }
    assert half.capacity_blocks(32) < memory().capacity_blocks(32) / 3


def test_both_dies_have_half_of_an_engine_with_a_rank_on_each():
    both = memory(Pattern.C)
    assert lies(both, die=0) == lies(both, die=1)
    assert both.size("ffn") == 28_000_000_000 and lies(both, die=0)["ffn"] == 14_000_000_000
    assert both.capacity_blocks(32) == memory().capacity_blocks(32)


def test_norms_are_whole_on_each_die_and_biases_are_split():
    both, one = memory(Pattern.C, weights="bf16"), memory(weights="bf16")
    norms, biases = 80 * 2 * 8192 + 8192, 80 * (64 + 2 * 8) * 128
    assert one.size("norms") == 2 * (norms + biases)
    assert lies(both, die=1)["norms"] == 2 * norms + biases


def test_a_draft_model_takes_memory_and_keeps_a_kv_cache_of_its_own():
    both = memory(Pattern.D)
    assert both.size("draft weights") == pytest.approx(5.65e9, rel=0.002)
    assert both.kv_bytes_per_token == 168_960 + 28_672 * 1.03125


def test_the_draft_lies_on_die_0_and_the_target_on_die_1():
    both = memory(Pattern.D)
    assert {group.name for group in both.groups if group.die == 0} & {*WEIGHTS} == {"draft weights"}
    assert sum(size for name, size in lies(both, die=1).items() if name in WEIGHTS) == 44_700_000_000


def test_a_target_too_large_for_its_die_spills_to_the_drafts():
    both = memory(Pattern.D, weights="bf16")
    full, roomy = both.pools[1], both.pools[0]
    assert full.bytes == 0 < roomy.bytes
    assert both.size("ffn") == pytest.approx(116.27e9, rel=0.001)
    assert "ffn" in lies(both, die=0) and "ffn" in lies(both, die=1)


def test_an_engine_over_eight_gpus_has_an_eighth_of_the_weights_and_a_whole_process_on_each():
    one = layout_of(Pattern.A, B200, QWEN, "nvfp4", "fp8", beside=memory_beside())
    each = layout_of(Pattern.A, B200, QWEN, "nvfp4", "fp8", beside=memory_beside(), span=8)
    assert each.size("ffn") == one.size("ffn") / 8
    assert each.size("context", "scratch") == one.size("context", "scratch")
    assert each.kv_bytes_per_token_and_gpu == one.kv_bytes_per_token / 8
    assert each.capacity_blocks(32) == each.pool_bytes * 8 // (32 * one.kv_bytes_per_token)


@pytest.mark.parametrize(("context", "batch"), [(2048, 347), (32_768, 21), (131_072, 5), (1, 22_250)])
def test_the_largest_batch_of_a_context_fills_the_pool(context: int, batch: int):
    assert memory().largest_batch(context) == batch


def test_a_longer_context_is_what_fewer_sequences_can_have():
    assert [memory().largest_context(batch) for batch in (1, 16, 32)] == [712_000, 44_480, 22_240]


def test_the_fraction_flags_give_the_planned_pool():
    layout = memory()
    weights, work = layout.weights_bytes, layout.size("context", "scratch", "activations")
    trtllm = layout.free_gpu_memory_fraction * (layout.memory_bytes - weights - work)
    vllm = layout.gpu_memory_utilization * layout.memory_bytes - weights - work
    assert trtllm == pytest.approx(layout.pool_bytes)
    assert vllm == pytest.approx(layout.pool_bytes)
    assert (round(layout.free_gpu_memory_fraction, 3), round(layout.gpu_memory_utilization, 3)) == (
        0.923,
        0.948,
    )


@pytest.mark.parametrize(
    ("look_up", "message"),
    [
        (
            lambda: memory(Pattern.B, weights="bf16").capacity_blocks(32),
            r"qwen2\.5-72b does not fit into one die of b200's 95\.8 GB: weights 145\.4 GB, .*Mend:",
        ),
        (
            lambda: memory(Pattern.D, draft="qwen2.5-32b"),
            r"drafts with qwen2\.5-7b, not qwen2\.5-32b\. Mend: draft: \{model: qwen2\.5-7b\}",
        ),
    ],
)
def test_what_does_not_fit_or_has_no_figures_is_refused_with_the_numbers(
    look_up: Callable[[], Any], message: str
):
    with pytest.raises(ValueError, match=message):
        look_up()


def test_the_calibration_names_what_it_is_about_and_the_catalogue_has_it():
    gpu, model, weights, kv_cache = calibrated_for()
    assert (catalogue.gpu(gpu), catalogue.model(model)) == (B200, QWEN)
    assert catalogue.bytes_per_element(kv_cache) == 1 + 1 / 32
    assert catalogue.recipe(weights).claimed


@st.composite
def models(draw: st.DrawFn) -> Model:
    kv_heads, group = draw(st.integers(1, 16)), draw(st.integers(1, 16))
    return Model(
        name="any",
        title="any",
        layers=draw(st.integers(1, 200)),
        hidden=draw(st.integers(1, 20_000)),
        intermediate=draw(st.integers(1, 80_000)),
        heads=kv_heads * group,
        kv_heads=kv_heads,
        head_dim=draw(st.integers(1, 256)),
        vocabulary=draw(st.integers(1, 300_000)),
        context=draw(st.integers(1, 1_000_000)),
        tied=draw(st.booleans()),
        qkv_bias=draw(st.booleans()),
        output_bias=draw(st.booleans()),
        ffn_bias=draw(st.booleans()),
        qk_norm=draw(st.booleans()),
    )


LINK = Link(1e12, 1e-6)
GPUS = st.builds(
    lambda dies, size: Gpu("any", "any", dies, size, 1e12, 1e15, 1e15, None, LINK, LINK, 1000.0, 100.0),
    st.integers(1, 2),
    st.integers(0, 2**40),
)
LAYOUTS = st.builds(
    lambda pattern, gpu, model, draft, weights, kv_cache, span, dies_are_gpus: layout_of(
        pattern,
        gpu,
        model,
        weights,
        kv_cache,
        beside=memory_beside(),
        draft=(draft, "mxfp4") if pattern is Pattern.D else None,
        span=span,
        dies_are_gpus=dies_are_gpus,
    ),
    st.sampled_from(Pattern),
    GPUS,
    models(),
    models(),
    st.sampled_from(RECIPES),
    st.sampled_from(catalogue.names("profiles/formats")),
    st.integers(1, 8),
    st.booleans(),
)


@given(LAYOUTS)
def test_groups_and_pool_are_the_memory_exactly_die_by_die(layout: Layout):
    pools = {pool.die: pool.bytes for pool in layout.pools}
    assert {die: sum(lies(layout, die).values()) + pools[die] for die, _ in layout.memory} == dict(
        layout.memory
    )
    assert sum(group.bytes for group in layout.groups) + layout.pool_bytes == layout.memory_bytes
    assert {group.die for group in layout.groups} <= {*layout.dies}


@given(LAYOUTS)
def test_no_group_and_no_pool_of_what_fits_is_negative(layout: Layout):
    assert all(group.bytes >= 0 for group in layout.groups)
    assert not layout.fits or all(pool.bytes >= 0 for pool in layout.pools)


@given(LAYOUTS, st.integers(1, 512), st.integers(1, 200_000))
def test_the_inverses_are_the_largest_that_fit_and_no_larger(layout: Layout, batch: int, context: int):
    if not layout.fits:
        return
    blocks, most, longest = (
        layout.capacity_blocks(32),
        layout.largest_batch(context),
        layout.largest_context(batch),
    )
    assert most * -(-context // 32) <= blocks < (most + 1) * -(-context // 32)
    assert batch * longest // 32 <= blocks < batch * (longest // 32 + 1)
    assert blocks * 32 * layout.kv_bytes_per_token <= layout.pool_bytes * layout.gpus


@given(models(), st.sampled_from(RECIPES), st.integers(1, 16))
def test_the_parts_of_an_engine_have_all_of_its_weights_together(model: Model, weights: str, span: int):
    part = layout_of(Pattern.A, B200, model, weights, "fp8", beside=(), span=span)
    whole = catalogue.recipe(weights).weights(model)
    assert whole.total <= part.weights_bytes * span < whole.total + whole.unsplit * span + 6 * span
    assert part.weights_bytes <= whole.total + 6
