"""The service's systemd unit, as the verbs see it.

They work with the environment, the credentials and the user that systemd gives to the service, so that what
they find is what the service will find. A verb goes by the unit if it would read the configuration file that
the service reads. Where systemd does not run, or has no such unit, a verb of root's still becomes the user
that the state directory belongs to.
"""

from uecwatchd.unit.asked import DEFAULT_NAME, Unasked, Unit, ask, unit_for
from uecwatchd.unit.given import take_environment
from uecwatchd.unit.reach import Need, Obstacle, bound, drop_in, obstacles
from uecwatchd.unit.user import become, take_user

__all__ = [
    "DEFAULT_NAME",
    "Need",
    "Obstacle",
    "Unasked",
    "Unit",
    "ask",
    "become",
    "bound",
    "drop_in",
    "obstacles",
    "take_environment",
    "take_user",
    "unit_for",
]
