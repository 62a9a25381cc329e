"""Turn provider names, instances and classes into seats, each with an adapter."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Self, TypeAlias

import attrs

from llm_council._plugins import NO_PLUGINS, hidden_hint, hidden_names
from llm_council._seats.configured import ConfiguredProviders, for_each, wrapped_names
from llm_council._seats.hints import hint_for, seat_names, split_count, split_persona
from llm_council.config import CouncilConfig, Seat, origin_of
from llm_council.errors import ConfigurationError, InvalidOption, MissingCredentials, UnknownProvider
from llm_council.middleware import Retry
from llm_council.middleware.wrapper import providers_within
from llm_council.models import Plan, SeatSpec
from llm_council.models._paths import expand_user
from llm_council.providers import registry
from llm_council.providers.base import ProviderAdapter

__all__ = ["Seating", "Sitter", "origin_of_fault"]

Sitter: TypeAlias = str | Seat | ProviderAdapter | type[ProviderAdapter]
"""An item of ``Council(providers=...)``: one seat, or several for ``name:count``."""

# Fields of ``ModelProfile`` that a seat has too.
_STORED_FACTS = ("prose_first", "plain_prompts", "grammar", "warning")

_log = logging.getLogger("llm_council")


@attrs.frozen(kw_only=True)
class Seating:
    """The seats of a council. It has no state of a run.

    Attributes:
        specs: the seats in order, as plain data for plans.
        adapters: the adapter of each seat, by the seat's name.
        providers: each adapter once, by its provider's name.
    """

    specs: tuple[SeatSpec, ...]
    adapters: Mapping[str, ProviderAdapter]
    providers: Mapping[str, ProviderAdapter]

    @classmethod
    def fill(cls, sitters: Sequence[Sitter] | None, config: CouncilConfig) -> Self:
        """Create the seats.

        Args:
            sitters: the ``providers`` of the caller; None takes the configuration's, else those that are available.
            config: the configuration; its ``instances`` may be named too.

        Raises:
            ConfigurationError: a name is unknown, no provider is available, or two seats would have one name.
        """
        wanted = _wanted(sitters, config)
        pool = _Pool(config)
        specs: list[SeatSpec] = []
        adapters: dict[str, ProviderAdapter] = {}
        try:
            all_seats = pool.all_seats(wanted)
        except ConfigurationError as error:
            setting = "providers" if config.providers else "seats"
            origin = origin_of(setting, wanted) if sitters is None else None
            raise error._reword(f"{origin}: {error.message}") if origin else error from None
        for seats in all_seats:
            for seat in seats:
                adapter = pool.adapters[seat.provider]
                if seat.name in adapters:
                    raise InvalidOption(f"two seats would be named {seat.name!r:.80}: write 'name:2' to seat one twice")
                # Stored with the plan: a resumed run must ask in the same way, even if the profiles have changed.
                profile = adapter._profile_of(seat.model)
                facts: dict[str, Any] = {}
                if profile is not None:
                    facts = {field: getattr(profile, field) for field in _STORED_FACTS}
                specs.append(attrs.evolve(seat, **facts))
                adapters[seat.name] = adapter
        return cls(specs=tuple(specs), adapters=adapters, providers=pool.adapters)

    def reseat(self, specs: Sequence[SeatSpec], config: CouncilConfig) -> Self:
        """Create the seats of an earlier run: from this council where seat and provider match, else by provider name.

        Args:
            specs: the seats of the plan of that run.
            config: the configuration; its ``instances`` may be named too.

        Raises:
            ConfigurationError: a provider of that run is unknown.
        """
        pool = _Pool(config)
        providers = dict(self.providers)
        adapters: dict[str, ProviderAdapter] = {}
        here = {spec.name: spec.provider for spec in self.specs}
        for spec in specs:
            if spec.provider not in providers:  # the run had another set of providers than this council
                pool.seats(spec.provider)
                providers[spec.provider] = pool.adapters[spec.provider]
            same = here.get(spec.name) == spec.provider
            adapters[spec.name] = self.adapters[spec.name] if same else providers[spec.provider]
        wanted = {spec.provider for spec in specs}
        used = {name: adapter for name, adapter in providers.items() if name in wanted}
        return attrs.evolve(self, specs=tuple(specs), adapters=adapters, providers=used)

    def check(self) -> None:
        """Check that every provider can start: its key is set, its extra is installed.

        Raises:
            MissingCredentials: keys are missing; the message names the variables of all of them.
            ConfigurationError: a provider is not ready; the message says what is missing.
        """
        for_each(lambda adapter: adapter.check(), self.providers.values())
        for spec in self.specs:
            self.adapters[spec.name]._check_model(spec.model)

    def check_deadline(self, plan: Plan) -> None:
        """Check that the deadline of a plan leaves every provider the time that it needs.

        Raises:
            DeadlineTooShort: a provider needs more; the message names the remedy.
        """
        for adapter in {seat.provider: self.adapters[seat.name] for seat in plan.seats}.values():
            adapter._check_deadline(plan.budget.deadline)

    def model_fault(self, provider: str) -> str | None:
        """Return why a model of a provider's seats is known not to be there; None if all may be."""
        for spec in self.specs:
            if spec.provider == provider:
                try:
                    self.adapters[spec.name]._check_model(spec.model)
                except ConfigurationError as error:
                    return error.message
        return None


def origin_of_fault(config: CouncilConfig, names: Sequence[str]) -> str | None:
    """Return the variable, or the file and field, whose value does not fit the seats or names no file; else None."""
    if any(not expand_user(path).exists() for path in config.subagent_paths):
        return origin_of("subagent_paths", config.subagent_paths)
    if config.chair is not None and config.chair not in names:
        return origin_of("chair", config.chair)
    if config.budget.quorum is not None and config.budget.quorum > len(names):
        return origin_of("budget.quorum", config.budget.quorum)
    return None


def _wanted(sitters: Sequence[Sitter] | None, config: CouncilConfig) -> Sequence[Sitter]:
    single = isinstance(sitters, str | Seat | ProviderAdapter | type)
    if sitters is not None and (single or not isinstance(sitters, Iterable)):
        raise InvalidOption(f"providers: expected a list, got {sitters!r:.80}; write [{sitters!r:.80}]")
    wanted: Sequence[Sitter] = (config.providers or config.seats) if sitters is None else sitters
    if sitters is not None and not wanted:
        raise InvalidOption("a council needs a seat: name a provider, such as Council(['local:3'])")
    return wanted or _available_providers(config)


def _available_providers(config: CouncilConfig) -> list[str]:
    """Return the default providers: those whose keys are set, else those of the configuration's tables.

    Raises:
        ConfigurationError: there is none; the message lists the shortest ways on.
    """
    # The embedded model is not among them: its answers are often wrong, and nobody asked for it.
    notes: list[str] = []
    found = list(registry.with_keys()) or _ready(config, notes)
    if not found:
        raise ConfigurationError(_ways_on(notes))
    # A council needs drafts to compare: one provider alone fills three seats.
    chosen = [f"{found[0]}:3"] if len(found) == 1 else found
    _log.info("no providers were named; seating %s", ", ".join(chosen))
    return chosen


def _ready(config: CouncilConfig, notes: list[str]) -> list[str]:
    """Return the configured providers that can start, except those that another one wraps.

    Args:
        config: the configuration.
        notes: gets a line for each provider that cannot start.
    """
    configured, wrapped, ready = ConfiguredProviders(config.instances), wrapped_names(config.instances), []
    for name in config.instances:
        if name in wrapped:
            continue
        try:
            configured.get(name).check()
        except ConfigurationError as error:
            notes.append(error.message if "[providers." in error.message else f"[providers.{name}] {error.message}")
        else:
            ready.append(name)
    return ready


def _ways_on(notes: list[str]) -> str:
    """Return the message for a council without a provider.

    Args:
        notes: further lines about providers that cannot start.
    """
    for name, variable in registry.with_keys_but_no_model().items():
        notes.append(f"{variable} is set, but {name} has no default model: name one, as {name}/MODEL")
    hidden = hidden_names("provider")
    if hidden:
        notes.append(f"{NO_PLUGINS} is set, so these providers are not used: {', '.join(hidden)}")
    embedded = "-p local" if registry.can_embed() else "pip install 'llm-council-sdk[local]', then -p local"
    lines = [
        "no provider is named or configured, and no key is set. The shortest ways on:",
        "  set a key:      OPENROUTER_API_KEY, or another one that `council providers` lists",
        '  name a server:  -p ollama, or in Python Council(["ollama"])',
        f'  try it out:     {embedded}, or in Python Council(["local"]); a small model, often wrong',
    ]
    return "\n".join([*lines, *(f"  note: {note}" for note in notes)])


class _Pool:
    """Holds one adapter for each provider name, created on first use."""

    def __init__(self, config: CouncilConfig) -> None:
        self._config = config
        self._configured = ConfiguredProviders(config.instances)
        self._personas = {seat.name: seat for seat in config.seats if seat.name is not None}
        self._raw: dict[str, ProviderAdapter] = {}
        self._used = Counter[str]()  # names of seats without a count
        self.adapters: dict[str, ProviderAdapter] = {}

    def all_seats(self, sitters: Iterable[Sitter]) -> list[list[SeatSpec]]:
        """Return the seats of each item of ``providers``, without the facts of their profiles.

        Raises:
            MissingCredentials: keys that adapters read at once are missing; names all missing variables of all items.
        """
        try:
            return for_each(self.seats, sitters)
        except MissingCredentials as error:
            missing = [error]
        for adapter in self.adapters.values():
            with suppress(ConfigurationError):
                try:
                    adapter.check()
                except MissingCredentials as error:
                    missing.append(error)
        raise MissingCredentials.joined(missing)

    def seats(self, sitter: Sitter) -> list[SeatSpec]:
        """Return the seats that an item of ``providers`` stands for."""
        if isinstance(sitter, str):
            text, persona = split_persona(sitter, self._personas)
            if persona is None:
                return self._by_name(text)
            own = self._personas[persona]
            if not text or text.startswith(":"):  # "@sceptic", or "@sceptic:2"
                text = f"{own.provider}{text}"
            return self._with_persona(attrs.evolve(own, provider=text))
        if isinstance(sitter, Seat):
            return self._with_persona(sitter)
        return self._of_adapter(sitter)

    def _with_persona(self, seat: Seat) -> list[SeatSpec]:
        place = seat.provider
        specs = self._by_name(place, seat.name) if isinstance(place, str) else self._of_adapter(place, seat.name)
        return [
            attrs.evolve(spec, instructions=(seat.instructions or "").strip(), temperature=seat.temperature)
            for spec in specs
        ]

    def _of_adapter(self, sitter: ProviderAdapter | type[ProviderAdapter], called: str | None = None) -> list[SeatSpec]:
        adapter = self._instantiate(sitter) if isinstance(sitter, type) else sitter
        if not isinstance(adapter, ProviderAdapter):
            raise InvalidOption(f"providers: a name, a Seat, a ProviderAdapter or its class, got {sitter!r:.80}")
        provider = self._register(adapter)
        return [SeatSpec(name=name, provider=provider) for name in seat_names(called or provider, None, self._used)]

    def _by_name(self, text: str, called: str | None = None) -> list[SeatSpec]:
        """Return the seats of a text, as ``name``, ``name/model`` or ``name:count``.

        Args:
            text: the text.
            called: the name of the seats; None takes the text without its count.
        """
        seat, count = split_count(text)
        provider, slash, model = seat.partition("/")
        if not provider or (slash and not model):
            raise InvalidOption(f"providers: expected name, name/model or name:count, got {text!r:.80}")
        if provider not in self.adapters:
            try:
                self._put(provider, self._configured.get(provider))
            except UnknownProvider as error:
                if hidden_hint("provider", provider):  # the message says why it is not there
                    raise
                hint = hint_for(text.strip(), {*registry.provider_names(), *self._config.instances})
                if provider in self._personas:
                    hint = f"a persona is written '@{provider}', or behind a provider: 'openai@{provider}'"
                raise error._reword(f"no provider is named {provider!r:.80}; {hint}") if hint else error from None
        names = seat_names(called or seat, count, self._used)
        return [SeatSpec(name=name, provider=provider, model=model or None) for name in names]

    def _instantiate(self, cls: type[Any]) -> ProviderAdapter:
        if not issubclass(cls, ProviderAdapter):
            raise InvalidOption(f"providers: {cls.__qualname__} is not a ProviderAdapter")
        try:
            return cls()
        except TypeError as error:
            raise InvalidOption(f"providers: {cls.__qualname__}() failed: {error}; pass an instance") from None

    def _register(self, adapter: ProviderAdapter) -> str:
        """Register an instance under its own name, or under a numbered one if another instance has that name."""
        name = getattr(adapter, "name", None)
        if not isinstance(name, str) or not name:
            raise InvalidOption(f'providers: {type(adapter).__qualname__} has no name: set name = "..." on the class')
        # By identity: the same instance may sit twice, and another one of the same name may have other settings.
        free, number = name, 1
        while self._raw.get(free, adapter) is not adapter:
            number += 1
            free = f"{name}-{number}"
        if free not in self._raw:
            self._put(free, adapter)
        return free

    def _put(self, name: str, adapter: ProviderAdapter) -> None:
        self._raw[name] = adapter
        policy = self._config.retry
        # One retry loop for each call: two of them would multiply their attempts.
        retries = any(isinstance(provider, Retry) for provider in providers_within(adapter))
        # Without retries as well: in a mapping over many tasks it sends refused calls again, which are no retries.
        self.adapters[name] = adapter if retries else Retry(adapter, policy)
