"""Files change while a router runs: what is read, when, and what is said. Each look is made by hand."""

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from diplex_cli.reader import FileFault
from diplex_cli.reloading import Reloading
from diplex_core.config.changes import of_rules
from diplex_core.words import Rules

MORE = "  bulk: {patterns: [A]}\ndefault_tier: standard\n"

Said = Callable[[], list[str]]


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Said:
    """What was logged since the last call."""
    caplog.set_level(logging.INFO)

    def lines() -> list[str]:
        messages = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return messages

    return lines


def settled(reloading: Reloading) -> Rules | None:
    """Two looks: the first sees that a file is another, the second that it stayed so."""
    assert reloading.look() is None
    return reloading.look()


def tiers(rules: Rules | None) -> list[str]:
    return list(rules.tiers) if rules else []


def appended(file: Path, text: str) -> None:
    file.write_text(file.read_text() + text)


def test_a_file_that_stays_as_it_is_is_not_read_again(simulated: Path, said: Said):
    reloading = Reloading([str(simulated)], {})
    assert [reloading.look() for _ in range(3)] == [None] * 3
    assert said() == []


def test_a_changed_file_is_read_once_it_has_stayed_the_same_between_two_looks(simulated: Path, said: Said):
    reloading = Reloading([str(simulated)], {})
    appended(simulated, "  bulk:")
    assert reloading.look() is None
    appended(simulated, " {patterns: [A]}\n")
    assert reloading.look() is None, "it is being written: half of it is not looked into"
    assert said() == []
    appended(simulated, "default_tier: standard\n")
    assert tiers(settled(reloading)) == ["standard", "bulk"]
    assert reloading.look() is None


@pytest.mark.parametrize(
    ("was", "becomes", "told"),
    [
        ("[A, C]", "[A, C], max_queue_blocks: 64, min_share: 0.2", "tiers standard changed"),
        ("[A, C]", "[A, C], reserve: expected, preemptible: true", "tiers standard changed"),
        ("tiers:", "limits: {enforce: false}\ntiers:", "limits are not enforced"),
    ],
)
def test_how_requests_are_held_and_limited_is_a_rule(simulated: Path, was: str, becomes: str, told: str):
    reloading = Reloading([str(simulated)], {})
    old = reloading.started_with.rules
    simulated.write_text(simulated.read_text().replace(was, becomes))
    new = settled(reloading)
    assert new is not None
    assert of_rules(old, new) == told


def test_a_file_that_is_renamed_into_its_place_is_a_change(simulated: Path):
    reloading = Reloading([str(simulated)], {})
    there, other = simulated.stat(), simulated.with_suffix(".new")
    other.write_text(simulated.read_text().replace("[A, C]", "[C, A]"))
    os.utime(other, ns=(there.st_atime_ns, there.st_mtime_ns))
    other.replace(simulated)
    rules = settled(reloading)
    assert rules is not None
    assert rules.tiers["standard"].patterns == ("C", "A")


def test_a_link_that_is_turned_to_another_folder_is_a_change(simulated: Path):
    text = simulated.read_text()
    for name, content in (("one", text), ("two", text + MORE)):
        (simulated.parent / name).mkdir()
        (simulated.parent / name / "fleet.yaml").write_text(content)
    data = simulated.parent / "data"
    data.symlink_to("one")
    reloading = Reloading([str(data / "fleet.yaml")], {})
    turned = simulated.parent / "turned"
    turned.symlink_to("two")
    turned.replace(data)
    assert tiers(settled(reloading)) == ["standard", "bulk"]


def test_every_file_of_a_configuration_is_looked_at(simulated: Path):
    second = simulated.with_name("tiers.yaml")
    second.write_text("tiers: {bulk: {patterns: [A]}}\ndefault_tier: bulk\n")
    reloading = Reloading([str(simulated), str(second)], {})
    second.write_text("tiers: {batch: {patterns: [A]}}\ndefault_tier: batch\n")
    assert tiers(settled(reloading)) == ["standard", "batch"]


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ("  bulk: {patterns: [E]}\n", "fleet.yaml:7: tiers.bulk.patterns: 'E' is not a pattern"),
        ("  bulk: {patterns: [A]\n", "fleet.yaml:8: is not YAML:"),
        (MORE.replace("standard", "gold"), "fleet.yaml:8: default_tier: 'gold' is not one of tiers"),
    ],
)
def test_a_wrong_file_changes_nothing_and_is_told_once(simulated: Path, said: Said, broken: str, told: str):
    reloading = Reloading([str(simulated)], {})
    right = simulated.read_text()
    appended(simulated, broken)
    assert settled(reloading) is None
    (line,) = said()
    assert line.startswith("the configuration cannot be taken, the rules stay as they are: ")
    assert told in line
    assert settled(reloading) is None
    assert said() == [], "the same wrong file is told once"
    simulated.write_text(right + MORE)
    assert tiers(settled(reloading)) == ["standard", "bulk"], "mended, it is taken"


def test_a_file_that_is_gone_changes_nothing_and_is_taken_when_it_is_back(simulated: Path, said: Said):
    reloading = Reloading([str(simulated)], {})
    text = simulated.read_text()
    simulated.unlink()
    assert settled(reloading) is None
    (line,) = said()
    assert "fleet.yaml: No such file or directory" in line
    simulated.write_text(text + MORE)
    assert tiers(settled(reloading)) == ["standard", "bulk"]


def test_a_configuration_that_is_wrong_at_the_start_is_an_error(tmp_path: Path):
    with pytest.raises(FileFault):
        Reloading([str(tmp_path / "nothing.yaml")], {})


def test_a_change_beside_the_rules_is_told_once_and_yields_none(simulated: Path, said: Said):
    reloading = Reloading([str(simulated)], {})
    text = simulated.read_text()
    simulated.write_text(text.replace("pattern: A", "pattern: A, slots: 7"))
    assert settled(reloading) is None
    assert said() == [
        "packages.pkg0 changed: takes effect at the next start",
        "the configuration was read again: the rules are the same",
    ]
    simulated.write_text(text.replace("pattern: A", "pattern: A, slots: 7").replace("[A, C]", "[C, A]"))
    assert settled(reloading) is not None
    assert said() == []


def test_what_has_no_effect_is_told_when_it_comes(simulated: Path, said: Said):
    reloading = Reloading([str(simulated)], {})
    appended(simulated, "    \n")
    simulated.write_text(
        simulated.read_text().replace("[A, C]}", "[A, C], models: {nobody: {tpot_p95_ms: 9}}}")
    )
    assert settled(reloading) is not None
    (line,) = said()
    assert "fleet.yaml:6: tiers.standard.models.nobody: is not one of models: never used" in line


def test_a_new_tenants_key_comes_from_its_file_and_a_new_key_in_it_is_a_change(simulated: Path):
    reloading = Reloading([str(simulated)], {})
    key = simulated.with_name("acme.key")
    appended(simulated, "tenants: {acme: {api_key_file: acme.key}}\n")
    assert settled(reloading) is None, "there is no such file yet"
    key.write_text("sesame\n")
    rules = settled(reloading)
    assert rules is not None
    assert rules.tenant_of("sesame") is not None
    key.write_text("poppy\n")
    rules = settled(reloading)
    assert rules is not None
    assert rules.tenant_of("sesame") is None
    assert rules.tenant_of("poppy") is not None


def test_a_new_tenant_of_a_variable_is_told_that_it_needs_a_file(simulated: Path, said: Said):
    reloading = Reloading([str(simulated)], {})
    appended(simulated, "tenants: {acme: {api_key_env: ACME_KEY}}\n")
    assert settled(reloading) is None
    (line,) = said()
    assert "fleet.yaml:7: tenants.acme.api_key_env: the environment variable ACME_KEY is not set" in line
    assert line.endswith("  mend:  api_key_file: …, for this process has the variables of its start")


def test_a_path_that_no_file_can_have_is_told(simulated: Path, said: Said):
    reloading = Reloading([str(simulated)], {})
    appended(simulated, 'tenants: {acme: {api_key_file: "a\\0b"}}\n')
    assert settled(reloading) is None
    (line,) = said()
    assert "tenants.acme.api_key_file: " in line
    assert "embedded null byte" in line
    assert settled(reloading) is None


def test_a_tenant_of_a_variable_keeps_the_key_that_the_process_started_with(simulated: Path):
    appended(simulated, "tenants: {acme: {api_key_env: ACME_KEY}}\n")
    reloading = Reloading([str(simulated)], {"ACME_KEY": "sesame"})
    simulated.write_text(simulated.read_text().replace("[A, C]", "[C, A]"))
    rules = settled(reloading)
    assert rules is not None
    assert rules.tenant_of("sesame") is not None


def test_the_embedded_configuration_has_no_file_to_look_at():
    assert not Reloading([], {}).watched


async def test_a_hangup_has_the_files_read_at_once(simulated: Path):
    reloading = Reloading([str(simulated)], {})
    changes = reloading.rules()
    try:
        appended(simulated, MORE)
        # One look alone would only see that the file is another.
        os.kill(os.getpid(), signal.SIGHUP)
        assert tiers(await anext(changes)) == ["standard", "bulk"]
    finally:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)


async def test_a_changed_file_brings_new_rules_by_itself(simulated: Path):
    reloading = Reloading([str(simulated)], {})
    changes = reloading.rules()
    try:
        appended(simulated, MORE)
        assert tiers(await anext(changes)) == ["standard", "bulk"]
    finally:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)
