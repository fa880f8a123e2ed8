"""Every format of a trace is read by its content, and a bad line is refused with its place and a mend."""

import gzip
import io
import sys
from pathlib import Path

import pytest

from diplex_cli.failures import UsageError
from diplex_cli.replay.traces import Row, read

ROOT = Path(__file__).parents[2]
PACKED = "arrival_s,input_tokens,output_tokens\n0.0,4808,10\n0.5,3180,8\n"
AZURE = """\
TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:03.9799600,4808,10
2023-11-16 18:17:04.0319600,3180,8
"""
AZURE_2024 = """\
TIMESTAMP,ContextTokens,GeneratedTokens
2024-05-10 00:00:00.009930+00:00,2162,5
2024-05-10 00:00:00.109930+00:00,2399,6
"""
SERVEGEN = "arrival_s,input_tokens,output_tokens,reasoning_tokens\n1.0,1230,13447,13097\n1.5,89,4510,4104\n"
MOONCAKE = """\
{"timestamp":27482,"input_length":6955,"output_length":52,"hash_ids":[46,47,48]}
{"timestamp":30535,"input_length":6472,"output_length":26,"hash_ids":[46,2353]}
"""
BAILIAN = """\
{"chat_id": 159, "parent_chat_id": -1, "timestamp": 61.114, "input_length": 40, "output_length": 132,\
 "type": "text", "turn": 1, "hash_ids": [1089, 1090, 1091]}
{"chat_id": 160, "parent_chat_id": 159, "timestamp": 62.5, "input_length": 60, "output_length": 80,\
 "type": "text", "turn": 2, "hash_ids": [1089, 1090, 1092, 1093]}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "a-trace"


@pytest.mark.parametrize(
    ("text", "format", "block_tokens", "rows"),
    [
        (PACKED, "Azure", 0, [(0.0, 4808, 10, ()), (0.5, 3180, 8, ())]),
        (AZURE, "Azure", 0, [(0.0, 4808, 10, ()), (0.052, 3180, 8, ())]),
        (AZURE_2024, "Azure", 0, [(0.0, 2162, 5, ()), (0.1, 2399, 6, ())]),
        (SERVEGEN, "ServeGen", 0, [(0.0, 1230, 13447, ()), (0.5, 89, 4510, ())]),
        (MOONCAKE, "Mooncake", 512, [(0.0, 6955, 52, (46, 47, 48)), (3.053, 6472, 26, (46, 2353))]),
        (BAILIAN, "Bailian", 16, [(0.0, 40, 132, (1089, 1090, 1091)),
                                  (1.386, 60, 80, (1089, 1090, 1092, 1093))]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("zipped", [False, True])
def test_a_format_is_told_by_its_content(
    file: Path,
    text: str,
    format: str,
    block_tokens: int,
    rows: list[tuple[float, int, int, tuple[int, ...]]],
    zipped: bool,
):
    file.write_bytes(gzip.compress(text.encode()) if zipped else text.encode())
    trace = read(str(file))
    assert (trace.name, trace.format, trace.block_tokens, trace.total) == ("a-trace", format, block_tokens, 2)
    assert [(pytest.approx(row.arrival, abs=1e-5), row.input_tokens, row.output_tokens, row.hash_ids)
            for row in trace.rows] == rows  # fmt: skip


def test_rows_come_in_the_order_of_arrival_and_the_limit_takes_the_first_to_arrive(file: Path):
    file.write_text("arrival_s,input_tokens,output_tokens\n9,1,1\n5,2,2\n7,3,3\n")
    trace = read(str(file), limit=2)
    assert trace.rows == (Row(1, 0.0, 2, 2), Row(2, 2.0, 3, 3))
    assert trace.total == 3


def test_columns_may_stand_in_any_order_and_others_beside_them(file: Path):
    file.write_text("output_tokens,who,arrival_s,input_tokens\n10,x,0,4808\n")
    assert read(str(file)).rows == (Row(0, 0.0, 4808, 10),)


def test_a_trace_is_read_from_standard_input(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(MOONCAKE.encode()))))
    trace = read("-")
    assert (trace.name, trace.total) == ("stdin", 2)


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        (PACKED + "x,1,1\n", 4, "could not convert string to float: 'x'"),
        (PACKED + "nan,1,1\n", 4, "nan is no time"),
        (PACKED + "2.0,1\n", 4, "2 fields where 3 are needed"),
        (PACKED + "\n2.0,1.5,1\n", 5, "invalid literal for int() with base 10: '1.5'"),
        (PACKED + "2.0,-1,1\n", 4, "-1 is no number of tokens"),
        (AZURE + "yesterday,1,1\n", 4, "Invalid isoformat string"),
        (MOONCAKE + "{nothing\n", 3, "no JSON: "),
        (MOONCAKE + "[1]\n", 3, "no JSON object"),
        (MOONCAKE + '{"timestamp": 1, "input_length": 2}\n', 3, "output_length is missing"),
        (MOONCAKE + '{"timestamp": null, "input_length": 2, "output_length": 1}\n', 3, "float() argument"),
        (MOONCAKE + '{"timestamp": 1, "input_length": "2", "output_length": 1}\n', 3, "'2' is no number of"),
        (BAILIAN + '{"timestamp": 1, "input_length": 2, "output_length": 1, "hash_ids": ["a"]}\n', 3,
         "hash_ids is no list of whole numbers"),
    ],
)  # fmt: skip
def test_a_bad_line_is_refused_with_its_place_its_reason_and_a_mend(
    file: Path, text: str, line: int, reason: str
):
    file.write_text(text)
    with pytest.raises(UsageError) as raised:
        read(str(file))
    message = str(raised.value)
    assert message.startswith(f"{file}:{line}: {reason}")
    assert message.endswith("Mend: correct the line, or take it out")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", " is empty. Mend: CSV of Azure"),
        (b"\n\n", " is empty. Mend: CSV of Azure"),
        (b"when,what\n1,2\n", ":1: no trace begins with 'when,what'. Mend: CSV of Azure"),
        (b"arrival_s,input_tokens,output_tokens\n", " has no requests, only a heading. Mend: CSV of Azure"),
        (b"\x89PNG\r\n", " is not text in UTF-8. Mend: CSV of Azure"),
        (gzip.compress(PACKED.encode())[:30], ". Mend: fetch the file again"),
    ],
)
def test_what_is_no_trace_is_refused_with_the_formats_that_are(file: Path, content: bytes, told: str):
    file.write_bytes(content)
    with pytest.raises(UsageError) as raised:
        read(str(file))
    assert str(raised.value).startswith(str(file)) and told in str(raised.value)


@pytest.mark.parametrize(
    ("name", "format", "total"),
    [
        ("azure_code_2023.csv.gz", "Azure", 8819),
        ("mooncake_conversation_first_half.jsonl.gz", "Mooncake", 5606),
        ("mooncake_synthetic_first_half.jsonl.gz", "Mooncake", 1925),
        ("servegen_deepseek_r1_a.csv.gz", "ServeGen", 7179),
    ],
)
def test_every_trace_of_the_repository_is_read(name: str, format: str, total: int):
    trace = read(str(ROOT / "benchmarks/traces" / name))
    assert (trace.format, trace.total, len(trace.rows)) == (format, total, total)
    assert trace.rows[0].arrival == 0.0
    # A hash id for each block, the last one partly filled: the block size is the right one.
    for row in trace.rows if trace.block_tokens else ():
        assert len(row.hash_ids) == -(-row.input_tokens // trace.block_tokens)
