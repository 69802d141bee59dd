"""The drawbacks that the survey names, each on trial in a file of its own."""
