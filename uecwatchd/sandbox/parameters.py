"""The parameters of a Query API request, and the refusal of those an action does not know."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from uecwatchd.sandbox.realm import Realm
from uecwatchd.sandbox.refusal import Refused
from uecwatchd.sandbox.reply import Payload

Parameters = Mapping[str, str]

# What a request of any action carries.
COMMON = frozenset(
    {"Action", "Version", "AWSAccessKeyId", "SignatureVersion", "SignatureMethod", "Timestamp", "Signature"}
)
FILTER = frozenset({"Filter.N.Name", "Filter.N.Value.N"})
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Action:
    """One verb of the API. `known` are its parameters' names, with N for a number."""

    run: Callable[[Realm, Parameters], Payload]
    known: frozenset[str]


def action(run: Callable[[Realm, Parameters], Payload], *known: str, filters: bool = False) -> Action:
    return Action(run, frozenset(known) | COMMON | (FILTER if filters else frozenset()))


def refuse_unknown(parameters: Parameters, known: frozenset[str]) -> None:
    for name, value in parameters.items():
        if re.sub(r"\.[1-9]\d*(?=\.|$)", ".N", name) not in known:
            raise Refused("UnknownParameter", f"The parameter {name} is not recognized")
        if CONTROL.search(value):
            raise Refused("InvalidParameterValue", f"The parameter {name} has control characters in it")


def required(parameters: Parameters, name: str) -> str:
    value = parameters.get(name, "")
    if not value:
        raise Refused("MissingParameter", f"The request must contain the parameter {name}")
    return value


def listed(parameters: Parameters, name: str) -> tuple[str, ...]:
    """The values of `Name.1`, `Name.2` … in the order of their numbers."""
    found = {}
    for key, value in parameters.items():
        stem, _, number = key.rpartition(".")
        if stem == name and number.isdecimal():
            found[int(number)] = value
    return tuple(found[number] for number in sorted(found))


def numbered(parameters: Parameters, name: str) -> tuple[Parameters, ...]:
    """The groups `Name.1.X`, `Name.2.X` … in the order of their numbers, each as a mapping from X."""
    found: dict[int, dict[str, str]] = {}
    for key, value in parameters.items():
        number, _, rest = key.removeprefix(f"{name}.").partition(".")
        if key.startswith(f"{name}.") and number.isdecimal() and rest:
            found.setdefault(int(number), {})[rest] = value
    return tuple(found[number] for number in sorted(found))


def read_filters(parameters: Parameters) -> dict[str, tuple[str, ...]]:
    return {required(group, "Name"): listed(group, "Value") for group in numbered(parameters, "Filter")}


def passes(facts: Mapping[str, str], filters: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether each filter has a value among those asked for. A filter nobody knows is refused."""
    for name in filters:
        if name not in facts and not name.startswith("tag:"):
            raise Refused("InvalidParameterValue", f"The filter '{name}' is invalid")
    return all(facts.get(name) in values for name, values in filters.items())
