"""The drawbacks that the survey names, each tested in a file of its own."""
