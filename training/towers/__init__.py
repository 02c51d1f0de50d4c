"""What happens to towers between phases: how they begin, which gates close, how two become one, in what order."""
