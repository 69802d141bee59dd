"""The drawbacks and suggestions of the survey, each tested in a file of its own."""
