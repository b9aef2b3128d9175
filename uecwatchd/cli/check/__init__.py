"""The verb `check`: a look at everything that the service needs, with what to do about what is wrong."""
