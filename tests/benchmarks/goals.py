"""The goals, in one place. A figure is good when it is at most its goal."""

from typing import NamedTuple


class Goal(NamedTuple):
    """What a figure should be.

    Attributes:
        what: what is measured.
        most: the goal.
        unit: the figure's unit; ``x`` is a ratio within one run.
        gross: the short form fails if the figure exceeds ``most`` times this; with None it never fails.
    """

    what: str
    most: float
    unit: str = "x"
    gross: float | None = 2.0


GOALS = {
    "import": Goal("`import llm_council` relative to `import httpx`", 0.25),
    "modules": Goal("modules that `import llm_council` loads, the standard library's included", 40, "modules"),
    "first-council": Goal(
        "import and first `Council` with one HTTP provider relative to `import httpx; httpx.Client()`", 1.15
    ),
    "cli-version": Goal("`council version` relative to `the-llm-council`", 0.25),
    "cli-help": Goal("`council --help` relative to `the-llm-council`", 0.4),
    # Elapsed time of a process of its own: other load on the machine alone can multiply it.
    "page": Goal("from the command `council serve` to its page in a browser", 1500, "ms", gross=4.0),
    "page-memory": Goal("memory of `council serve` while nobody asks", 90, "MiB", gross=1.0),
    "streams-200": Goal(
        "200 streams of `council serve` at once: first word after that of the seat, the slowest", 1000, "ms", gross=4.0
    ),
    "streams-200-lost": Goal("streams of these that lost a word", 0, "streams"),
    "blocking": Goal("blocking call, p50, relative to `httpx.Client`", 1.6),
    "async-1": Goal("async CPU per call, 1 in flight, relative to aiohttp", 3.5),
    "async-32": Goal("async CPU per call, 32 in flight, relative to aiohttp", 3.5),
    "async-256": Goal("async CPU per call, 256 in flight, relative to aiohttp", 3.5),
    "openai-32": Goal("async CPU per call, 32 in flight, relative to the openai SDK", 1.0),
    "openai-256": Goal("async CPU per call, 256 in flight, relative to the openai SDK", 1.0),
    "httpx2-32": Goal("async CPU per call, 32 in flight, relative to httpx2", 1.0),
    "httpx2-256": Goal("async CPU per call, 256 in flight, relative to httpx2", 1.0),
    "retry-http": Goal("CPU of a call through `Retry` relative to the same call without", 1.15),
    # 20, 150 and 500 µs on a machine where a bare call took 52.5 µs; machines differ in that by a factor of four.
    "failover": Goal("CPU that `Failover` adds to a call, in bare calls", 0.4),
    "balance": Goal("CPU that `Balance` adds to a call, in bare calls", 0.4),
    "hedge": Goal("CPU that `Hedge` adds to a call, in bare calls", 0.4),
    "retry-overhead": Goal("CPU that `Retry` adds to a call, in bare calls", 0.4),
    "limit": Goal("CPU that `Limit` adds to a call, in bare calls", 0.4),
    "pace": Goal("CPU that pacing adds to a call, in bare calls", 0.4),
    "cache-write": Goal("CPU that `Cached` adds to a call that it keeps in memory, in bare calls", 2.9),
    "logged": Goal("CPU that `Logged` adds to a call that nobody logs, in bare calls", 0.4),
    "pinned": Goal("CPU that `Pinned` adds to a call, in bare calls", 0.4),
    "traced": Goal("CPU that `Traced` adds to a call, without an exporter, in bare calls", 0.4),
    "hit-memory": Goal("CPU of an answer from the cache in memory, in bare calls", 2.9),
    "hit-sqlite": Goal("CPU of an answer from the cache in SQLite, in bare calls", 9.5),
    "burst": Goal("stream CPU per chunk, in a burst, relative to httpx", 1.5),
    "paced": Goal("stream CPU per chunk, paced, relative to httpx", 1.2),
    "first-chunk": Goal("time to the first chunk, p50, relative to httpx", 1.5),
    "critical-path": Goal("one council, 200 ms per call, relative to its critical path", 1.02),
    # Elapsed time without another client to compare with: other load on the machine alone can double it.
    "at-once-64": Goal("64 councils at once on one `Council` relative to the critical path", 1.5, gross=4.0),
    "store-wall": Goal("one council that is stored, 200 ms per call, relative to the same without", 1.01),
    "store-cpu": Goal("CPU that the store adds to a run relative to a bare journal", 1.3, gross=3.0),
    "cpu-1000": Goal("CPU per run of 1,000 councils at once relative to that of 64", 1.25),
    "memory-1000": Goal("memory per run, 1,000 councils at once", 60, "KiB"),
    "memory-waiting": Goal("memory per run beside its connections, where all of them wait", 100, "KiB"),
    "memory-batch": Goal("memory per run, where all of them wait for scripted seats, without HTTP", 100, "KiB"),
    "failed-1000": Goal("runs that failed, of 1,000 at once", 0, "runs"),
    "cpu-run": Goal("CPU of a council run, zero latency, relative to `the-llm-council`", 0.10),
    "cpu-by-hand": Goal(
        "CPU of a council run, zero latency, relative to one that is written by hand over aiohttp", 3.5
    ),
    "cpu-poll": Goal("CPU of `poll` relative to `synthesize`, three scripted seats", 0.6, gross=1.5),
    "many-tasks": Goal("2,000 tasks of 2 s, refused above 100 at a time, relative to the ideal", 1.3, gross=1.5),
    "many-tasks-failed": Goal("tasks of these that failed", 0, "tasks"),
    "map-single": Goal(
        "CPU of a `single` run in `map` relative to a plain gather over `arun`, scripted", 1.0, gross=1.5
    ),
    "map-council": Goal("CPU of a three-seat run in `map` relative to a gather, scripted", 1.0, gross=1.5),
    # Figures of one machine, of which others differ: 600 and 300 runs a second of one core.
    "map-single-cpu": Goal("CPU of a `single` run in `map`, scripted", 1670, "µs", gross=4.0),
    "map-council-cpu": Goal("CPU of a three-seat run in `map`, scripted", 3330, "µs", gross=4.0),
    "map-memory": Goal("memory that `map` takes over 100,000 tasks", 50, "MiB", gross=1.0),
    "soak-memory": Goal("soak: memory gained after warm-up, per 1,000 runs", 64, "KiB"),
    "soak-sockets": Goal("soak: sockets and files gained", 0, "gained"),
    "soak-threads": Goal("soak: threads gained", 0, "gained"),
    "soak-tasks": Goal("soak: tasks gained", 0, "gained"),
}
