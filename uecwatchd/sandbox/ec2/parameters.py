"""The parameters of a Query API request, and the refusal of unknown ones."""

import re
from collections.abc import Callable, Mapping

from uecwatchd.sandbox.backend import Backend
from uecwatchd.sandbox.errors import ApiError
from uecwatchd.sandbox.http.head import CONTROL
from uecwatchd.sandbox.http.responses import Payload

Parameters = Mapping[str, str]
Action = Callable[[Backend, Parameters], Payload]

NUMBER = re.compile(r"\.[1-9]\d*(?=\.|$)")


def refuse_unknown(parameters: Parameters, known: frozenset[str], *, complaint: str) -> None:
    """Refuse parameters outside `known`, whose names have N for a number.

    `complaint` is `ErrorRules.unbound_parameter`.
    """
    unknown = [name for name in parameters if NUMBER.sub(".N", name) not in known]
    if unknown:
        fields = "".join(f"{name} = {CONTROL.sub('?', parameters[name])}\n" for name in unknown)
        raise ApiError("UnknownParameter", complaint.format(name=unknown[0], fields=fields))
    for name, value in parameters.items():
        if CONTROL.search(value):
            raise ApiError("InvalidParameterValue", f"The parameter {name} has control characters in it")


def required(parameters: Parameters, name: str) -> str:
    value = parameters.get(name, "")
    if not value:
        raise ApiError("MissingParameter", f"The request must contain the parameter {name}")
    return value


def read_list(parameters: Parameters, name: str) -> tuple[str, ...]:
    """Return the values of `Name.1`, `Name.2` … in the order of their numbers."""
    found = {}
    for key, value in parameters.items():
        stem, _, number = key.rpartition(".")
        if stem == name and number.isdecimal():
            found[int(number)] = value
    return tuple(found[number] for number in sorted(found))


def read_groups(parameters: Parameters, name: str) -> tuple[Parameters, ...]:
    """Return the groups `Name.1.X`, `Name.2.X` … in the order of their numbers, each as a mapping from X."""
    found: dict[int, dict[str, str]] = {}
    for key, value in parameters.items():
        number, _, rest = key.removeprefix(f"{name}.").partition(".")
        if key.startswith(f"{name}.") and number.isdecimal() and rest:
            found.setdefault(int(number), {})[rest] = value
    return tuple(found[number] for number in sorted(found))


def read_filters(parameters: Parameters) -> dict[str, tuple[str, ...]]:
    return {required(group, "Name"): read_list(group, "Value") for group in read_groups(parameters, "Filter")}


def matches(facts: Mapping[str, str], filters: Mapping[str, tuple[str, ...]]) -> bool:
    """Tell if each filter has a value among those asked for. Raises `ApiError`: for an unknown filter."""
    for name in filters:
        if name not in facts and not name.startswith("tag:"):
            raise ApiError("InvalidParameterValue", f"The filter '{name}' is invalid")
    return all(facts.get(name) in values for name, values in filters.items())
