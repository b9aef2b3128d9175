"""One EC2-compatible cloud: its dialect, our credentials there, its clients, the meaning of its errors."""
