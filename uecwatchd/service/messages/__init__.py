"""Messages to people: the announcer writes what is due into the outbox, and the messenger delivers it."""
