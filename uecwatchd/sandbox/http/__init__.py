"""HTTP as the test cloud speaks it: connections, signatures, answers, and injected faults."""
