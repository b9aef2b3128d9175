"""The service's systemd unit, as the verbs use it.

They work with the environment, the credentials and the user that systemd gives to the service, so that they
see what the service will see. A verb uses the unit if it would read the same configuration file as the
service. Without systemd, or without the unit, a verb of root still becomes the owner of the state directory.
"""
