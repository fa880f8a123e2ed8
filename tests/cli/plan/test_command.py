"""`diplex plan`: exit codes, and wrong asks told in one or two lines."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import diplex_cli.plan
from diplex_cli.main import main

QWEN = "qwen2.5-72b"


def llama(**more: Any) -> str:
    """The config.json of Llama-3.1-405B, or of something larger."""
    shape: dict[str, Any] = {
        "model_type": "llama",
        "num_hidden_layers": 126,
        "hidden_size": 16384,
        "intermediate_size": 53248,
        "num_attention_heads": 128,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
        **more,
    }
    return json.dumps(shape)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "llama-405b.json").write_text(llama())
    (tmp_path / "huge.json").write_text(llama(num_hidden_layers=5000))
    (tmp_path / "experts.json").write_text(llama(num_local_experts=8))
    (tmp_path / "half.json").write_text("{")
    (tmp_path / "folder.png").mkdir()


def test_what_fits_is_fine(capsys: pytest.CaptureFixture[str]):
    words = ["plan", QWEN, "--gpu", "b200", "--pattern", "A", "--batch", "16", "--context", "32k"]
    assert main(words) == 0
    told = capsys.readouterr()
    assert "FITS: 16 sequences × 32,768 tokens" in told.out and told.err == ""


def test_what_does_not_fit_is_not_fine_and_its_page_is_printed(capsys: pytest.CaptureFixture[str]):
    assert main(["plan", QWEN, "--batch", "64", "--context", "32k", "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["fits"], said["nearest"]) == (False, {"batch": 21, "context": 11104})


def test_the_prompt_is_the_context_unless_said(capsys: pytest.CaptureFixture[str]):
    def told(*words: str) -> tuple[int, int]:
        main(["plan", QWEN, "--json", *words])
        said = json.loads(capsys.readouterr().out)
        return said["context"], said["prompt"]

    assert told() == (32768, 32768)
    assert told("--context", "8k") == (8192, 8192)
    assert told("--context", "8k", "--prompt", "2k") == (8192, 2048)
    assert told("--prompt", "64k") == (65536, 65536)


def test_a_small_model_is_planned_with_its_own_context(capsys: pytest.CaptureFixture[str]):
    assert main(["plan", "smollm2-135m", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["context"] == 8192


def test_a_model_may_be_a_config_of_its_own(capsys: pytest.CaptureFixture[str]):
    assert main(["plan", "llama-405b.json", "--gpu", "hgx-b200", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["model"], said["tp"]) == ("llama-405b", 8)
    assert said["patterns"]["A"]["possible"]
    assert "16 parts, which do not divide" in said["patterns"]["C"]["why"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nothing"], "unknown model 'nothing'; known: llama-3.1-70b"),
        ([QWEN, "--gpu", "b100"], "unknown gpu 'b100'; known: b200, h100, h200, hgx-b200"),
        ([QWEN, "--pattern", "E"], "unknown pattern 'E'; known: A, B, C, D, A+EAGLE; nearest: A"),
        ([QWEN, "--weights", "fp3"], "unknown number format 'fp3'; known: bf16"),
        ([QWEN, "--kv-cache", "fp3"], "unknown number format 'fp3'; known: bf16"),
        ([QWEN, "--tp", "3"], "which do not divide the 64 heads and 8 KV heads"),
        ([QWEN, "--tp", "0"], "--tp: '0' is not a whole number from 1"),
        ([QWEN, "--count", "3", "--tp", "2"], "--count 3 is no multiple of --tp 2. Nearest: --tp 1"),
        ([QWEN, "--count", "x"], "--count: 'x' is not a whole number from 1"),
        ([QWEN, "--context", "0"], "--context: '0' is not 1 or more. Mend: --context 32k"),
        ([QWEN, "--context", "many"], "--context: 'many' is no number of tokens. Mend: --context 32k"),
        ([QWEN, "--context", "200k"], "reads at most 131,072 tokens, not 204,800. Nearest: --context 131072"),
        ([QWEN, "--batch", "-1"], "--batch: '-1' is not a whole number from 1"),
        ([QWEN, "--batch", "1.5"], "--batch: '1.5' is not a whole number from 1"),
        ([QWEN, "--batch", "9" * 5000], "is not a whole number from 1 to 999,999. Mend: --batch 1"),
        ([QWEN, "--context", "8k", "--prompt", "200k"], "reads at most 131,072 tokens, not 204,800"),
        (["llama-405b.json"], "does not fit into b200's 191.5 GB: weights 2"),
        (["huge.json"], "Nearest: a smaller model: in mxfp4"),
        (["experts.json"], "num_local_experts is 8: a mixture of experts"),
        (["half.json"], "half.json: is not JSON"),
        (["missing.json"], "missing.json: no such file or directory. Mend: the path"),
        ([QWEN, "--gpu", "h100"], "does not fit into h100's 84.9 GB"),
        ([QWEN, "--gpu", "h200", "--pattern", "C"], "pattern C needs two dies and h200 has one"),
        (["smollm2-135m", "--pattern", "D"], "pattern D needs a draft model"),
        ([QWEN, "--plot", "plan.pdf"], "--plot: 'plan.pdf' is neither .png nor .svg. Mend: --plot plan.png"),
        ([QWEN, "--plot", "no/plan.png"], "--plot: there is no folder no. Mend: mkdir -p no"),
    ],
)  # fmt: skip
def test_a_wrong_ask_is_told_in_a_line_or_two_with_its_mend(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
):
    assert main(["plan", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert told in err
    assert len(err.splitlines()) <= 2


def test_a_picture_that_cannot_be_written_is_told(capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("matplotlib")
    assert main(["plan", QWEN, "--plot", "folder.png"]) == 2
    assert "--plot: folder.png: is a directory. Mend:" in capsys.readouterr().err


def test_without_matplotlib_the_mend_is_told_before_the_page(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delitem(sys.modules, "diplex_cli.plan.picture", raising=False)
    monkeypatch.delattr(diplex_cli.plan, "picture", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["plan", QWEN, "--plot", "plan.png"]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "diplex plan --plot needs matplotlib. Mend: pip install 'diplex[plot]'\n")
