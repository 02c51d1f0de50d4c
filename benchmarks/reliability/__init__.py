"""What the service promises under change, load, faults and attack, tried for long: `benchmarks/RELIABILITY.md`."""
