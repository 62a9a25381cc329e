"""Importing transports loads an HTTP library only when it is used."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("line", "absent"),
    [
        ("import llm_council.transports", "httpx aiohttp requests anyio urllib3 trio"),
        ("from llm_council.transports import HttpRequest, translate", "httpx aiohttp requests anyio urllib3 trio"),
        ("from llm_council.transports import HttpxTransport; HttpxTransport()", "aiohttp requests urllib3"),
        ("from llm_council.transports import new_client; new_client()", "aiohttp requests urllib3"),
        ("from llm_council.transports import RequestsTransport; RequestsTransport()", "aiohttp httpx trio"),
    ],
)
def test_http_libraries_are_imported_on_first_use(python, line, absent):
    ran = python(f"import sys\n{line}\nprint(*[name for name in {absent.split()} if name in sys.modules])")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == ""


def test_every_public_name_is_listed_and_can_be_imported():
    from llm_council import transports

    assert sorted(set(dir(transports)) & set(transports.__all__)) == sorted(transports.__all__)
    for name in transports.__all__:
        assert getattr(transports, name) is not None
    with pytest.raises(AttributeError, match="NoSuchName"):
        _ = transports.NoSuchName
