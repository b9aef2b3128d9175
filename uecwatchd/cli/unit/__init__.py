"""The service's systemd unit, as the verbs see it.

They work with the environment, the credentials and the user that systemd gives to the service, so that what
they find is what the service will find. A verb goes by the unit if it would read the configuration file that
the service reads. Where systemd does not run, or has no such unit, a verb of root's still becomes the user
that the state directory belongs to.
"""
