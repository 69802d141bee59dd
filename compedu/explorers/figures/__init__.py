"""The figures of an explorer, as pure data made from a `View`."""
