"""Estimates out: messages, publishers, markers, status."""
