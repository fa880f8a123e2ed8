"""What is planned, and whether it fits: the first words of the page and of the picture."""

from diplex_cli.plan.figures import counted, gigabytes
from diplex_core.plan.page import Page


def title(page: Page) -> str:
    """Everything that was asked for, defaults filled in, but the load."""
    it = page.deployment
    gpus = it.gpu.title if it.count == it.gpu.packages else f"{it.count} × {it.gpu.title}"
    if it.gpu.packages > it.count:
        gpus = f"{it.count} of {it.gpu.title}"
    engines = "" if it.engines == 1 else f" · {it.engines} engines"
    spans = "" if it.tp == 1 else f" · TP={it.tp}"
    return (
        f"{it.model.name} on {gpus} · pattern {it.pattern}{spans}{engines} · weights {it.weights} · "
        f"KV cache {it.kv_cache}"
    )


def verdict(page: Page) -> str:
    """Whether the load fits, with the sizes; if not, the nearest that does."""
    if page.objection is not None:
        return f"DOES NOT FIT: {page.objection}."
    asked, pool = page.asked_bytes, page.pool_bytes
    return (
        f"FITS: {counted(page.batch, 'sequence')} × {page.context:,} tokens take {gigabytes(asked)} of a KV "
        f"pool of {gigabytes(pool)}; {gigabytes(pool - asked)} stay free."
    )
