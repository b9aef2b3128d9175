"""Records from the values of a newer version of this program, without those that are unknown here."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Kind = TypeVar("Kind", bound="DataclassInstance")


def make_known(kind: type[Kind], values: Mapping[str, Any]) -> Kind:
    """Return a record of those values that it has fields for. Raises TypeError if one is missing."""
    names = kind.__dataclass_fields__
    return kind(**{name: value for name, value in values.items() if name in names})
