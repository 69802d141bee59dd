"""Figures of chapters, and explorers on pages without a kernel."""
