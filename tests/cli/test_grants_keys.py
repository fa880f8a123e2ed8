"""Keys of grants in a file: what it may hold, and what is taken of it while a part runs."""

import logging
from pathlib import Path

import pytest

from diplex.v1 import generation_pb2 as pb
from diplex.wire.grants import Keys
from diplex.wire.status import Problem
from diplex_cli import reader
from diplex_cli.failures import UsageError
from diplex_cli.grants_keys import KeyFile, grants_key
from diplex_core.config import ConfigErrors


@pytest.fixture
def named(simulated: Path) -> Path:
    """A configuration that names a file of keys beside it, which is not there yet."""
    simulated.write_text(simulated.read_text() + "grants: {key_file: grants.key}\n")
    return simulated


def key_in(config: Path) -> str | None:
    source = reader.read([str(config)])
    return grants_key(source, source.config())


@pytest.mark.parametrize("text", ["a:one,b:two", "a:one\nb:two\n", "  a:one ,\n\n b:two"])
def test_a_files_keys_stand_on_one_line_or_one_a_line(named: Path, text: str) -> None:
    named.with_name("grants.key").write_text(text)
    keys = Keys.of(key_in(named) or "")
    assert (keys.signs, keys.ids) == ("a", ("a", "b"))


def test_the_file_goes_before_the_usual_variable(named: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIPLEX_GRANTS_KEY", "of the environment")
    named.with_name("grants.key").write_text("of-the-file")
    assert key_in(named) == "of-the-file"


def test_a_variable_and_a_file_are_one_too_many(named: Path) -> None:
    named.write_text(named.read_text().replace("{key_file", "{key_env: KEY, key_file"))
    with pytest.raises(ConfigErrors, match=r"grants.key_file: stands beside key_env"):
        key_in(named)


@pytest.mark.parametrize(
    ("content", "told"), [(None, "No such file or directory"), (b"", "is empty"), (b"\xff", "is not text")]
)
def test_a_file_without_keys_is_named(named: Path, content: bytes | None, told: str) -> None:
    if content is not None:
        named.with_name("grants.key").write_bytes(content)
    with pytest.raises(UsageError, match=f"grants.key_file: .*grants.key.* {told}.*Mend: printf %s KEY > "):
        key_in(named)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "grants.key"
    file.write_text("old:one")
    return file


@pytest.fixture
def keys(file: Path) -> Keys:
    return Keys.of(file.read_text())


def settled(look: KeyFile) -> None:
    """Two looks: the first sees that the file is another, the second that it stayed so."""
    look.look()
    look.look()


def test_a_changed_file_is_taken_once_it_has_stayed_the_same_between_two_looks(
    file: Path, keys: Keys
) -> None:
    look = KeyFile(file, keys)
    file.write_text("new:two,old:one")
    look.look()
    assert keys.signs == "old"
    look.look()
    assert (keys.signs, keys.ids) == ("new", ("new", "old"))


@pytest.mark.parametrize("text", ["", "a:,b:two", "a:one,a:two"])
def test_what_is_no_key_changes_nothing_and_is_said_once(
    file: Path, keys: Keys, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    look = KeyFile(file, keys)
    file.write_text(text)
    with caplog.at_level(logging.ERROR):
        settled(look)
        settled(look)
    assert keys.ids == ("old",)
    (record,) = caplog.records
    assert "the keys of grants stay as they are" in record.getMessage()


def test_no_secret_is_ever_logged(file: Path, keys: Keys, caplog: pytest.LogCaptureFixture) -> None:
    look = KeyFile(file, keys)
    file.write_text("new:very-secret,old:one")
    with caplog.at_level(logging.INFO):
        settled(look)
    assert "new" in caplog.text
    assert "very-secret" not in caplog.text


def test_a_file_that_is_gone_changes_nothing(file: Path, keys: Keys) -> None:
    look = KeyFile(file, keys)
    file.unlink()
    settled(look)
    assert keys.ids == ("old",)


def test_in_three_steps_each_grant_is_verified_by_whoever_is_a_step_behind_or_ahead(
    tmp_path: Path,
) -> None:
    """Router and worker read their own copies of the file, in either order."""
    steps = ["old:one", "old:one,new:two", "new:two,old:one", "new:two"]
    for signing, verifying in ((0, 1), (1, 0), (1, 2), (2, 1), (2, 3), (3, 2)):
        grant = pb.Grant(worker="w1")
        signed = Keys.of(steps[signing]).sign(grant)
        assert Keys.of(steps[verifying]).verify(signed) == grant
    with pytest.raises(Problem):
        Keys.of("new:two").verify(Keys.of("old:one").sign(pb.Grant(worker="w1")))
