"""The page that the guide shows is the one that the command prints."""

import subprocess
import sys
from pathlib import Path

GUIDE = Path(__file__).parents[2] / "docs/guide/plan.md"
COMMAND = "diplex plan qwen2.5-72b --gpu b200 --pattern A --batch 16 --context 32k"


def test_the_guide_shows_what_the_command_prints():
    shown = GUIDE.read_text().partition(f"$ {COMMAND} --plot plan.svg\n")[2].partition("```")[0]
    words = COMMAND.split()[1:]
    done = subprocess.run([sys.executable, "-m", "diplex_cli", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert shown.rstrip() == done.stdout.rstrip()
