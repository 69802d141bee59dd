"""Transferred and compact convolutional filters: many filters that follow from a few by a fixed transformation."""
