"""One EC2-compatible cloud: what it accepts, who we are there, and how it is asked."""
