"""Files become one tree, and every fault finds its line."""

from contextlib import suppress
from importlib.resources import files
from pathlib import Path

import pytest

from diplex_cli import reader
from diplex_core.config import ConfigErrors, Fault


def written(folder: Path, *texts: str) -> list[str]:
    files = [folder / f"{'abc'[number]}.yaml" for number in range(len(texts))]
    for file, text in zip(files, texts, strict=True):
        file.write_text(text)
    return [str(file) for file in files]


def test_a_fault_is_told_with_file_line_key_and_mend(simulated: Path):
    wrong = "\n    patterns:\n      - A\n      - E\n    prio: 5"
    text = simulated.read_text().replace(" {patterns: [A, C]}", wrong)
    simulated.write_text(text)
    with pytest.raises(ConfigErrors) as caught:
        reader.read([str(simulated)]).config()
    assert str(caught.value).splitlines() == [
        f"{simulated}:9: tiers.standard.patterns: 'E' is not a pattern",
        "  known: A, B, C, D, A+EAGLE",
        "  mend:  patterns: [C, A]",
        f"{simulated}:10: tiers.standard.prio: is no key of a tier",
        "  mend:  priority",
    ]


def test_a_key_that_is_missing_is_told_at_the_line_of_its_section(tmp_path: Path):
    (file,) = written(tmp_path, "# a remark\n\ntiers:\n  standard:\n    priority: 5\n")
    source = reader.read([file])
    assert source.place(("tiers", "standard", "patterns")) == (file, 4)
    assert source.place(("models",)) == (file, 0)


def test_a_later_file_adds_keys_and_replaces_values(tmp_path: Path):
    files = written(
        tmp_path,
        "router: {port: 1, name: r}\ntiers: {a: {patterns: [A, C]}}\n",
        "router: {port: 2}\n\ntiers: {a: {patterns: [B]}, b: {}}\n",
    )
    source = reader.read(files)
    assert source.tree == {"router": {"port": 2, "name": "r"}, "tiers": {"a": {"patterns": ["B"]}, "b": {}}}
    assert source.place(("router", "port")) == (files[1], 1)
    assert source.place(("router", "name")) == (files[0], 1)
    assert source.place(("tiers", "b")) == (files[1], 3)


def test_faults_come_in_the_order_of_the_files(tmp_path: Path):
    files = written(tmp_path, "x: 1\ny: 2\n", "z: 3\n")
    source = reader.read(files)
    lines = list(source.lines([Fault(("z",), "last"), Fault(("y",), "second"), Fault(("x",), "first")]))
    assert lines == [f"{files[0]}:1: x: first", f"{files[0]}:2: y: second", f"{files[1]}:1: z: last"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "{file}: is empty. Mend: copy one from configs/"),
        ("- a\n- b\n", "{file}:1: a configuration is a mapping of keys\n  mend:  models:"),
        (
            "models:\n  a: 1\n  b: 2\n  a: 3\n",
            "{file}:4: models.a is there twice, first on line 2\n  mend:  keep one",
        ),
        ("models: {a: 1\ntiers: 2\n", "{file}:2: is not YAML:"),
        ("a: 'x\n", "{file}:"),
        ("a: b: c\n", "{file}:1: is not YAML:"),
        ("a: 1\n---\nb: 2\n", "{file}:2: is not YAML:"),
        ("a: !!python/object:os.system {}\n", "{file}:1:"),
        ("a: *nobody\n", "{file}:1: is not YAML:"),
        ("? [a, b]\n: 1\n", "{file}:1: a key is a word, not a list or a mapping"),
        ("a: &a\n  b: *a\n", "{file}:1: an anchor holds itself"),
        ("a: 2024-99-99\n", "{file}:1: '2024-99-99' cannot be read:"),
        ("a: \x07\n", "{file}"),
    ],
)
def test_what_is_no_configuration_file_is_told_with_its_line(tmp_path: Path, text: str, told: str):
    (file,) = written(tmp_path, text)
    with pytest.raises(reader.FileFault) as caught:
        reader.read([file])
    assert str(caught.value).startswith(told.format(file=file))
    assert len(str(caught.value).splitlines()) <= 2


def test_a_file_that_is_cut_off_anywhere_is_a_configuration_or_a_fault_and_nothing_else(tmp_path: Path):
    """A router that runs reads files that somebody is writing: it must never end of it."""
    whole = files("diplex_core.config").joinpath("default.yaml").read_bytes()
    cuts = {len(b"".join(whole.splitlines(True)[:line])) for line in range(60)} | set(
        range(0, len(whole), 41)
    )
    file, right = tmp_path / "a.yaml", 0
    for cut in cuts:
        file.write_bytes(whole[:cut])
        with suppress(reader.FileFault, ConfigErrors):
            reader.read([str(file)]).config()
            right += 1
    assert 0 < right < len(cuts)


def test_a_file_that_is_not_there_is_told(tmp_path: Path):
    with pytest.raises(
        reader.FileFault, match=r"nothing\.yaml: No such file or directory\. Mend: --config FILE"
    ):
        reader.read([str(tmp_path / "nothing.yaml")])


def test_a_file_that_is_not_text_is_told(tmp_path: Path):
    file = tmp_path / "a.yaml"
    file.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(reader.FileFault, match="is not text in UTF-8"):
        reader.read([str(file)])


def test_anchors_and_merges_are_read_as_yaml_says(tmp_path: Path):
    (file,) = written(tmp_path, "a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  y: 3\nc: *a\nd: {<<: [{x: 5}, *a]}\n")
    source = reader.read([file])
    assert source.tree["b"] == {"x": 1, "y": 3}
    assert source.tree["c"] == {"x": 1, "y": 2}
    assert source.tree["d"] == {"x": 5, "y": 2}
    assert source.place(("b", "y")).line == 4
    assert source.place(("b", "x")).line == 1


def test_without_a_file_it_is_the_embedded_configuration():
    config = reader.read([]).config()
    assert [worker.name for worker in config.workers] == ["cpu0", "cpu1", "pkg0", "pkg1"]
    assert [worker.port for worker in config.workers] == [7610, 7611, 7612, 7613]
    assert config.rules.default_model == "qwen2.5-72b-instruct"
    assert list(config.rules.tiers) == ["interactive", "standard", "longform", "bulk"]


def test_options_lie_on_top_and_leave_the_files_as_they_are(simulated: Path):
    source = reader.read([str(simulated)])
    assert source.extended({"router": {"port": 9}}).config().router.port == 9
    assert source.config().router.port == 7600


TENANT = "tenants: {acme: {api_key_file: keys/acme}}\n"


def with_a_key_file(simulated: Path) -> reader.Source:
    tenant = simulated.with_name("tenants.yaml")
    tenant.write_text(TENANT)
    return reader.read([str(simulated), str(tenant)])


def test_a_key_files_path_starts_where_the_file_that_names_it_is(simulated: Path):
    folder = simulated.parent / "elsewhere"
    folder.mkdir()
    named = folder / "tenants.yaml"
    named.write_text("tenants: {acme: {api_key_file: acme.key}, bcme: {api_key_file: /run/bcme}}\n")
    source = reader.read([str(simulated), str(named)])
    assert source.key_files() == {"acme": folder / "acme.key", "bcme": Path("/run/bcme")}


@pytest.mark.parametrize("written", ["sesame", "sesame\n", "sesame\r\n"])
def test_a_tenants_key_is_its_files_line(simulated: Path, written: str):
    key = simulated.parent / "keys" / "acme"
    key.parent.mkdir()
    key.write_text(written)
    (tenant,) = with_a_key_file(simulated).config({}).rules.tenants
    assert tenant.api_key == "sesame"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "{key}: No such file or directory"),
        (b"", "{key} is empty"),
        (b" \n", "{key} is empty"),
        (b"\xff\xfe", "{key} is not text in UTF-8"),
        (b"one\ntwo\n", "{key} is not one line with the key alone"),
        (b" one\n", "{key} is not one line with the key alone"),
    ],
)
def test_a_key_file_without_a_key_is_told_with_its_line(simulated: Path, content: bytes | None, told: str):
    key = simulated.parent / "keys" / "acme"
    key.parent.mkdir()
    if content is not None:
        key.write_bytes(content)
    source = with_a_key_file(simulated)
    with pytest.raises(ConfigErrors) as caught:
        source.config(key_files=True)
    assert str(caught.value).splitlines() == [
        f"{source.files[1]}:1: tenants.acme.api_key_file: {told.format(key=key)}",
        f"  mend:  printf %s KEY > {key}",
    ]
    assert source.config().rules.tenants[0].api_key is None, "parts that need no keys read none"


def test_a_key_file_that_may_not_be_read_is_told(simulated: Path, monkeypatch: pytest.MonkeyPatch):
    source, read = with_a_key_file(simulated), Path.read_text

    def forbidden(path: Path, *args: str, **more: str) -> str:
        if path.name == "acme":
            raise PermissionError(13, "Permission denied")
        return read(path, *args, **more)

    monkeypatch.setattr(Path, "read_text", forbidden)
    with pytest.raises(ConfigErrors, match=r"acme: Permission denied\n  mend:  chmod u\+r "):
        source.config({})


def test_a_tokenizer_lies_beside_the_file_that_names_it(tmp_path: Path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "tokenizer.json").write_text("{}")
    (file,) = written(tmp_path, "models: {a: {tokenizer: m}, b: {tokenizer: qwen3}, c: {}, d: }\n")
    assert reader.read([file]).tokenizers() == {"a": tmp_path / "m", "b": "qwen3"}


def test_a_tokenizer_that_is_not_there_is_told_with_its_line(tmp_path: Path):
    (file,) = written(tmp_path, "models:\n  a:\n    tokenizer: m\n")
    with pytest.raises(reader.FileFault) as caught:
        reader.read([file]).tokenizers()
    assert str(caught.value).startswith(
        f"{file}:3: models.a.tokenizer: there is no {tmp_path / 'm'} to count"
    )
