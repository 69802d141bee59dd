"""The widgets of an explorer: controls, the screen, tables, what stands in words."""
