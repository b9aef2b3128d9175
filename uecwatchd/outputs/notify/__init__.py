"""Messages about outcomes: what they say, and the ways on which they are delivered."""
