"""The verb `check`: checks of everything that the service needs, each with what to do."""
