"""Figures of chapters and of pages without a kernel."""
