"""The page side of an explorer: one widget, what it shows as plain data, and the scripts that draw it."""
