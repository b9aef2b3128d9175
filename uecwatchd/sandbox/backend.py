"""All that requests are answered from: state on disk, rules, clock and faults."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from uecwatchd.sandbox.faults import Faults
from uecwatchd.sandbox.rules.generations import GenerationRules
from uecwatchd.sandbox.state.identity import Identity
from uecwatchd.sandbox.state.machines import Machines
from uecwatchd.sandbox.state.parameters import ParameterStore
from uecwatchd.sandbox.state.registry import Registry
from uecwatchd.sandbox.state.store import Store


@dataclass(frozen=True, slots=True)
class Backend:
    """One running cloud, as its operations and actions see it."""

    identity: Identity
    rules: GenerationRules
    store: Store
    registry: Registry
    parameters: ParameterStore
    clock: Callable[[], datetime]  # aware of its zone
    faults: Faults = field(default_factory=Faults)
    administrator: bool = True  # whether the one user may do what only administrators may
    machines: Machines | None = None  # None: instances are recorded, and nothing boots

    @property
    def secrets(self) -> dict[str, str]:
        """Secret keys by access key."""
        return {self.identity.access_key: self.identity.secret_key}
