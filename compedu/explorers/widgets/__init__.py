"""The widgets of an explorer: controls, the screen, tables, texts."""
