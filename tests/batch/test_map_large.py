"""Memory does not grow with the number of tasks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Not getrusage(): its maximum counts what the process that forked this one had in memory.
SCRIPT = """\
import pathlib, sys
from llm_council import Council, CouncilConfig
from llm_council.models import GenerateResponse, Usage
from llm_council.providers.base import ProviderAdapter
from llm_council.models import ProviderCapabilities

class Seat(ProviderAdapter):
    name, capabilities = "scripted", ProviderCapabilities()
    async def generate(self, request):
        return GenerateResponse(text="42", usage=Usage(input_tokens=10, output_tokens=1))

def kilobytes(name):
    status = dict(line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
    return int(status[name].split()[0])

council = Council([Seat()], config=CouncilConfig(), strategy="single")
assert council.run("warm up").success
before = kilobytes("VmRSS")
answered = 0
for result in council.map((f"What is 6 times {number}?" for number in range(5_000)), ordered=sys.argv[1] == "ordered"):
    answered += result.success
print(answered, (kilobytes("VmHWM") - before) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the memory of a process is read from /proc")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("order", ["ordered", "as completed"])
def test_5000_tasks_take_less_than_50_mb_more_than_one(order: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, order],
        cwd=ROOT, env={**os.environ}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    answered, megabytes = map(int, done.stdout.split())
    assert answered == 5_000
    assert megabytes < 50
