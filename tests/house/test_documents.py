"""The documents hold together: links lead somewhere, blocks parse, nothing stands outside the index."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def links(text: str) -> Iterator[tuple[str, str]]:
    """Each relative link of a page: its path and its fragment, either of which may be empty."""
    for target in LINK.findall(FENCE.sub("", text)):
        if "://" not in target and not target.startswith("mailto:"):
            path, _, fragment = target.partition("#")
            yield path, fragment


def blocks(text: str, *languages: str) -> list[str]:
    return [body for language, body in FENCE.findall(text) if language in languages]


def anchors(text: str) -> set[str]:
    """The fragments that a page's headings have, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_leads_to_a_file_and_a_heading_that_exist(root: Path, documents: dict[Path, str]):
    broken = []
    for page, text in documents.items():
        for path, fragment in links(text):
            target = (root / page.parent / path).resolve() if path else root / page
            if not target.exists() or (fragment and fragment not in anchors(target.read_text())):
                broken.append(f"{page}: {path}#{fragment}")
    assert broken == []


def test_every_json_and_yaml_block_parses(documents: dict[Path, str]):
    for text in documents.values():
        for block in blocks(text, "json"):
            json.loads(block)
        for block in blocks(text, "yaml"):
            yaml.safe_load(block)


def test_every_python_block_compiles(documents: dict[Path, str]):
    for page, text in documents.items():
        for block in blocks(text, "python"):
            compile(block, str(page), "exec")


def test_every_page_of_the_docs_is_reached_from_their_index(root: Path, documents: dict[Path, str]):
    reached, follow = set(), [Path("docs/README.md")]
    while follow:
        page = follow.pop()
        if page in reached or page not in documents:
            continue
        reached.add(page)
        targets = ((root / page.parent / path).resolve() for path, _ in links(documents[page]) if path)
        follow += [target.relative_to(root) for target in targets if target.is_relative_to(root)]
    assert {page for page in documents if page.parts[0] == "docs"} <= reached


def test_every_top_level_folder_says_what_lives_in_it(root: Path, committed: list[Path]):
    folders = {
        path.parts[0] for path in committed if len(path.parts) > 1 and not path.parts[0].startswith(".")
    }
    assert {folder for folder in folders if not (root / folder / "README.md").is_file()} == set()


def test_a_decision_says_what_forced_it_what_it_costs_and_what_would_change_it(documents: dict[Path, str]):
    records = {page: text for page, text in documents.items() if page.parent == Path("docs/decisions")}
    assert len(records) >= 5
    for page, text in records.items():
        for part in (
            "What forced a choice",
            "We chose",
            "Instead of",
            "It costs",
            "We would change our mind if",
        ):
            assert f"**{part}:**" in text, f"{page} lacks: {part}"
