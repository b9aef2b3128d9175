"""One EC2-compatible cloud: its dialect, our credentials there, its clients, what its errors mean."""
